"""The model parameters that a specification of the discrete model holds, and what each may be.

Conventions: lengths are in pixels of the preprocessed image, which has side * side of them; tiles
lie on a lattice of n_tiles * n_tiles. Imports neither torch nor numpy.
"""

import math
from collections.abc import Iterator, Mapping

from strata.config import nearest_names
from strata.rgm.document import Document, Parameter
from strata.rgm.merging import MARK
from strata.rgm.parameters import (
    COUNT,
    LEVEL_COUNT,
    MAX_LEVELS,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    is_continuous,
    is_whole,
)

REACH = 4  # a tile sees less than this many of its standard deviations far
MOST_BINS = 255  # their numbers are stored in a byte
ODD = Rule(
    f"an odd whole number from 3 to {MOST_BINS}, so that one bin is centred on 0",
    lambda value: is_whole(value) and 3 <= value <= MOST_BINS and value % 2 == 1,
)
RULES = {
    "num_levels": LEVEL_COUNT,
    "image_height": COUNT,
    "image_width": COUNT,
    "num_classes": COUNT,
    "side": COUNT,
    "blur": NOT_NEGATIVE,
    "n_tiles": COUNT,
    "tile_width": POSITIVE,
    "min_share": NOT_NEGATIVE,
    "max_modes": COUNT,
    "n_bins": ODD,
}
NOT_FREE = {  # name of a dimension -> where its number comes from
    **{f"n_state{level}": "learned from exemplars" for level in range(MAX_LEVELS)},
    **{f"n_groups{level}": f"n_tiles / {2 ** (level + 1)}" for level in range(MAX_LEVELS)},
}


def is_discrete_only(name: str) -> bool:
    """Return whether a parameter is one of the discrete model and not of the continuous one."""
    return name in RULES and not is_continuous(name)


def is_continuous_only(name: str) -> bool:
    """Return whether a parameter is one of the continuous model and not of the discrete one."""
    return name == MARK or (is_continuous(name) and name not in RULES)


def unknown_findings(document: Document) -> Iterator[str]:
    """Yield a sentence for each parameter of a file that has no meaning.

    A parameter that a dimension is named after has one.
    """
    symbols = {size for variable in document.variables for size in variable.dimensions}
    for parameter in document.parameters:
        key = parameter.name
        if key in NOT_FREE:
            yield f"{parameter.place}: {key} cannot be set; it is {NOT_FREE[key]}."
        elif key not in RULES and key not in symbols:
            near = nearest_names(key, RULES, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else "."
            yield f"{parameter.place}: {key} is no parameter of the discrete model{hint}"


def contradictions(parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """Yield a sentence for parameters that are right by themselves but do not go together."""
    height, width = parameters["image_height"], parameters["image_width"]
    if height.value != width.value:
        yield (
            f"{width.place}: image_width is {width.value}, but image_height is {height.value}; "
            "images become squares of side * side pixels, so they must be square."
        )
    n_levels, n_tiles = parameters["num_levels"], parameters["n_tiles"]
    if n_tiles.value != 2 ** int(n_levels.value):
        yield (
            f"{n_tiles.place}: n_tiles is {n_tiles.value}, but num_levels = {n_levels.value} "
            "levels, each of 2 x 2 groups of the one below, have one group at the top if n_tiles "
            f"is 2^{n_levels.value} = {2 ** int(n_levels.value)}."
        )
    side, tile_width = parameters["side"], parameters["tile_width"]
    if int(side.value) < int(n_tiles.value):
        yield (
            f"{side.place}: side is {side.value}, but n_tiles = {n_tiles.value} tiles along a side "
            "need at least a pixel each."
        )
    # The pixel farthest from all tiles lies half a spacing from the nearest one along both axes.
    farthest = int(side.value) / int(n_tiles.value) / math.sqrt(2)
    if REACH * float(tile_width.value) <= farthest:
        yield (
            f"{tile_width.place}: tile_width is {tile_width.value}, but n_tiles = {n_tiles.value} "
            f"tiles along side = {side.value} pixels see every pixel only if it is above "
            f"{farthest / REACH:.4g}."
        )
