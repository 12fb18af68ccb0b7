"""Generalized Notation Notation: what is read, what is refused and where, and round trips.

The strict check of the format is written here a second time, from the format's regular expressions.
"""

import contextlib
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.errors import UserError
from strata.rgm.document import (
    Annotation,
    Connection,
    Document,
    InitialValue,
    Parameter,
    Variable,
    notation_warnings,
)
from strata.rgm.notation import DEFAULTS, SECTIONS, TYPES, parse_notation, write_notation

PENDULUM = """## GNNSection
Pendulum

## GNNVersionAndFlags
GNN v1.1 strict_validation=true

## ModelName
A pendulum that is watched

## ModelAnnotation
Two hidden numbers,

  and what is seen of them.

## StateSpaceBlock
# hidden
s[2,1,type=float,default=zeros]  # angle and angular velocity
A[num_obs,2]
### seen
π'[1]#observed # twice

## Connections
# an edge of each sort
s>A
A-π':seen

## InitialParameterization
s={(0.5),  # the angle
   (-1e-3)}
π'=2

## Equations
π' = A s  # exactly

## Time
Dynamic
DiscreteTime=t

## ActInfOntologyAnnotation
s=HiddenState  # of course

## ModelParameters
num_obs: 1  # one eye
damping: 2.5e-1
is_driven: false
method: leap frog

## Footer
Footer

## Signature
pending
"""


def complaint(text: str) -> str:
    with pytest.raises(UserError) as refusal:
        parse_notation(text, "some.gnn")
    return str(refusal.value)


def changed(old: str, new: str) -> tuple[str, int]:
    """Return the pendulum with one passage replaced, and the line where it stood."""
    assert PENDULUM.count(old) == 1
    return PENDULUM.replace(old, new), PENDULUM[: PENDULUM.index(old)].count("\n") + 1


def without(section: str) -> str:
    return re.sub(rf"## {section}\n.*?(?=^## |\Z)", "", PENDULUM, flags=re.DOTALL | re.MULTILINE)


# --- what is read -------------------------------------------------------------------------------


def test_every_section_is_read() -> None:
    document = parse_notation(PENDULUM, "some.gnn")
    assert document == Document(
        section="Pendulum",
        version="GNN v1.1 strict_validation=true",
        title="A pendulum that is watched",
        annotation="Two hidden numbers,\n\n  and what is seen of them.",
        variables=(
            Variable("s", (2, 1), "float", "zeros", "angle and angular velocity"),
            Variable("A", ("num_obs", 2)),
            Variable("π'", (1,), comment="observed # twice"),
        ),
        connections=(Connection("s", "A"), Connection("A", "π'", False, "seen")),
        initial=(InitialValue("s", ((0.5,), (-1e-3,))), InitialValue("π'", 2)),
        equations="π' = A s  # exactly",
        time="Dynamic\nDiscreteTime=t",
        ontology=(Annotation("s", "HiddenState"),),
        parameters=(
            Parameter("num_obs", 1, "one eye"),
            Parameter("damping", 0.25),
            Parameter("is_driven", False),
            Parameter("method", "leap frog"),
        ),
        footer="Footer",
        signature="pending",
    )
    assert [type(parameter.value) for parameter in document.parameters] == [int, float, bool, str]
    assert notation_warnings(document) == []


def test_every_item_knows_its_line() -> None:
    document = parse_notation(PENDULUM, "some.gnn")
    lines = PENDULUM.splitlines()
    for items, opening in (
        (document.variables, "{0.name}["),
        (document.connections, "{0.source}"),
        (document.initial, "{0.name}="),
        (document.ontology, "{0.name}="),
        (document.parameters, "{0.name}: "),
    ):
        for item in items:
            assert lines[item.place.line - 1].startswith(opening.format(item))
            assert item.place.file == "some.gnn"


@pytest.mark.parametrize("docstring", ['"""One line."""\n', '\n"""\nSeveral\n## GNNSection\n"""\n'])
def test_a_docstring_before_the_first_section_is_passed_over(docstring: str) -> None:
    document = parse_notation(docstring + PENDULUM, "some.gnn")
    plain = parse_notation(PENDULUM, "some.gnn")
    assert document == plain
    moved = document.variables[0].place.line - plain.variables[0].place.line
    assert moved == docstring.count("\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [("-0007", -7), ("1.", 1.0), (".5e+2", 50.0), ("9" * 20, 1e20), ("1e999", "1e999")],
)
def test_numbers_have_many_forms_and_are_finite(text: str, value: float | str) -> None:
    document = parse_notation(changed("2.5e-1", text)[0], "some.gnn")
    assert document.parameters[1] == Parameter("damping", value)
    assert type(document.parameters[1].value) is type(value)


def test_a_docstring_must_be_closed() -> None:
    assert complaint('"""' + PENDULUM) == (
        'some.gnn, line 1: the docstring is not closed; end it with """.'
    )


def test_line_ends_and_a_title_before_the_sections_change_nothing() -> None:
    plain = parse_notation(PENDULUM, "some.gnn")
    assert parse_notation("\ufeff# A title\n\n" + PENDULUM, "some.gnn") == plain
    assert parse_notation(PENDULUM.replace("\n", "\r\n"), "some.gnn") == plain


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("{0}", (0,)),
        ("{(1,2),(3,4)}", ((1, 2), (3, 4))),
        ("{((1,2)),((3,4))}", (((1, 2),), ((3, 4),))),
    ],
)
def test_values_nest(text: str, values: Any) -> None:
    document = parse_notation(changed("π'=2", f"Q={text}")[0], "some.gnn")
    assert document.initial[1].values == values


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_a_required_section_is_missed_and_another_is_not(section: str) -> None:
    required = {"GNNSection", "GNNVersionAndFlags", "ModelName", "StateSpaceBlock", "Connections"}
    text = without(section)
    if section not in required:
        parse_notation(text, "some.gnn")
        return
    last = text.count("\n") + 1
    assert complaint(text).splitlines()[0] == (
        f"some.gnn, line {last}: E001: section {section} is missing."
    )


BAD_LINES = {  # what stands there -> what stands there instead, and words of the complaint
    "π'=2": [
        ("s={1,2}", "s has two initial values (first on line 28)."),
        ("π'={(1,2)}", "E002: the values of π' are 1x2, but it is declared as π'[1] (some.gnn, li"),
        ("Q={(1,2),(3)}", "E002: the rows of Q differ in length."),
        ("Q={(1,2),3}", "E002: the rows of Q differ in length."),
        ("Q={(1,2)", "a brace or parenthesis is opened and not closed."),
        ("Q={}", "Q: expected finite numbers"),
        ("Q={(1,two)}", "Q: expected finite numbers"),
        ("Q={1e999}", "Q: expected finite numbers"),
        ("Q={[1]}", "Q: expected finite numbers"),
        ("Q", "expected values such as D={(1.0,0.0),(0.0,1.0)}; got 'Q'."),
    ],
    "A[num_obs,2]": [
        ("s[2]", "E004: variable s is declared twice (first on line 17)."),
        ("A", "expected a declaration such as"),
        ("A-b[2]", "expected a declaration such as"),
        ("2A[2]", "expected a declaration such as"),
        ("A[]", "A: expected dimensions"),
        ("A[0,2]", "A: expected dimensions (whole numbers above 0, or names of parameters)"),
        ("A[2.5]", "got '2.5'."),
        ("A[type=float]", "A has no dimension"),
        ("A[type=float,2]", "got '2'."),
        ("A[2,type=double]", "A: expected a type among float, int, bool; got 'double'."),
        ("A[2,default=one]", "A: expected a default among uniform, zeros, ones, eye, random; got"),
        ("A[2,type=int,type=int]", "got 'type=int'."),
        ("A[2,kind=int]", "got 'kind=int'."),
    ],
    "s>A": [
        (edge, f"E005: an edge such as A>B, A-B or A>B:label, without blanks or a comment was expec"
         f"ted; got {edge!r}.")
        for edge in (
            "s->A", "s > A", "s>A # why", "(s,u)>A", "s<->A", "s>A:", "s>A:a b", "s|A", "s>A>π'",
            "2s>A", "s>A:π", "s=A", ">A", "s",
        )
    ],
    "num_obs: 1": [
        ("damping: 1", ""),
        ("num_obs=1", "expected a parameter such as n_state0: 256; got 'num_obs=1'."),
        ("num_obs:", "expected a parameter such as"),
    ],
    "s=HiddenState": [("s:HiddenState", "expected a term such as s=HiddenState; got")],
    "GNN v1.1 strict": [("GNN v2 strict", "GNNVersionAndFlags: expected GNN v1, GNN v1.0 or GNN")],
    "\nPendulum": [("\nA pendulum", "GNNSection: expected an identifier such as RGMBase; got")],
    "Dynamic": [("Sometimes", "Time: expected Static, Dynamic, Continuous, DiscreteTime=")],
    "## Footer": [
        ("## Feet", "Feet is no section; the sections are GNNSection,"),
        ("## Time", "section Time stands twice (first on line 35)."),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"), [(old, *case) for old, cases in BAD_LINES.items() for case in cases]
)
def test_a_bad_line_is_refused_where_it_stands(old: str, new: str, words: str) -> None:
    text, line = changed(old, new)
    line += old.startswith("\n")
    if new.startswith("damping"):
        line, words = line + 1, f"parameter damping stands twice (first on line {line})."
    assert complaint(text).startswith(f"some.gnn, line {line}: ")
    assert words in complaint(text)
    assert len(complaint(text).splitlines()) == 1


def test_sections_stand_in_their_order() -> None:
    text = without("Footer") + "\n## Footer\nlast\n"
    line = text[: text.index("## Footer")].count("\n") + 1
    assert complaint(text) == f"some.gnn, line {line}: section Footer belongs before Signature."


def test_what_precedes_the_sections_must_be_a_comment() -> None:
    assert complaint("hierarchy:\n  levels: 3\n" + PENDULUM) == (
        "some.gnn, line 1: expected a section such as ## GNNSection; got 'hierarchy:'."
    )


def test_all_findings_come_at_once_each_on_its_line() -> None:
    text, _ = changed("s>A", "s->A")
    text = text.replace("A[num_obs,2]", "s[num_obs,2]").replace("π'=2", "π'={(1,2)}")
    starts = [line.split(": ")[1] for line in complaint(text).splitlines()]
    assert starts == ["E005", "E004", "E002"]


@pytest.mark.parametrize(
    ("dimensions", "values", "fits"),
    [
        ("2", "{1,2}", True),
        ("2", "{(1,2)}", True),
        ("2", "{(1),(2)}", True),
        ("1,2", "{1,2}", True),
        ("2,1", "{1,2}", True),
        ("1", "5", True),
        ("1,1", "{5}", True),
        ("2", "5", False),
        ("2", "{1,2,3}", False),
        ("2,3", "{(1,2,3),(4,5,6)}", True),
        ("2,3", "{(1,2),(3,4),(5,6)}", False),
        ("2,3", "{1,2,3,4,5,6}", False),
        ("3,1", "{(1,2,3)}", False),
        ("2,3,4", "action major", True),
        ("n,3", "{1,2}", True),
    ],
)
def test_values_fit_the_dimensions_or_stand_for_a_vector(
    dimensions: str, values: str, fits: bool
) -> None:
    if values == "action major":
        matrix = "(" + ",".join(2 * ["(1,2,3)"]) + ")"
        values = "{" + ",".join(4 * [matrix]) + "}"
    text = PENDULUM.replace("A[num_obs,2]", f"Q[{dimensions}]").replace("π'=2", f"Q={values}")
    text = text.replace("s>A", "s>Q").replace("A-π'", "Q-π'")
    if fits:
        assert notation_warnings(parse_notation(text, "some.gnn")) == []
    else:
        assert ": E002: the values of Q are " in complaint(text)


def test_undeclared_variables_are_warned_of() -> None:
    text, line = changed("s>A", "q>Q")
    values_line = changed("π'=2", "R=2")[1]
    document = parse_notation(text.replace("π'=2", "R=2"), "some.gnn")
    assert notation_warnings(document) == [
        f"some.gnn, line {line}: W002: the edge q>Q names q, which is not declared.",
        f"some.gnn, line {line}: W002: the edge q>Q names Q, which is not declared.",
        f"some.gnn, line {values_line}: W003: R has an initial value but is not declared.",
    ]


# --- round trips --------------------------------------------------------------------------------


def strictly_checked(text: str) -> None:
    """Hold a text against the format's own expressions, read independently of the parser."""
    name = r"[A-Za-z_π'][A-Za-z0-9_π']*"
    headers = re.findall(r"^## (\w+)$", text, flags=re.MULTILINE)
    assert headers == list(SECTIONS)
    bodies = dict(zip(headers, re.split(r"^## \w+$", text, flags=re.MULTILINE)[1:], strict=True))
    lines = {
        section: [line for line in body.split("\n") if line and not line.startswith("#")]
        for section, body in bodies.items()
    }
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", bodies["GNNSection"].strip())
    assert re.match(r"GNN v1(\.1)?\b", bodies["GNNVersionAndFlags"].strip())
    for line in lines["Connections"]:
        assert re.fullmatch(rf"{name}[>-]{name}(:[A-Za-z0-9_]+)?", line), line
    size = rf"([1-9][0-9]*|{name})"
    kinds, starts = "|".join(TYPES), "|".join(DEFAULTS)
    for line in lines["StateSpaceBlock"]:
        form = rf"{name}\[{size}(,{size})*(,type=({kinds}))?(,default=({starts}))?\](\s+#.*)?"
        assert re.fullmatch(form, line), line
    names = [line.partition("[")[0] for line in lines["StateSpaceBlock"]]
    assert len(names) == len(set(names))


names = st.from_regex(r"[A-Za-z_π'][A-Za-z0-9_π']{0,6}", fullmatch=True)
comments = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12).map(
    lambda text: text.strip()
)
texts = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=15)
    .map(lambda line: line.rstrip())
    .filter(lambda line: not line.startswith("##")),
    max_size=4,
).map(lambda lines: "\n".join(lines).strip("\n"))
numbers = st.integers(-(10**14), 10**14) | st.floats(allow_nan=False, allow_infinity=False)
nested = st.integers(1, 3).flatmap(
    lambda n: numbers
    | st.lists(numbers, min_size=n, max_size=n).map(tuple)
    | st.lists(
        st.lists(numbers, min_size=n, max_size=n).map(tuple), min_size=1, max_size=3
    ).map(tuple).filter(lambda rows: len(rows[0]) > 1)
)  # fmt: skip
words = st.from_regex(r"[a-z][a-z .,:=-]{0,8}[a-z]", fullmatch=True).filter(
    lambda word: word not in ("true", "false")
)


def several(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Up to four items, as tuples of class and arguments; the first argument is their name."""
    return st.lists(items, max_size=4, unique_by=lambda item: item[1])


labels = st.none() | st.from_regex("[A-Za-z0-9_]{1,5}", fullmatch=True)
sizes = st.lists(st.integers(1, 9**8) | names, min_size=1, max_size=3).map(tuple)
defaults = st.none() | st.sampled_from(DEFAULTS)
values = numbers | st.booleans() | words
ingredients = st.fixed_dictionaries(
    {
        "section": st.from_regex("[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True),
        "version": st.sampled_from(["GNN v1", "GNN v1.1", "GNN v1.1 flag=true"]),
        "title": texts,
        "annotation": texts,
        "variables": several(
            st.tuples(st.just(Variable), names, sizes, st.sampled_from(TYPES), defaults, comments)
        ),
        "connections": st.lists(
            st.tuples(st.just(Connection), names, names, st.booleans(), labels), max_size=5
        ),
        "initial": several(st.tuples(st.just(InitialValue), names.map("v{}".format), nested)),
        "equations": texts,
        "time": st.sampled_from(["", "Static", "Dynamic\nDiscreteTime=t\nModelTimeHorizon=20"]),
        "ontology": several(st.tuples(st.just(Annotation), names, st.just("HiddenState"))),
        "parameters": several(st.tuples(st.just(Parameter), names, values, comments)),
        "footer": texts,
        "signature": texts,
    }
)


def composed(parts: dict[str, Any]) -> Document:
    """Return the document of these parts; initial values that fit no variable are left out."""
    made = {
        entry: part if isinstance(part, str) else tuple(kind(*rest) for kind, *rest in part)
        for entry, part in parts.items()
    }
    declared = {variable.name for variable in made["variables"]}
    made["initial"] = tuple(item for item in made["initial"] if item.name not in declared)
    return Document(**made)


@given(ingredients)
def test_what_is_written_is_read_again(parts: dict[str, Any]) -> None:
    document = composed(parts)
    text = write_notation(document)
    again = parse_notation(text, "some.gnn")
    assert again == document
    assert repr(again.parameters) == repr(document.parameters), "1, 1.0 and True are different"
    assert repr(again.initial) == repr(document.initial)
    strictly_checked(text)


@given(st.text("#\"'sA[](){}<>-=:,.12eπ _\n", max_size=200), st.sampled_from(SECTIONS))
def test_what_is_read_is_written_and_read_again(lines: str, section: str) -> None:
    text = PENDULUM.replace(f"## {section}\n", f"## {section}\n{lines}\n")
    with contextlib.suppress(UserError):
        document = parse_notation(text, "some.gnn")
        assert parse_notation(write_notation(document), "again.gnn") == document


def test_a_second_reading_keeps_comments_and_forgets_nothing() -> None:
    document = parse_notation(PENDULUM, "some.gnn")
    text = write_notation(document)
    assert parse_notation(text, "other.gnn") == document
    assert write_notation(parse_notation(text, "other.gnn")) == text
    assert "# angle and angular velocity" in text
    assert "# one eye" in text
    strictly_checked(text)


def test_documents_differ_by_any_item() -> None:
    document = parse_notation(PENDULUM, "some.gnn")
    assert replace(document, variables=document.variables[:1]) != document
    first = replace(document.variables[0], comment="")
    assert replace(document, variables=(first, *document.variables[1:])) != document
