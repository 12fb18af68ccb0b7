"""What the discrete model looks at and how it is grouped, as GNN files specify it.

Conventions: levels are numbered l = 0..L-1 from the pixels up. The image x is preprocessed to
pixels y [side, side], which singular vectors V of n_tiles * n_tiles overlapping tiles turn into
outcomes o, one of n_bins bins for each of at most max_modes modes of a tile. Level 0 has a group
for 2 x 2 tiles, the level above one for 2 x 2 groups, and so on up to a single group; n_groups{l}
= n_tiles / 2^(l+1) is the number of groups along a side. Each group of level l is in one of
n_state{l} states s_l, a number that is learned and so keeps its name: groups with fewer states are
filled up. A_level0 holds the probabilities of outcomes given states, A_level{l} those of states of
the level below, M those of top states given the class f.

Edges carry one of the labels bottom_up, top_down and factor.

Source: Friston et al., arXiv:2407.20292, for the model; `strata.rgm.notation` for the files.

Imports neither torch nor numpy.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strata.errors import UserError
from strata.rgm.document import (
    Document,
    Edge,
    Parameter,
    Variable,
    edge_findings,
    notation_warnings,
    refuse,
    variable_findings,
)
from strata.rgm.merging import merged, merged_parameters
from strata.rgm.notation import read_notation, write_notation
from strata.rgm.parameters import is_whole, parameter_findings, parameter_of_another_model
from strata.rgm.spm.parameters import (
    RULES,
    contradictions,
    is_continuous_only,
    is_discrete_only,
    unknown_findings,
)


@dataclass(frozen=True)
class DiscreteSpecification:
    """Everything that preprocessing, tiles, outcomes and groups are built from.

    image_shape: height and width, pixels.
    side: rows, and columns, of the preprocessed image.
    blur: standard deviation of the Gaussian blur, pixels of the preprocessed image.
    n_tiles: tiles along a side.
    tile_width: standard deviation of a tile's weights, pixels of the preprocessed image.
    min_share: least variance of a mode, in units of the mean over a tile's modes.
    max_modes: modes that a tile has at most.
    n_bins: bins that the variate of a mode can fall into.
    n_levels: levels of groups.

    `document` is the merged specification with all numbers in place that are not learned,
    `warnings` what a user should hear of; neither counts when two are compared.
    """

    image_shape: tuple[int, int]
    n_classes: int
    side: int
    blur: float
    n_tiles: int
    tile_width: float
    min_share: float
    max_modes: int
    n_bins: int
    n_levels: int
    document: Document = field(compare=False, repr=False)
    warnings: tuple[str, ...] = field(default=(), compare=False, repr=False)


def read_discrete_specification(paths: Sequence[Path]) -> DiscreteSpecification:
    """Return the model that files specify together, the later over the earlier.

    Raises:
        UserError: one line per finding, which names file, line, and the names and numbers that do
            not fit; or a file specifies the continuous model.
    """
    if not paths:
        raise UserError("No specification was named; name its .gnn files, the most general first.")
    return _specified([read_notation(path) for path in paths])


def write_discrete_specification(specification: DiscreteSpecification) -> str:
    """Return the merged document as text, which specifies an equal model.

    Raises:
        ValueError: the specification was changed after it was read, so its document is another's.
    """
    if _specified([specification.document]) != specification:
        raise ValueError(
            "Expected a specification as read from files; its values differ from its document. "
            "Change the files and read them again."
        )
    return write_notation(specification.document)


def _specified(documents: Sequence[Document]) -> DiscreteSpecification:
    _refuse_the_continuous_model(documents)
    parameters = merged_parameters(documents)
    files = " and ".join(document.file for document in documents)
    unknown = (finding for document in documents for finding in unknown_findings(document))
    refuse([*unknown, *parameter_findings(parameters, RULES, files)])
    refuse(list(contradictions(parameters)))
    whole = {key: int(item.value) for key, item in parameters.items() if is_whole(item.value)}
    n_levels, n_tiles = whole["num_levels"], whole["n_tiles"]
    groups = {f"n_groups{level}": n_tiles // 2 ** (level + 1) for level in range(n_levels)}
    derived = {name: Parameter(name, number) for name, number in groups.items()}
    learned = [f"n_state{level}" for level in range(n_levels)]
    document = merged(documents, parameters | derived, RULES, learned)
    refuse(
        [
            *variable_findings(document, _variables(whole | groups), parameters["num_levels"]),
            *edge_findings(document, _edges(n_levels)),
        ]
    )
    return DiscreteSpecification(
        image_shape=(whole["image_height"], whole["image_width"]),
        n_classes=whole["num_classes"],
        side=whole["side"],
        blur=float(parameters["blur"].value),
        n_tiles=n_tiles,
        tile_width=float(parameters["tile_width"].value),
        min_share=float(parameters["min_share"].value),
        max_modes=whole["max_modes"],
        n_bins=whole["n_bins"],
        n_levels=n_levels,
        document=document,
        warnings=tuple(notation_warnings(document)),
    )


def _refuse_the_continuous_model(documents: Sequence[Document]) -> None:
    found = parameter_of_another_model(documents, own=is_discrete_only, other=is_continuous_only)
    if found:
        raise UserError(
            f"{found.place}: {found.name} belongs to the continuous model; the discrete model "
            "(model: spm) is specified by a file such as config/gnn/rgm_spm.gnn."
        )


# --- what must fit together ---------------------------------------------------------------------


def _variables(sizes: Mapping[str, int]) -> dict[str, tuple[Variable, str]]:
    """Return name -> variable that the model has, and why it has those dimensions."""
    n_levels, n_tiles, n_modes = (sizes[key] for key in ("num_levels", "n_tiles", "max_modes"))
    side, n_classes, top = sizes["side"], sizes["num_classes"], n_levels - 1
    tiles, modes = (n_tiles, n_tiles), f"max_modes = {n_modes} modes of {n_tiles} x {n_tiles} tiles"
    pixels = f"side * side = {side} * {side} pixels"
    variables = [
        (
            Variable("x", (sizes["image_height"], sizes["image_width"])),
            "image_height rows and image_width columns",
        ),
        (Variable("y", (side, side)), pixels),
        (Variable("V", (*tiles, n_modes, side, side)), f"{pixels} for each of the {modes}"),
        (Variable("o", (*tiles, n_modes), "int"), f"one outcome for each of the {modes}"),
        (
            Variable("A_level0", (*tiles, n_modes, sizes["n_bins"], "n_state0")),
            f"n_bins = {sizes['n_bins']} bins for each of the {modes}, given a group's state",
        ),
        (Variable(f"f_level{top}", (n_classes, 1)), f"num_classes = {n_classes} classes"),
        (
            Variable(f"M_level{top}", (f"n_state{top}", n_classes)),
            f"a column of top states for each of the num_classes = {n_classes} classes",
        ),
        (Variable("F", (1,)), "one number"),
    ]
    for level in range(n_levels):
        n = sizes[f"n_groups{level}"]
        groups = f"{n} x {n} groups, 2 x 2 of the level below each"
        state = Variable(f"s_level{level}", (n, n, f"n_state{level}"))
        variables.append(
            (state, f"n_state{level} states, which are learned, for each of the {groups}")
        )
    for level in range(1, n_levels):
        n = sizes[f"n_groups{level - 1}"]
        sizes_of_a = (n, n, f"n_state{level - 1}", f"n_state{level}")
        variables.append(
            (
                Variable(f"A_level{level}", sizes_of_a),
                f"states of each of the {n} x {n} groups below, given the state of the group above",
            )
        )
    return {variable.name: (variable, reason) for variable, reason in variables}


def _edges(n_levels: int) -> list[Edge]:
    """Return the edges of the model."""
    chain = ["y", "V", "o"]
    for level in range(n_levels):
        chain += [f"A_level{level}", f"s_level{level}"]
    steps = list(itertools.pairwise(chain))
    s, M, f = (f"{letter}_level{n_levels - 1}" for letter in "sMf")
    return [
        ("x", "y", True, "bottom_up"),
        *((below, above, True, "bottom_up") for below, above in steps),
        *((above, below, True, "top_down") for below, above in steps),
        (s, M, False, "factor"),
        (M, f, False, "factor"),
    ]
