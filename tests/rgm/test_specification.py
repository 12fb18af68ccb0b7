"""The model's specification: what the shipped files say, what does not fit and where, mutations.

Every number of the shipped files is changed in turn and must change the model; every dimension of
the merged document is changed in turn and must be refused by the name of a variable; every edge of
the merged document is taken away, turned round and renamed, and must be asked for.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from strata.errors import UserError
from strata.rgm.document import notation_warnings
from strata.rgm.notation import SECTIONS, parse_notation
from strata.rgm.parameters import MAX_LEVELS
from strata.rgm.specification import (
    Initialization,
    Level,
    MessagePassing,
    Normalization,
    PerKind,
    PrecisionRule,
    Specification,
    read_specification,
    write_specification,
)

FOLDER = Path(__file__).parents[2] / "config" / "gnn"
NAMES = ("rgm_base", "rgm_hierarchical_level", "rgm_message_passing", "rgm_mnist")
SHIPPED = [FOLDER / f"{name}.gnn" for name in NAMES]
NAME = r"[A-Za-z_π'][A-Za-z0-9_π']*"

Rewrite = Callable[..., list[Path]]


@pytest.fixture(scope="module")
def shipped() -> Specification:
    return read_specification(SHIPPED)


@pytest.fixture
def rewritten(tmp_path: Path) -> Rewrite:
    """Return a function that copies the shipped files with passages replaced or lines added.

    Its arguments are (file's name, old passage, new passage), the passage standing there once.
    """

    def rewrite(*changes: tuple[str, str, str]) -> list[Path]:
        texts = {path.stem: path.read_text(encoding="utf-8") for path in SHIPPED}
        for stem, old, new in changes:
            assert texts[stem].count(old) == 1, (stem, old)
            texts[stem] = texts[stem].replace(old, new)
        for stem, text in texts.items():
            (tmp_path / f"{stem}.gnn").write_text(text, encoding="utf-8")
        return [tmp_path / f"{name}.gnn" for name in NAMES]

    return rewrite


def complaint(paths: Sequence[Path]) -> list[str]:
    """Return the lines of the refusal, with the names of the files instead of their paths."""
    with pytest.raises(UserError) as refusal:
        read_specification(paths)
    return str(refusal.value).replace(f"{paths[0].parent}/", "").splitlines()


def line_of(path: Path, passage: str) -> int:
    text = path.read_text(encoding="utf-8")
    assert text.count(passage) == 1, passage
    return text[: text.index(passage)].count("\n") + 1


def parameters_of(path: Path) -> dict[str, str]:
    body = (
        path.read_text(encoding="utf-8").partition("## ModelParameters\n")[2].partition("\n\n")[0]
    )
    return dict(re.findall(r"^(\w+): ([^\s#]+)", body, flags=re.MULTILINE))


# --- the shipped files --------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_is_strict_notation_without_a_warning(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    headers = re.findall(r"^## (\S+)$", text, flags=re.MULTILINE)
    assert headers == list(SECTIONS)
    bodies = dict(zip(headers, re.split(r"^## \S+\n", text, flags=re.MULTILINE)[1:], strict=True))
    assert all(body.strip() for body in bodies.values())
    declarations = bodies["StateSpaceBlock"].strip().splitlines()
    declared = [line.partition("[")[0] for line in declarations]
    assert len(set(declared)) == len(declared)
    size = rf"([1-9][0-9]*|{NAME})"
    form = rf"{NAME}\[{size}(,{size})*,type=(float|int|bool)\](  # .*)?"
    assert all(re.fullmatch(form, line) for line in declarations)
    edges = bodies["Connections"].strip().splitlines()
    assert all(re.fullmatch(rf"{NAME}[>-]{NAME}(:[A-Za-z0-9_]+)?", edge) for edge in edges)
    assert {end for edge in edges for end in re.split("[>-]", edge.partition(":")[0])} <= set(
        declared
    )
    assert notation_warnings(parse_notation(text, str(path))) == []


def test_concrete_numbers_stand_once_and_among_the_parameters() -> None:
    numbers = [int(n) for n in re.findall(r"\b(784|256|64|32|16|28|10)\b", SHIPPED[-1].read_text())]
    assert sorted(numbers) == sorted([784, 256, 64, 16, 64, 32, 10, 28, 28, 10])
    sizes = {key for key in parameters_of(SHIPPED[-1]) if re.match("n_|image_|num_", key)}
    assert len(sizes) == len(numbers) + 1  # and num_levels
    for path in SHIPPED[:-1]:
        assert not re.search(r"\b(784|256|64|32|16|28|10)\b", path.read_text())
    for path in SHIPPED:
        block = path.read_text().partition("## StateSpaceBlock")[2].partition("##")[0]
        assert not re.search(r"\[[^\]]*\b[2-9][0-9]*\b", block)


def test_the_shipped_model(shipped: Specification) -> None:
    assert shipped == Specification(
        levels=(
            Level(0, 784, 256, 64, "silu"),
            Level(1, 256, 64, 32, "silu"),
            Level(2, 64, 16, 10, "identity"),
        ),
        image_shape=(28, 28),
        n_classes=10,
        initialization=PerKind(
            recognition=Initialization("orthogonal", 1.4, 0.0),
            generation=Initialization("transpose", 1.0, 0.0),
            lateral=Initialization("identity", 1.0, 0.01),
            factor=Initialization("normal", 1.0, 1.0),
        ),
        normalization=PerKind(
            recognition=Normalization("none"),
            generation=Normalization("none"),
            lateral=Normalization("symmetric_pd"),
            factor=Normalization("none"),
        ),
        pixel_bias=-2.0,
        message_passing=MessagePassing(80, 0.9, 1e-5, 0.9),
        precision=PrecisionRule(1.0, 0.01, 1000.0, 0.01, 1e-5),
        factor_weights=(0.0, 0.0, 1.0),
        document=shipped.document,
        warnings=(),
    )
    assert shipped.warnings == ()


def test_the_template_becomes_three_levels(shipped: Specification) -> None:
    sizes = {variable.name: variable.dimensions for variable in shipped.document.variables}
    expected: dict[str, tuple[int, ...]] = {"x": (784, 1), "F": (1,), "t": (1,)}
    for level, (n_below, n, m) in enumerate(((784, 256, 64), (256, 64, 32), (64, 16, 10))):
        shapes = {
            "s": (n, 1), "f": (m, 1), "A": (n, n_below), "B": (n_below, n), "D": (n, n),
            "M": (n, m), "a": (n, 1), "b": (n_below, 1), "e": (n_below, 1), "pi": (n_below, 1),
        }  # fmt: skip
        expected |= {f"{letter}_level{level}": shape for letter, shape in shapes.items()}
    assert sizes == expected
    edges = [str(edge) for edge in shipped.document.connections]
    assert len(edges) == len(set(edges))
    for edge in (
        "x>A_level0:bottom_up",
        "s_level0>A_level1:bottom_up",
        "B_level0>x:top_down",
        "B_level2>s_level1:top_down",
        "s_level1-D_level1:lateral",
        "e_level2>F:error",
    ):
        assert edge in edges
    terms = {item.name: item.term for item in shipped.document.ontology}
    assert terms["x"] == "Observation"
    assert terms["s_level0"] == terms["s_level1"] == "HiddenState"


def test_the_later_file_wins(shipped: Specification, rewritten: Rewrite) -> None:
    paths = rewritten(
        ("rgm_mnist", "num_levels: 3", "num_levels: 3\nstep_size: 0.5"),
        ("rgm_mnist", "## Footer\nThe most special of four files.", "## Footer"),
    )
    model = read_specification(paths)
    assert model.message_passing.step_size == 0.5
    assert model.document.title == "Renormalization Generative Model of handwritten digits"
    assert model.document.footer == "How beliefs move."
    comments = {variable.name: variable.comment for variable in model.document.variables}
    assert comments["f_level2"] == "factor node: the digit"
    assert comments["s_level0"] == "state node"
    last_first = read_specification([paths[3], *paths[:3]])
    assert last_first.message_passing.step_size == 0.9
    assert last_first.levels == model.levels


def test_the_merged_document_specifies_the_same_model(
    shipped: Specification, tmp_path: Path
) -> None:
    path = tmp_path / "merged.gnn"
    path.write_text(write_specification(shipped), encoding="utf-8")
    again = read_specification([path])
    assert again == shipped
    assert again.document == shipped.document
    assert again.warnings == ()
    assert all(isinstance(size, int) for v in again.document.variables for size in v.dimensions)
    assert write_specification(again) == path.read_text(encoding="utf-8")


def test_a_changed_model_is_not_written_with_the_old_document(shipped: Specification) -> None:
    with pytest.raises(ValueError, match="its values differ from its document"):
        write_specification(dataclasses.replace(shipped, n_classes=9))


# --- mutations ----------------------------------------------------------------------------------

TOGETHER = {  # a change of the first alone contradicts the second
    "n_input": {"n_input": "812", "image_height": "29"},
    "image_height": {"n_input": "812", "image_height": "29"},
    "image_width": {"n_input": "756", "image_width": "27"},
    "num_classes": {"num_classes": "11", "n_factor2": "11"},
    "n_factor2": {"num_classes": "11", "n_factor2": "11"},
}
OTHER = {  # what else a parameter may be
    "orthogonal": "xavier_normal",
    "transpose": "kaiming_normal",
    "identity": "tanh",
    "silu": "relu",
    "none": "spectral",
}
EVERY_KEY = [(path.stem, key) for path in SHIPPED for key in parameters_of(path)]
FIXED = ("template", "num_levels", "normalization_lateral", "factor_weight_level2")


def with_values(rewritten: Rewrite, values: dict[str, str]) -> list[Path]:
    where = {
        key: (path.stem, value) for path in SHIPPED for key, value in parameters_of(path).items()
    }
    return rewritten(
        *((where[k][0], f"\n{k}: {where[k][1]}", f"\n{k}: {v}") for k, v in values.items())
    )


@pytest.mark.parametrize("key", [key for _, key in EVERY_KEY if key not in FIXED])
def test_every_parameter_changes_the_model(
    key: str, shipped: Specification, rewritten: Rewrite
) -> None:
    old = {k: v for path in SHIPPED for k, v in parameters_of(path).items()}[key]
    if re.fullmatch("[0-9]+", old):
        new = str(int(old) + 1)
    elif re.match("-?[0-9]", old):
        new = str(0.5 * float(old) + 0.001)
    else:
        new = OTHER["none" if key.startswith("normal") else old] if old in OTHER else "identity"
    if key in ("initialization_lateral", "initialization_factor"):
        new = {"identity": "normal", "normal": "identity"}[old]
    if key in TOGETHER:
        alone = complaint(with_values(rewritten, {key: new}))
        assert any(re.search(r"\b(x|f_level2)\b", line) for line in alone)
    changed = read_specification(with_values(rewritten, TOGETHER.get(key, {key: new})))
    assert changed != shipped
    assert changed.document != shipped.document


def test_height_and_width_are_told_apart(rewritten: Rewrite) -> None:
    paths = with_values(rewritten, TOGETHER["image_width"])
    assert read_specification(paths).image_shape == (28, 27)


def test_a_model_of_two_levels(rewritten: Rewrite) -> None:
    paths = rewritten(
        ("rgm_mnist", "num_levels: 3", "num_levels: 2"),
        ("rgm_mnist", "n_factor1: 32", "n_factor1: 10"),
        ("rgm_mnist", "factor_weight_level1: 0.0", "factor_weight_level1: 1"),
        ("rgm_mnist", "s_level2[n_state2", "s_level1[n_state1"),
        ("rgm_mnist", "f_level2[num", "f_level1[num"),
        ("rgm_mnist", "s_level2-f_level2", "s_level1-f_level1"),
        ("rgm_mnist", "f_level2=Hidden", "f_level1=Hidden"),
    )
    model = read_specification(paths)
    assert model.levels == (Level(0, 784, 256, 64, "silu"), Level(1, 256, 64, 10, "silu"))
    assert model.factor_weights == (0.0, 1.0)
    unused = [line.split(": ")[1].split()[0] for line in model.warnings]
    assert unused == ["n_state2", "n_factor2", "activation_level2", "factor_weight_level2"]


def test_a_model_of_as_many_levels_as_there_can_be(rewritten: Rewrite) -> None:
    further = "".join(
        f"n_state{i}: 16\nn_factor{i}: 10\nactivation_level{i}: tanh\nfactor_weight_level{i}: 1\n"
        for i in range(3, MAX_LEVELS)
    )
    paths = rewritten(
        ("rgm_mnist", "num_levels: 3\n", f"num_levels: {MAX_LEVELS}\n{further}"),
        ("rgm_mnist", "s_level2[n_state2,1,type=float]", "z[1]"),
        ("rgm_mnist", "f_level2[num_classes,1,type=float]", "y[num_classes,1]"),
    )
    model = read_specification(paths)
    assert [level.n_state for level in model.levels] == [256, 64, *[16] * (MAX_LEVELS - 2)]
    assert MAX_LEVELS == 9, "a level is one digit"


def mutants(text: str) -> list[tuple[str, str]]:
    """Return every declaration with one of its dimensions raised by one, and its variable."""
    found = []
    for declaration in re.finditer(rf"^({NAME})\[[0-9,]+", text, flags=re.MULTILINE):
        for size in re.finditer("[0-9]+", text[declaration.end(1) : declaration.end()]):
            start, end = declaration.end(1) + size.start(), declaration.end(1) + size.end()
            found.append((text[:start] + str(int(size[0]) + 1) + text[end:], declaration[1]))
    return found


def test_every_dimension_of_the_merged_document_is_held_fast(
    shipped: Specification, tmp_path: Path
) -> None:
    text = write_specification(shipped)
    path = tmp_path / "merged.gnn"
    texts = mutants(text)
    assert len(texts) == 2 + 1 + 1 + 3 * 20
    for mutant, name in texts:
        path.write_text(mutant, encoding="utf-8")
        where = f"merged.gnn, line {line_of(path, f'{chr(10)}{name}[') + 1}"
        found = complaint([path])
        assert all(where in line for line in found), found
        assert any(re.search(rf"\b{name}\[", line) for line in found), found


@pytest.mark.parametrize(
    "key",
    ["n_input", "image_height", "image_width", "num_classes"]
    + [f"n_{node}{level}" for node in ("state", "factor") for level in range(3)],
)
def test_every_size_of_the_merged_document_is_held_fast_by_a_variable(
    key: str, shipped: Specification, tmp_path: Path
) -> None:
    path = tmp_path / "merged.gnn"
    text = re.sub(
        rf"^{key}: (\d+)",
        lambda found: f"{key}: {int(found[1]) + 1}",
        write_specification(shipped),
        flags=re.MULTILINE,
    )
    path.write_text(text, encoding="utf-8")
    variables = {variable.name for variable in shipped.document.variables}
    for line in complaint([path]):
        assert variables & set(re.findall(NAME, line.partition(": ")[2]))


# --- edges --------------------------------------------------------------------------------------

EDGES = {  # of every level, by label
    "bottom_up": ("below>A", "A>s", "a>s"),
    "top_down": ("s>B", "B>below", "b>below"),
    "lateral": ("s-D",),
    "factor": ("s-f", "f-M"),
    "precision": ("pi>e",),
    "error": ("below>e", "B>e", "e>F"),
}


def expected_edges() -> list[str]:
    """Return all edges of the network of three levels."""

    def named(name: str, level: int) -> str:
        below = "x" if level == 0 else f"s_level{level - 1}"
        return {"below": below, "F": "F"}.get(name, f"{name}_level{level}")

    edges = []
    for label, of_label in EDGES.items():
        for edge in of_label:
            source, sign, target = re.split("([>-])", edge)
            edges += [f"{named(source, i)}{sign}{named(target, i)}:{label}" for i in range(3)]
    return edges


def merged_text(shipped: Specification) -> tuple[str, str, str]:
    """Return the merged document cut up: what is before its edges, the edges, what is after."""
    before, header, rest = write_specification(shipped).partition("## Connections\n")
    edges, gap, after = rest.partition("\n\n")
    return before + header, edges, gap + after


def findings(path: Path, before: str, edges: str, after: str) -> list[str]:
    path.write_text(before + edges + after, encoding="utf-8")
    return complaint([path])


def place_of(path: Path, name: str) -> str:
    """Return where a variable is declared."""
    return f"{path.name}, line {line_of(path, f'{chr(10)}{name}[') + 1}"


def test_the_labelled_edges_are_those_of_the_network(shipped: Specification) -> None:
    labelled = [str(edge) for edge in shipped.document.connections if edge.label is not None]
    assert sorted(labelled) == sorted(expected_edges())


@pytest.mark.parametrize("edge", expected_edges())
def test_every_edge_of_the_network_is_asked_for(
    edge: str, shipped: Specification, tmp_path: Path
) -> None:
    path = tmp_path / "merged.gnn"
    before, edges, after = merged_text(shipped)
    ends, label = edge.split(":")
    source, sign, target = re.split("([>-])", ends)
    assert edges.split("\n").count(edge) == 1

    def changed(new: str) -> list[str]:
        lines = [new if line == edge else line for line in edges.split("\n")]
        return findings(path, before, "\n".join(filter(None, lines)), after)

    missing = f"the edge {edge} is missing."
    assert changed("") == [f"{place_of(path, target)}: {missing}"]
    assert changed(ends) == [f"{place_of(path, target)}: {missing}"], "without a label: a remark"
    other = "lateral" if label != "lateral" else "factor"
    turned = f"{target}{sign}{source}:{label}" if sign == ">" else f"{source}>{target}:{label}"
    for wrong in (f"{ends}:{other}", f"{ends}:bottomup", turned):
        first, second = changed(wrong)
        assert first == f"{place_of(path, target)}: {missing}"
        here = f"{path.name}, line {line_of(path, chr(10) + wrong + chr(10)) + 1}"
        assert second == (
            f"{here}: the edge {wrong} is none that the network can have; an edge without a label "
            "is a remark."
        )


def test_an_edge_without_direction_may_be_written_either_way(
    shipped: Specification, tmp_path: Path
) -> None:
    path = tmp_path / "merged.gnn"
    before, edges, after = merged_text(shipped)
    turned = re.sub(r"^(\w+)-(\w+):", r"\2-\1:", edges, flags=re.MULTILINE)
    assert turned.count("D_level2-s_level2:lateral") == 1
    path.write_text(before + turned + after, encoding="utf-8")
    assert read_specification([path]) == shipped


@pytest.mark.parametrize(
    "edge",
    [
        "s_level0>s_level2:bottom_up",  # a shortcut between levels
        "D_level0>s_level0:lateral",
        "s_level0-D_level1:lateral",
        "f_level2>e_level2:error",
        "pi_level1>e_level0:precision",
        "x>F:surprise",
        "s_level2>nowhere:top_down",
    ],
)
def test_a_labelled_edge_that_the_network_cannot_have_is_refused_where_it_stands(
    edge: str, shipped: Specification, rewritten: Rewrite
) -> None:
    stated = ("rgm_mnist", "s_level2-f_level2:factor", f"s_level2-f_level2:factor\n{edge}")
    paths = rewritten(stated)
    assert complaint(paths) == [
        f"rgm_mnist.gnn, line {line_of(paths[3], edge)}: the edge {edge} is none that the network "
        "can have; an edge without a label is a remark."
    ]
    remark = edge.partition(":")[0]
    assert read_specification(rewritten((*stated[:2], stated[2].replace(edge, remark)))) == shipped


def test_an_edge_turned_round_is_named_where_it_should_end_and_where_it_stands(
    rewritten: Rewrite,
) -> None:
    paths = rewritten((LEVEL, "s>B:top_down", "s-B:top_down"))
    B, edge = line_of(paths[1], "\nB[") + 1, line_of(paths[1], "s-B:top_down")
    found = complaint(paths)
    assert len(found) == 6
    for i in range(3):
        arrow = f"s_level{i}>B_level{i}:top_down"
        assert f"rgm_hierarchical_level.gnn, line {B}: the edge {arrow} is missing." in found
        line = f"rgm_hierarchical_level.gnn, line {edge}: the edge s_level{i}-B_level{i}:top_down "
        assert any(finding.startswith(line) for finding in found)


# --- what does not fit --------------------------------------------------------------------------

LEVEL, MNIST, BASE, PASSING = (NAMES[1], NAMES[3], NAMES[0], NAMES[2])
MISFITS = {
    "recognition that looks at the wrong level": (
        (LEVEL, "A[n_state,n_input,", "A[n_state,n_state,"),
        (LEVEL, "A["),
        ["A_level1[64,64] must be A_level1[64,256]", "256 units of s_level0"],
        3,
    ),
    "generation that is not transposed": (
        (LEVEL, "B[n_input,n_state,", "B[n_state,n_input,"),
        (LEVEL, "B["),
        ["B_level0[256,784] must be B_level0[784,256]: the shape of A_level0 transposed."],
        3,
    ),
    "lateral that is not square": (
        (LEVEL, "D[n_state,n_state,", "D[n_state,n_factor,"),
        (LEVEL, "D["),
        ["D_level2[16,10] must be D_level2[16,16]: square over the 16 units of s_level2."],
        3,
    ),
    "whole-numbered state": (
        (LEVEL, "A[n_state,n_input,type=float", "A[n_state,n_input,type=int"),
        (LEVEL, "A["),
        ["A_level0[256,784] is of type int; only float can be built."],
        3,
    ),
    "level without a precision": (
        (LEVEL, "pi[n_input,1,type=float]  # precision of that error\n", ""),
        (MNIST, "num_levels"),
        ["num_levels is 3, but pi_level1[256,1] is declared in none of rgm_base.gnn and "],
        3,
    ),
    "image of another size": (
        (MNIST, "image_height: 28", "image_height: 27"),
        (MNIST, "n_input: 784"),
        ["x has 784 pixels (n_input), but image_height * image_width = 27 * 28 = 756."],
        1,
    ),
    "nothing comes from below": (
        (LEVEL, "A>s:bottom_up\na>s:bottom_up\n", ""),
        (LEVEL, "\ns["),
        [
            "the edge A_level1>s_level1:bottom_up is missing.",
            "the edge a_level2>s_level2:bottom_up is missing.",
        ],
        6,
    ),
    "nothing goes down": (
        (LEVEL, "s>B:top_down\n", ""),
        (LEVEL, "\nB["),
        ["the edge s_level2>B_level2:top_down is missing."],
        3,
    ),
    "state without a factor": (
        (LEVEL, "s-f:factor\n", ""),
        (LEVEL, "\nf["),
        ["the edge s_level0-f_level0:factor is missing."],
        2,
    ),
    "state with two factors": (
        (LEVEL, "s-f:factor", "s-f:factor\ns-M:factor"),
        (LEVEL, "s-M:factor"),
        ["the edge s_level0-M_level0:factor is none that the network can have; an edge without"],
        3,
    ),
    "error without an edge from its precision": (
        (LEVEL, "pi>e:precision\n", ""),
        (LEVEL, "\ne["),
        ["the edge pi_level2>e_level2:precision is missing."],
        3,
    ),
    "unknown dimension": (
        (LEVEL, "M[n_state,", "M[n_stat,"),
        (LEVEL, "M["),
        ["M_level0[n_stat,n_factor0]: ModelParameters holds no n_stat; did you mean n_state"],
        3,
    ),
    "word for a dimension": (
        (MNIST, "s_level2[n_state2,", "s_level2[activation_level2,"),
        (MNIST, "activation_level2: "),
        ["activation_level2 is 'identity'; as a dimension of s_level2[activation_level2,1] ("],
        1,
    ),
    "level too many": (
        (MNIST, "f_level2[num", "f_level3[num_classes,1]\nf_level2[num"),
        (MNIST, "f_level3["),
        ["f_level3[10,1] belongs to no level; num_levels is 3 (rgm_mnist.gnn, line "],
        1,
    ),
    "values that fit no longer": (
        (BASE, "F={0.0}", "F={0.0}\nx={0.5,0.5}"),
        (BASE, "x={0.5,0.5}"),
        ["E002: the values of x are 2, but it is declared as x[784,1] (rgm_base.gnn, line "],
        1,
    ),
    "mark of a template": (
        (LEVEL, "template: level", "template: stack"),
        (LEVEL, "template: "),
        ["template: expected level; got 'stack'."],
        1,
    ),
    "lateral normalization": (
        (BASE, "normalization_lateral: symmetric_pd", "normalization_lateral: row"),
        (BASE, "normalization_lateral"),
        ["normalization_lateral: expected symmetric_pd; got 'row'."],
        1,
    ),
    "normalization": (
        (BASE, "normalization_factor: none", "normalization_factor: symmetric_pd"),
        (BASE, "normalization_factor"),
        [
            "normalization_factor: expected one of none, row, column, frobenius, spectral, "
            "stochastic, svd_condition; got 'symmetric_pd'."
        ],
        1,
    ),
    "initialization": (
        (BASE, "initialization_recognition: orthogonal", "initialization_recognition: transpose"),
        (BASE, "initialization_recognition"),
        [
            "expected one of orthogonal, xavier_uniform, xavier_normal, kaiming_uniform, "
            "kaiming_normal, normal, identity, svd; got 'transpose'."
        ],
        1,
    ),
    "activation": (
        (MNIST, "activation_level1: silu", "activation_level1: gelu"),
        (MNIST, "activation_level1"),
        [
            "activation_level1: expected one of identity, relu, elu, silu, softplus, tanh, "
            "sigmoid; got 'gelu'."
        ],
        1,
    ),
    "step": (
        (PASSING, "step_size: 0.9", "step_size: 1.0"),
        (PASSING, "step_size"),
        ["step_size: expected a number above 0 and below 1; got 1.0."],
        1,
    ),
    "iterations": (
        (PASSING, "max_iterations: 80", "max_iterations: 2.5"),
        (PASSING, "max_iterations"),
        ["max_iterations: expected a whole number above 0; got 2.5."],
        1,
    ),
    "truth value for a number": (
        (MNIST, "n_state0: 256", "n_state0: true"),
        (MNIST, "n_state0"),
        ["n_state0: expected a whole number above 0; got True."],
        1,
    ),
    "precision out of bounds": (
        (PASSING, "precision_maximum: 1000.0", "precision_maximum: 0.5"),
        (PASSING, "precision_initial"),
        ["precision_initial is 1.0; expected at least precision_minimum = 0.01 and at most pr"],
        1,
    ),
    "weight of the top": (
        (MNIST, "factor_weight_level2: 1.0", "factor_weight_level2: 0.5"),
        (MNIST, "factor_weight_level2"),
        ["factor_weight_level2 is 0.5; the factor of the top level sets the scale"],
        1,
    ),
    "pixel bias": (
        (MNIST, "pixel_bias: -2.0", "pixel_bias: dark"),
        (MNIST, "pixel_bias"),
        ["pixel_bias: expected a number; got 'dark'."],
        1,
    ),
    "no level": (
        (MNIST, "num_levels: 3", "num_levels: 0"),
        (MNIST, "num_levels"),
        ["num_levels: expected a whole number from 1 to 9; got 0."],
        1,
    ),
    "levels of two digits": (
        (MNIST, "num_levels: 3", "num_levels: 10"),
        (MNIST, "num_levels"),
        ["num_levels: expected a whole number from 1 to 9; got 10."],
        1,
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused_where_it_stands(case: str, rewritten: Rewrite) -> None:
    change, (stem, passage), words, n_lines = MISFITS[case]
    paths = rewritten(change)
    path = paths[NAMES.index(stem)]
    line = line_of(path, passage) + passage.startswith("\n")
    found = complaint(paths)
    assert len(found) == n_lines, found
    for sentence in words:
        matching = [
            f for f in found if sentence in f and f.startswith(f"{path.name}, line {line}: ")
        ]
        assert matching, found


def test_files_that_contradict_each_other_are_both_named(rewritten: Rewrite) -> None:
    paths = rewritten(
        (MNIST, "num_classes: 10", "num_classes: 11"),
        (BASE, "x[n_input,1,type=float]", "x[n_input,2,type=float]"),
    )
    mnist, base, level = paths[3], paths[0], paths[1]
    f, x = line_of(level, "\nf[") + 1, line_of(base, "\nx[") + 1
    assert complaint(paths) == [
        f"rgm_hierarchical_level.gnn, line {line_of(level, 'x[')}: x[784,1] of type float "
        f"contradicts x[784,2] of type float (rgm_base.gnn, line {x}).",
        f"rgm_mnist.gnn, line {line_of(mnist, chr(10) + 'x[') + 1}: x[784,1] of type float "
        f"contradicts x[784,2] of type float (rgm_base.gnn, line {x}).",
        f"rgm_mnist.gnn, line {line_of(mnist, 'f_level2[')}: f_level2[11,1] of type float "
        f"contradicts f_level2[10,1] of type float (rgm_hierarchical_level.gnn, line {f}).",
    ]


def test_the_top_factor_counts_the_classes(rewritten: Rewrite) -> None:
    paths = rewritten(
        (MNIST, "num_classes: 10", "num_classes: 11"),
        (MNIST, "f_level2[num_classes", "y[num_classes"),
    )
    assert complaint(paths) == [
        f"rgm_mnist.gnn, line {line_of(paths[3], 'num_classes: 11')}: num_classes is 11, but "
        "f_level2, the factor of the top level, has n_factor2 = 10 categories."
    ]


def test_a_missing_parameter_is_named_with_what_it_may_be(rewritten: Rewrite) -> None:
    paths = rewritten(
        (MNIST, "n_state1: 64  # parts of digits\n", ""), (BASE, "std_factor: 1.0\n", "")
    )
    files = " and ".join(f"{name}.gnn" for name in NAMES)
    assert complaint(paths) == [
        f"{files}: ModelParameters lacks n_state1; expected a whole number above 0.",
        f"{files}: ModelParameters lacks std_factor; expected a number of at least 0.",
    ]


WARNED_OF = ("s_level2>y", "stepsize", "gain_factor", "colour")


def test_parameters_that_change_nothing_are_warned_of(
    shipped: Specification, rewritten: Rewrite
) -> None:
    paths = rewritten(
        (MNIST, "num_levels: 3", "num_levels: 3\nstepsize: 0.5\ngain_factor: 2\ncolour: 3"),
        (MNIST, "s_level2-f_level2:factor", "s_level2-f_level2:factor\ns_level2>y"),
    )
    model = read_specification(paths)
    assert model == shipped
    lines = [line_of(paths[3], passage) for passage in WARNED_OF]
    assert list(model.warnings) == [
        f"{paths[3]}, line {line}: {sentence}"
        for line, sentence in zip(
            lines,
            (
                "W002: the edge s_level2>y names y, which is not declared.",
                "stepsize is no known parameter and changes nothing; did you mean step_size?",
                "gain_factor changes nothing: initialization normal has none.",
                "colour is no known parameter and changes nothing.",
            ),
            strict=True,
        )
    ]
    assert model.document.parameters == shipped.document.parameters


def test_a_dimension_may_have_a_name_of_its_own(shipped: Specification, rewritten: Rewrite) -> None:
    paths = rewritten(
        (MNIST, "s_level2[n_state2,", "z[latent_dim,1]\ns_level2[n_state2,"),
        (MNIST, "num_levels: 3", "num_levels: 3\nlatent_dim: 5"),
    )
    model = read_specification(paths)
    assert (model, model.warnings) == (shipped, ())
    assert next(v for v in model.document.variables if v.name == "z").dimensions == (5, 1)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.gnn").write_bytes(b"## GNNSection\n\xe9\n")
    for name in ("missing.gnn", "latin.gnn"):
        with pytest.raises(UserError, match=f"{name}: cannot be read as a specification"):
            read_specification([tmp_path / name])
    with pytest.raises(UserError, match="No specification was named"):
        read_specification([])
