"""Generalized Notation Notation (GNN) 1.1, the Markdown dialect: parser and serialiser.

Conventions: a document holds thirteen sections, each under a header of level two (`## Name`), in
the order of `SECTIONS`. A `#` opens a comment in every section of items but Connections, where
whole lines alone can be comments. Lines are counted from 1. Findings that the format gives a code
open with it: E001 (section missing), E002 (values do not fit the declared dimensions), E004
(variable declared twice), E005 (no edge), and the warnings W002 and W003 (an edge of, and values
for, a variable that is not declared). Other findings have no code.

Source: Smekal and Friedman, "Generalized Notation Notation for Active Inference models" (2023),
https://doi.org/10.5281/zenodo.7803328; its file format in version 1.1.

Imports neither torch nor numpy.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from strata.errors import UserError
from strata.rgm.document import (
    Annotation,
    Connection,
    Document,
    InitialValue,
    Parameter,
    Place,
    Variable,
    refuse,
    shape_findings,
)

TEXT_SECTIONS = {  # section of plain text -> field of a document
    "GNNSection": "section",
    "GNNVersionAndFlags": "version",
    "ModelName": "title",
    "ModelAnnotation": "annotation",
    "Equations": "equations",
    "Time": "time",
    "Footer": "footer",
    "Signature": "signature",
}
SECTIONS = (
    "GNNSection",
    "GNNVersionAndFlags",
    "ModelName",
    "ModelAnnotation",
    "StateSpaceBlock",
    "Connections",
    "InitialParameterization",
    "Equations",
    "Time",
    "ActInfOntologyAnnotation",
    "ModelParameters",
    "Footer",
    "Signature",
)
REQUIRED = ("GNNSection", "GNNVersionAndFlags", "ModelName", "StateSpaceBlock", "Connections")
TYPES = ("float", "int", "bool")
DEFAULTS = ("uniform", "zeros", "ones", "eye", "random")

NAME = "[A-Za-z_π'][A-Za-z0-9_π']*"
HEADER = re.compile(r"##\s+(\S.*)")
IDENTIFIER = re.compile("[A-Za-z][A-Za-z0-9_]*")
VERSION = re.compile(r"GNN v1(\.[01])?(\s.*)?", re.DOTALL)
DECLARATION = re.compile(rf"({NAME})\s*\[([^\[\]]*)\]")
EDGE = re.compile(rf"({NAME})([>-])({NAME})(?::([A-Za-z0-9_]+))?")
ASSIGNMENT = re.compile(rf"({NAME})\s*=\s*(\S.*)", re.DOTALL)
TERM = re.compile(rf"({NAME})\s*=\s*([A-Za-z][A-Za-z0-9_]*)")
PARAMETER = re.compile(rf"({NAME})\s*:\s*(\S.*)")
TIME = re.compile(
    r"Static|Dynamic|Continuous|DiscreteTime=\w+|ModelTimeHorizon=([1-9][0-9]*|Unbounded)"
)
DIMENSION = re.compile("[1-9][0-9]{0,8}")
WHOLE_NUMBER = re.compile("[+-]?[0-9]{1,15}")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NESTED_NUMBERS = re.compile(r"[-+0-9eE.,(){}\s]+")
MOST_BYTES = 1 << 20  # of a file

Item = TypeVar("Item")


class _BadLine(Exception):
    """What is wrong with a line, as a sentence."""


Lines = list[tuple[Place, str]]


def parse_notation(text: str, name: str) -> Document:
    r"""Return the document that a text holds; `name` stands for its file in places and messages.

    A docstring (\"\"\" ... \"\"\") before the first section is passed over.

    Raises:
        UserError: one line per finding, which opens with file and line.
    """
    findings: list[str] = []
    sections = _sections(text, name, findings)

    def items(section: str, read: Callable[[str, Place], Item]) -> tuple[Item, ...]:
        lines = [(place, line.strip()) for place, line in sections.get(section, [])]
        lines = [(place, line) for place, line in lines if line and not line.startswith("#")]
        if section == "InitialParameterization":
            lines = list(_whole_assignments(lines, findings))
        return tuple(_read_each(lines, read, findings))

    texts = {entry: _text(sections.get(section, [])) for section, entry in TEXT_SECTIONS.items()}
    document = Document(
        **texts,
        variables=items("StateSpaceBlock", _variable),
        connections=items("Connections", _connection),
        initial=items("InitialParameterization", _initial_value),
        ontology=items("ActInfOntologyAnnotation", _annotation),
        parameters=items("ModelParameters", _parameter),
        file=name,
    )
    findings += _text_findings(document, sections)
    findings += _twice(document.variables, "E004: variable {} is declared twice")
    findings += _twice(document.initial, "{} has two initial values")
    findings += _twice(document.ontology, "{} has two terms")
    findings += _twice(document.parameters, "parameter {} stands twice")
    findings += shape_findings(document)
    refuse(findings)
    return document


def read_notation(path: Path) -> Document:
    """Return the document in a file.

    Raises:
        UserError: as `parse_notation`; the file is missing, too long or no text.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path}: expected a specification of at most {MOST_BYTES} bytes; got "
                f"{path.stat().st_size}; name another file."
            )
        return parse_notation(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a specification ({error}).") from error


def write_notation(document: Document) -> str:
    """Return the text of a document: all thirteen sections, one item a line."""
    bodies = {section: getattr(document, entry) for section, entry in TEXT_SECTIONS.items()}
    listed: dict[str, Iterable[str]] = {
        "StateSpaceBlock": (_variable_text(variable) for variable in document.variables),
        "Connections": (str(edge) for edge in document.connections),
        "InitialParameterization": (
            f"{item.name}={_values_text(item.values, outermost=True)}" for item in document.initial
        ),
        "ActInfOntologyAnnotation": (f"{item.name}={item.term}" for item in document.ontology),
        "ModelParameters": (
            _commented(f"{item.name}: {_scalar_text(item.value)}", item.comment)
            for item in document.parameters
        ),
    }
    bodies |= {section: "\n".join(lines) for section, lines in listed.items()}
    blocks = (f"## {section}\n{bodies[section]}".rstrip("\n") for section in SECTIONS)
    return "\n\n".join(blocks) + "\n"


# --- sections -----------------------------------------------------------------------------------


def _sections(text: str, name: str, findings: list[str]) -> dict[str, Lines]:
    """Return the lines of each known section that the text holds; say what is wrong with them."""
    sections: dict[str, Lines] = {}
    first_places: dict[str, Place] = {}
    current: Lines | None = None
    for number, line in enumerate(_without_docstring(text, name).split("\n"), start=1):
        place = Place(name, number)
        header = HEADER.fullmatch(line.rstrip())
        if header is None and current is not None:
            current.append((place, line.rstrip()))
        elif header is None and line.strip() and not line.startswith("#"):
            findings.append(f"{place}: expected a section such as ## GNNSection; got {line!r}.")
            current = []
        elif header is not None:
            title, current = header[1], []
            if title not in SECTIONS:
                known = ", ".join(SECTIONS)
                findings.append(f"{place}: {title} is no section; the sections are {known}.")
            elif title in sections:
                first = first_places[title].line
                findings.append(f"{place}: section {title} stands twice (first on line {first}).")
            else:
                later = [t for t in sections if SECTIONS.index(t) > SECTIONS.index(title)]
                if later:
                    findings.append(f"{place}: section {title} belongs before {later[0]}.")
                sections[title], first_places[title] = current, place
    last = Place(name, text.count("\n") + 1)
    findings += [f"{last}: E001: section {t} is missing." for t in REQUIRED if t not in sections]
    return sections


def _without_docstring(text: str, name: str) -> str:
    """Return the text with empty lines for a docstring before it."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    start = text.find('"""')
    if start < 0 or text[:start].strip():
        return text
    end = text.find('"""', start + 3)
    if end < 0:
        raise UserError(f'{Place(name, 1)}: the docstring is not closed; end it with """.')
    return "\n" * text.count("\n", 0, end) + text[end + 3 :]


def _text(lines: Lines) -> str:
    return "\n".join(line for _, line in lines).strip("\n")


def _text_findings(document: Document, sections: dict[str, Lines]) -> Iterator[str]:
    """Yield what is wrong with the sections of text that have a form."""
    for section, form, example in (
        ("GNNSection", IDENTIFIER, "an identifier such as RGMBase"),
        ("GNNVersionAndFlags", VERSION, "GNN v1, GNN v1.0 or GNN v1.1, then flags"),
    ):
        text = getattr(document, TEXT_SECTIONS[section])
        if section in sections and not form.fullmatch(text):
            place = sections[section][0][0] if sections[section] else Place(document.file, 1)
            yield f"{place}: {section}: expected {example}; got {text!r}."
    for place, line in sections.get("Time", []):
        if line and not line.startswith("#") and not TIME.fullmatch(line):
            yield (
                f"{place}: Time: expected Static, Dynamic, Continuous, DiscreteTime=<variable> or "
                f"ModelTimeHorizon=<whole number or Unbounded>; got {line!r}."
            )


# --- lines --------------------------------------------------------------------------------------


def _read_each(
    lines: Lines, read: Callable[[str, Place], Item], findings: list[str]
) -> Iterator[Item]:
    """Yield the item of each line; a line that cannot be read becomes a finding."""
    for place, line in lines:
        try:
            yield read(line, place)
        except _BadLine as finding:
            findings.append(f"{place}: {finding}")


def _twice(items: Sequence[Any], sentence: str) -> Iterator[str]:
    first: dict[str, Place] = {}
    for item in items:
        if item.name in first:
            what = sentence.format(item.name)
            yield f"{item.place}: {what} (first on line {first[item.name].line})."
        first.setdefault(item.name, item.place)


def _matched(form: re.Pattern[str], text: str, expected: str) -> re.Match[str]:
    match = form.fullmatch(text)
    if match is None:
        raise _BadLine(f"expected {expected}; got {text!r}.")
    return match


def _variable(line: str, place: Place) -> Variable:
    declaration, _, comment = line.partition("#")
    example = "a declaration such as A[n_state,n_input,type=float,default=zeros]"
    name, inside = _matched(DECLARATION, declaration.strip(), example).groups()
    sizes: list[int | str] = []
    options: dict[str, str] = {}
    for part in (part.strip() for part in inside.split(",")):
        key, is_option, value = (text.strip() for text in part.partition("="))
        if is_option and key in ("type", "default") and key not in options:
            options[key] = value
        elif not is_option and not options and DIMENSION.fullmatch(part):
            sizes.append(int(part))
        elif not is_option and not options and re.fullmatch(NAME, part):
            sizes.append(part)
        else:
            raise _BadLine(
                f"{name}: expected dimensions (whole numbers above 0, or names of parameters), "
                f"then type and default at most once; got {part!r}."
            )
    if not sizes:
        raise _BadLine(f"{name} has no dimension; a number is declared as {name}[1].")
    for key, known in (("type", TYPES), ("default", DEFAULTS)):
        if key in options and options[key] not in known:
            raise _BadLine(
                f"{name}: expected a {key} among {', '.join(known)}; got {options[key]!r}."
            )
    return Variable(
        name,
        tuple(sizes),
        options.get("type", "float"),
        options.get("default"),
        comment.strip(),
        place,
    )


def _variable_text(variable: Variable) -> str:
    sizes = [str(size) for size in variable.dimensions]
    default = [] if variable.default is None else [f"default={variable.default}"]
    inside = ",".join([*sizes, f"type={variable.type}", *default])
    return _commented(f"{variable.name}[{inside}]", variable.comment)


def _commented(text: str, comment: str) -> str:
    return f"{text}  # {comment}" if comment else text


def _connection(line: str, place: Place) -> Connection:
    expected = "E005: an edge such as A>B, A-B or A>B:label, without blanks or a comment"
    match = EDGE.fullmatch(line)
    if match is None:
        raise _BadLine(f"{expected} was expected; got {line!r}.")
    source, sign, target, label = match.groups()
    return Connection(source, target, sign == ">", label, place)


def _annotation(line: str, place: Place) -> Annotation:
    text = line.partition("#")[0].strip()
    name, term = _matched(TERM, text, "a term such as s=HiddenState").groups()
    return Annotation(name, term, place)


# --- values -------------------------------------------------------------------------------------


def _whole_assignments(lines: Lines, findings: list[str]) -> Iterator[tuple[Place, str]]:
    """Yield assignments without comments, joined from their first line to the closing brace."""
    start, parts, n_open = Place("", 0), list[str](), {"{}": 0, "()": 0}
    for place, line in lines:
        start = place if not parts else start
        text = line.partition("#")[0].strip()
        parts.append(text + "\n")
        for pair in n_open:
            n_open[pair] += text.count(pair[0]) - text.count(pair[1])
        if not any(n_open.values()):
            yield start, "".join(parts)
            parts = []
    if parts:
        findings.append(f"{start}: a brace or parenthesis is opened and not closed.")


def _initial_value(text: str, place: Place) -> InitialValue:
    example = "values such as D={(1.0,0.0),(0.0,1.0)}"
    name, values = _matched(ASSIGNMENT, text.strip(), example).groups()
    if NESTED_NUMBERS.fullmatch(values):
        try:
            nested = json.loads(values.translate(str.maketrans("{}()", "[][]")))
            return InitialValue(name, _as_tuples(nested), place)
        except (ValueError, RecursionError):
            pass
    raise _BadLine(f"{name}: expected finite numbers in braces and parentheses; got {values!r}.")


def _as_tuples(nested: Any) -> Any:
    if isinstance(nested, list):
        if not nested:
            raise ValueError("no number")
        return tuple(_as_tuples(entry) for entry in nested)
    if not math.isfinite(nested):
        raise ValueError("an infinite number")
    return nested


def _values_text(values: Any, *, outermost: bool) -> str:
    if not isinstance(values, tuple):
        return repr(values)
    inside = ",".join(_values_text(entry, outermost=False) for entry in values)
    return f"{{{inside}}}" if outermost else f"({inside})"


def _parameter(line: str, place: Place) -> Parameter:
    text, _, comment = line.partition("#")
    name, value = _matched(PARAMETER, text.strip(), "a parameter such as n_state0: 256").groups()
    return Parameter(name, _scalar(value), comment.strip(), place)


def _scalar(text: str) -> int | float | bool | str:
    if WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text == "true" if text in ("true", "false") else text


def _scalar_text(value: int | float | bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
