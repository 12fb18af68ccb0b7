"""The discrete model's specification: the shipped file, what does not fit and where, both models.

Every number of the shipped file is changed in turn and must change what is read; every dimension
and every edge of it is changed or taken away in turn and must be asked for.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from strata.errors import UserError
from strata.rgm.document import notation_warnings
from strata.rgm.notation import SECTIONS, parse_notation
from strata.rgm.specification import read_specification, write_specification
from strata.rgm.spm.specification import (
    DiscreteSpecification,
    read_discrete_specification,
    write_discrete_specification,
)

FOLDER = Path(__file__).parents[3] / "config" / "gnn"
SHIPPED = FOLDER / "rgm_spm.gnn"
CONTINUOUS = [
    FOLDER / f"rgm_{part}.gnn"
    for part in ("base", "hierarchical_level", "message_passing", "mnist")
]
TEXT = SHIPPED.read_text(encoding="utf-8")

Rewrite = Callable[..., Path]


@pytest.fixture(scope="module")
def shipped() -> DiscreteSpecification:
    return read_discrete_specification([SHIPPED])


@pytest.fixture
def rewritten(tmp_path: Path) -> Rewrite:
    """Return a function that copies the shipped file with passages, each there once, replaced."""

    def rewrite(*changes: tuple[str, str]) -> Path:
        text = TEXT
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / "changed.gnn"
        path.write_text(text, encoding="utf-8")
        return path

    return rewrite


def complaint(paths: Sequence[Path]) -> list[str]:
    """Return the lines of the refusal, with the names of the files instead of their paths."""
    with pytest.raises(UserError) as refusal:
        read_discrete_specification(paths)
    words = str(refusal.value)
    for path in paths:
        words = words.replace(f"{path.parent}/", "")
    return words.splitlines()


def line_of(path: Path, passage: str) -> int:
    text = path.read_text(encoding="utf-8")
    assert text.count(passage) == 1, passage
    return text[: text.index(passage)].count("\n") + 1


def section(name: str) -> list[str]:
    """Return the lines of a section of the shipped file."""
    return TEXT.partition(f"## {name}\n")[2].partition("\n\n")[0].splitlines()


# --- the shipped file ---------------------------------------------------------------------------


def test_the_shipped_file_is_strict_notation_without_a_warning(
    shipped: DiscreteSpecification,
) -> None:
    assert re.findall(r"^## (\S+)$", TEXT, flags=re.MULTILINE) == list(SECTIONS)
    assert all(section(name) for name in SECTIONS)
    name = r"[A-Za-z_π'][A-Za-z0-9_π']*"
    form = rf"({name})\[({name}|1)(,({name}|1))*,type=(float|int)\]  # .*"
    declared = [re.fullmatch(form, line) for line in section("StateSpaceBlock")]
    names = {match[1] for match in declared if match}
    assert len(names) == len(declared), "no number stands among the dimensions"
    edges = [re.fullmatch(rf"({name})[>-]({name})(:\w+)?", e) for e in section("Connections")]
    assert {end for edge in edges if edge for end in edge.groups()[:2]} == names
    assert notation_warnings(parse_notation(TEXT, "")) == []
    assert shipped.warnings == ()


def test_the_shipped_model(shipped: DiscreteSpecification) -> None:
    assert shipped == DiscreteSpecification(
        image_shape=(28, 28),
        n_classes=10,
        side=32,
        blur=0.85,
        n_tiles=8,
        tile_width=2.0,
        min_share=0.125,
        max_modes=12,
        n_bins=7,
        n_levels=3,
        document=shipped.document,
    )


def test_dimensions_are_numbers_unless_they_are_learned(shipped: DiscreteSpecification) -> None:
    assert {v.name: v.dimensions for v in shipped.document.variables} == {
        "x": (28, 28), "y": (32, 32), "V": (8, 8, 12, 32, 32), "o": (8, 8, 12), "F": (1,),
        "s_level0": (4, 4, "n_state0"), "s_level1": (2, 2, "n_state1"),
        "s_level2": (1, 1, "n_state2"), "f_level2": (10, 1), "M_level2": ("n_state2", 10),
        "A_level0": (8, 8, 12, 7, "n_state0"), "A_level1": (4, 4, "n_state0", "n_state1"),
        "A_level2": (2, 2, "n_state1", "n_state2"),
    }  # fmt: skip


def test_the_merged_document_specifies_the_same_model(
    shipped: DiscreteSpecification, tmp_path: Path
) -> None:
    path = tmp_path / "merged.gnn"
    path.write_text(write_discrete_specification(shipped), encoding="utf-8")
    again = read_discrete_specification([path])
    assert (again, again.document, again.warnings) == (shipped, shipped.document, ())
    assert write_discrete_specification(again) == path.read_text(encoding="utf-8")


def test_a_changed_model_is_not_written_with_the_old_document(
    shipped: DiscreteSpecification,
) -> None:
    with pytest.raises(ValueError, match="its values differ from its document"):
        write_discrete_specification(dataclasses.replace(shipped, n_bins=9))


def test_a_later_file_changes_numbers(shipped: DiscreteSpecification, tmp_path: Path) -> None:
    path = tmp_path / "fewer.gnn"
    path.write_text(
        "## GNNSection\nFewer\n## GNNVersionAndFlags\nGNN v1.1\n## ModelName\nFewer modes\n"
        "## StateSpaceBlock\n## Connections\n## ModelParameters\nmax_modes: 4\n",
        encoding="utf-8",
    )
    found = read_discrete_specification([SHIPPED, path])
    assert found == dataclasses.replace(shipped, max_modes=4)
    assert found.document.title == "Fewer modes"
    assert read_discrete_specification([path, SHIPPED]) == shipped


NUMBERS = {
    "num_classes": (12, {"n_classes": 12}),
    "side": (40, {"side": 40}),
    "blur": (0, {"blur": 0.0}),
    "tile_width": (3, {"tile_width": 3.0}),
    "min_share": (1.5, {"min_share": 1.5}),
    "max_modes": (16, {"max_modes": 16}),
    "n_bins": (11, {"n_bins": 11}),
}


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_of_the_file_changes_the_model(
    key: str, shipped: DiscreteSpecification, rewritten: Rewrite
) -> None:
    value, fields = NUMBERS[key]
    old = next(line for line in section("ModelParameters") if line.startswith(f"{key}: "))
    found = read_discrete_specification([rewritten((old, f"{key}: {value}"))])
    assert found == dataclasses.replace(shipped, **fields)
    assert found != shipped


def test_the_sides_of_the_image_change_together(
    shipped: DiscreteSpecification, rewritten: Rewrite
) -> None:
    path = rewritten(
        ("image_height: 28", "image_height: 20"), ("image_width: 28", "image_width: 20")
    )
    assert read_discrete_specification([path]) == dataclasses.replace(shipped, image_shape=(20, 20))


# --- what does not fit --------------------------------------------------------------------------

MISFITS: dict[str, tuple[tuple[str, str], str, str]] = {
    "unknown parameter": (
        ("n_bins: 7", "n_bins: 7\nmax_mode: 9"),
        "max_mode: 9",
        "max_mode is no parameter of the discrete model; did you mean max_modes?",
    ),
    "parameter of nothing": (
        ("n_bins: 7", "n_bins: 7\nzebra: 9"),
        "zebra: 9",
        "zebra is no parameter of the discrete model.",
    ),
    "parameter of the continuous model": (
        ("n_bins: 7", "n_bins: 7\ngain_recognition: 1.4"),
        "gain_recognition",
        "gain_recognition is no parameter of the discrete model.",
    ),
    "mark of a template": (
        ("n_bins: 7", "n_bins: 7\ntemplate: level"),
        "template: level",
        "template is no parameter of the discrete model.",
    ),
    "learned number": (
        ("n_bins: 7", "n_bins: 7\nn_state1: 130"),
        "n_state1: 130",
        "n_state1 cannot be set; it is learned from exemplars.",
    ),
    "number that follows": (
        ("n_bins: 7", "n_bins: 7\nn_groups1: 2"),
        "n_groups1: 2",
        "n_groups1 cannot be set; it is n_tiles / 4.",
    ),
    "one bin": (
        ("n_bins: 7", "n_bins: 1"),
        "n_bins: 1",
        "n_bins: expected an odd whole number from 3 to 255, so that one bin is centred on 0; got "
        "1.",
    ),
    "even bins": (
        ("n_bins: 7", "n_bins: 8"),
        "n_bins: 8",
        "n_bins: expected an odd whole number from 3 to 255, so that one bin is centred on 0; got "
        "8.",
    ),
    "more bins than a byte holds": (
        ("n_bins: 7", "n_bins: 257"),
        "n_bins: 257",
        "n_bins: expected an odd whole number from 3 to 255, so that one bin is centred on 0; got "
        "257.",
    ),
    "tiles that do not end in one group": (
        ("n_tiles: 8", "n_tiles: 16"),
        "n_tiles: 16",
        "n_tiles is 16, but num_levels = 3 levels, each of 2 x 2 groups of the one below, have one "
        "group at the top if n_tiles is 2^3 = 8.",
    ),
    "tiles that cannot be halved": (
        ("n_tiles: 8", "n_tiles: 6"),
        "n_tiles: 6",
        "n_tiles is 6, but num_levels = 3 levels, each of 2 x 2 groups of the one below, have one "
        "group at the top if n_tiles is 2^3 = 8.",
    ),
    "image that is no square": (
        ("image_width: 28", "image_width: 27"),
        "image_width: 27",
        "image_width is 27, but image_height is 28; images become squares of side * side pixels, "
        "so they must be square.",
    ),
    "image without rows": (
        ("image_height: 28", "image_height: 0"),
        "image_height: 0",
        "image_height: expected a whole number above 0; got 0.",
    ),
    "fewer pixels than tiles": (
        ("side: 32", "side: 7"),
        "side: 7",
        "side is 7, but n_tiles = 8 tiles along a side need at least a pixel each.",
    ),
    "tiles with gaps": (
        ("tile_width: 2.0", "tile_width: 0.7"),
        "tile_width: 0.7",
        "tile_width is 0.7, but n_tiles = 8 tiles along side = 32 pixels see every pixel only if "
        "it is above 0.7071.",
    ),
    "negative blur": (
        ("blur: 0.85", "blur: -1"),
        "blur: -1",
        "blur: expected a number of at least 0; got -1.",
    ),
    "half a mode": (
        ("max_modes: 12", "max_modes: 12.5"),
        "max_modes: 12.5",
        "max_modes: expected a whole number above 0; got 12.5.",
    ),
    "word for a number": (
        ("side: 32", "side: large"),
        "side: large",
        "side: expected a whole number above 0; got 'large'.",
    ),
    "truth value for a number": (
        ("side: 32", "side: true"),
        "side: true",
        "side: expected a whole number above 0; got True.",
    ),
    "no level": (
        ("num_levels: 3", "num_levels: 0"),
        "num_levels: 0",
        "num_levels: expected a whole number from 1 to 9; got 0.",
    ),
    "image of other dimensions": (
        ("x[image_height,image_width,", "x[image_height,side,"),
        "x[image_height,side",
        "x[28,32] must be x[28,28]: image_height rows and image_width columns.",
    ),
    "groups of another number": (
        ("s_level1[n_groups1,n_groups1,", "s_level1[n_groups0,3,"),
        "s_level1[",
        "s_level1[4,3,n_state1] must be s_level1[2,2,n_state1]: n_state1 states, which are "
        "learned, for each of the 2 x 2 groups, 2 x 2 of the level below each.",
    ),
    "number of states as a number": (
        ("s_level2[n_groups2,n_groups2,n_state2,", "s_level2[n_groups2,n_groups2,130,"),
        "s_level2[",
        "s_level2[1,1,130] must be s_level2[1,1,n_state2]: n_state2 states, which are learned, for "
        "each of the 1 x 1 groups, 2 x 2 of the level below each.",
    ),
    "likelihood of another level": (
        ("n_groups0,n_state0,n_state1,", "n_groups0,n_state1,n_state0,"),
        "A_level1[",
        "A_level1[4,4,n_state1,n_state0] must be A_level1[4,4,n_state0,n_state1]: states of each "
        "of the 4 x 4 groups below, given the state of the group above.",
    ),
    "outcomes that are not whole": (
        ("o[n_tiles,n_tiles,max_modes,type=int]", "o[n_tiles,n_tiles,max_modes,type=float]"),
        "o[n_tiles",
        "o[8,8,12] is of type float; only int can be built.",
    ),
    "unknown dimension": (
        ("M_level2[n_state2,", "M_level2[n_state3,"),
        "M_level2[",
        "M_level2[n_state3,num_classes]: ModelParameters holds no n_state3; did you mean n_state2?",
    ),
    "level too many": (
        ("F[1,", "s_level3[1,1,1]\nF[1,"),
        "s_level3[",
        "s_level3[1,1,1] belongs to no level; num_levels is 3 (changed.gnn, line {num_levels: }).",
    ),
    "variable that is missing": (
        ("F[1,type=float]  # free energy\n", ""),
        "num_levels: ",
        "num_levels is 3, but F[1] is declared in none of changed.gnn.",
    ),
    "values that do not fit": (
        ("# Nothing starts from", "F={1.0,2.0}  # Nothing starts from"),
        "F={1.0,2.0}",
        "E002: the values of F are 2, but it is declared as F[1] (changed.gnn, line {F[1,}).",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_one_sentence_with_its_place(case: str, rewritten: Rewrite) -> None:
    change, passage, sentence = MISFITS[case]
    path = rewritten(change)
    sentence = re.sub(
        r"(?<=line )\{(.*)\}", lambda match: str(line_of(path, f"\n{match[1]}") + 1), sentence
    )
    assert complaint([path]) == [f"changed.gnn, line {line_of(path, passage)}: {sentence}"]


@pytest.mark.parametrize("line", section("ModelParameters"))
def test_a_missing_parameter_is_named(line: str, rewritten: Rewrite) -> None:
    (found,) = complaint([rewritten((line + "\n", ""))])
    assert found.startswith(f"changed.gnn: ModelParameters lacks {line.partition(':')[0]}; exp")


@pytest.mark.parametrize("line", section("StateSpaceBlock"))
def test_every_variable_is_asked_for(line: str, rewritten: Rewrite) -> None:
    name = line.partition("[")[0]
    found = complaint([rewritten((line + "\n", ""))])
    assert len([words for words in found if f"but {name}[" in words]) == 1


LABELLED = [edge for edge in section("Connections") if ":" in edge]


@pytest.mark.parametrize("edge", LABELLED)
def test_every_edge_is_asked_for(edge: str, rewritten: Rewrite) -> None:
    ends, label = edge.split(":")
    source, sign, target = re.split("([>-])", ends)
    place = f"changed.gnn, line {TEXT.split(f'{chr(10)}{target}[')[0].count(chr(10)) + 2}"
    missing = f"{place}: the edge {edge} is missing."
    assert complaint([rewritten((f"{edge}\n", ""))]) == [missing]
    for wrong in (f"{ends}:lateral", f"{target}{'>' if sign == '-' else '-'}{source}:{label}"):
        path = rewritten((f"{edge}\n", f"{wrong}\n"))
        assert complaint([path]) == [
            missing,
            f"changed.gnn, line {line_of(path, f'{wrong}{chr(10)}')}: the edge {wrong} is none "
            "that the network can have; an edge without a label is a remark.",
        ]


def test_a_remark_about_something_undeclared_is_warned_of(
    shipped: DiscreteSpecification, rewritten: Rewrite
) -> None:
    path = rewritten(("o>F", "o>G"))
    found = read_discrete_specification([path])
    assert found == shipped
    assert found.warnings == (
        f"{path}, line {line_of(path, 'o>G')}: W002: the edge o>G names G, which is not declared.",
    )


def test_a_dimension_may_have_a_name_of_its_own(
    shipped: DiscreteSpecification, rewritten: Rewrite
) -> None:
    path = rewritten(("F[1,", "z[n_words,1]\nF[1,"), ("n_bins: 7", "n_bins: 7\nn_words: 5"))
    found = read_discrete_specification([path])
    assert (found, found.warnings) == (shipped, ())
    assert next(v for v in found.document.variables if v.name == "z").dimensions == (5, 1)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.gnn: cannot be read as a specification"):
        read_discrete_specification([tmp_path / "missing.gnn"])
    with pytest.raises(UserError, match="No specification was named"):
        read_discrete_specification([])


# --- the other model ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "at"),
    [
        *(([path], i) for i, path in enumerate(CONTINUOUS)),
        (CONTINUOUS, 0),
        ([SHIPPED, *CONTINUOUS], 0),
        ([CONTINUOUS[3], SHIPPED], 3),
    ],
)
def test_the_continuous_model_is_refused_in_one_sentence(paths: list[Path], at: int) -> None:
    first = ("initialization_recognition", "template", "max_iterations", "n_input")[at]
    path = CONTINUOUS[at]
    assert complaint(paths) == [
        f"{path.name}, line {line_of(path, f'{chr(10)}{first}: ') + 1}: {first} belongs to the "
        "continuous model; the discrete model (model: spm) is specified by a file such as "
        "config/gnn/rgm_spm.gnn."
    ]


@pytest.mark.parametrize("paths", [[SHIPPED], [*CONTINUOUS, SHIPPED], [SHIPPED, *CONTINUOUS]])
def test_the_discrete_model_is_refused_where_the_continuous_one_is_read(paths: list[Path]) -> None:
    with pytest.raises(UserError) as refusal:
        read_specification(paths)
    assert str(refusal.value) == (
        f"{SHIPPED}, line {line_of(SHIPPED, f'{chr(10)}side: ') + 1}: side belongs to the discrete "
        "model (model: spm); the continuous model is specified by files such as "
        "config/gnn/rgm_mnist.gnn."
    )


def test_the_merged_document_is_refused_as_well(
    shipped: DiscreteSpecification, tmp_path: Path
) -> None:
    path = tmp_path / "specification.gnn"
    path.write_text(write_discrete_specification(shipped), encoding="utf-8")
    with pytest.raises(UserError, match="side belongs to the discrete model"):
        read_specification([path])
    path.write_text(write_specification(read_specification(CONTINUOUS)), encoding="utf-8")
    with pytest.raises(UserError, match="initialization_recognition belongs to the continuous"):
        read_discrete_specification([path])
