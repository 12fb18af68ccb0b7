"""What a model specification holds: variables, edges, values, parameters, and where each stands.

Conventions: items and documents are equal whatever the file and the lines they stand on. Lines are
counted from 1. A finding is a sentence that opens with file and line.

Source: Smekal and Friedman, "Generalized Notation Notation for Active Inference models" (2023),
https://doi.org/10.5281/zenodo.7803328; its file format in version 1.1.

Imports neither torch nor numpy.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strata.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where an item stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


NOWHERE = Place("", 0)
MOST_FINDINGS, LONGEST_FINDING = 100, 1000  # that are shown; letters of one
NAME_OF_A_LEVEL = re.compile(r"(.+)_level([0-9]+)")

Edge = tuple[str, str, bool, str | None]  # source, target, whether directed, label


@dataclass(frozen=True)
class Variable:
    """A declared variable; a dimension is a number or the name of a model parameter."""

    name: str
    dimensions: tuple[int | str, ...]
    type: str = "float"
    default: str | None = None
    comment: str = ""
    place: Place = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}[{','.join(str(size) for size in self.dimensions)}]"


@dataclass(frozen=True)
class Connection:
    """An edge from source to target, or between them if it is not directed."""

    source: str
    target: str
    directed: bool = True
    label: str | None = None
    place: Place = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        label = "" if self.label is None else f":{self.label}"
        return f"{self.source}{'>' if self.directed else '-'}{self.target}{label}"


@dataclass(frozen=True)
class InitialValue:
    """The initial value of a variable: a number, or nested tuples of numbers."""

    name: str
    values: int | float | tuple[Any, ...]
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Annotation:
    """A variable's term in the ontology of Active Inference."""

    name: str
    term: str
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model."""

    name: str
    value: int | float | bool | str
    comment: str = ""
    place: Place = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Document:
    """The content of one file. Documents are equal whatever the file and the lines."""

    section: str
    version: str
    title: str
    annotation: str = ""
    variables: tuple[Variable, ...] = ()
    connections: tuple[Connection, ...] = ()
    initial: tuple[InitialValue, ...] = ()
    equations: str = ""
    time: str = ""
    ontology: tuple[Annotation, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    footer: str = ""
    signature: str = ""
    file: str = field(default="", compare=False)


def refuse(findings: Sequence[str]) -> None:
    """Raise a `UserError` with one finding a line, if there are any.

    Of very many the first are shown, and of a very long one its beginning.
    """
    lines = [
        finding if len(finding) <= LONGEST_FINDING else f"{finding[:LONGEST_FINDING]} ..."
        for finding in findings[:MOST_FINDINGS]
    ]
    if len(findings) > MOST_FINDINGS:
        lines.append(f"{len(findings) - MOST_FINDINGS} findings more.")
    if lines:
        raise UserError("\n".join(lines))


def notation_warnings(document: Document) -> list[str]:
    """Return the format's warnings, one sentence each, opened by file and line."""
    declared = {variable.name for variable in document.variables}
    edges = [
        f"{edge.place}: W002: the edge {edge} names {end}, which is not declared."
        for edge in document.connections
        for end in dict.fromkeys((edge.source, edge.target))
        if end not in declared
    ]
    values = [
        f"{item.place}: W003: {item.name} has an initial value but is not declared."
        for item in document.initial
        if item.name not in declared
    ]
    return edges + values


def shape_findings(document: Document) -> list[str]:
    """Return E002 for each initial value that does not fit its variable's dimensions.

    A row or a column may stand for a vector, and the third axis of three may stand first. Variables
    with symbolic dimensions are not compared.
    """
    variables = {variable.name: variable for variable in document.variables}
    findings = []
    for item in document.initial:
        shape, variable = _shape(item.values), variables.get(item.name)
        if shape is None:
            findings.append(f"{item.place}: E002: the rows of {item.name} differ in length.")
        elif variable is not None and not _fits(shape, variable.dimensions):
            came = "x".join(str(size) for size in shape) or "a single number"
            findings.append(
                f"{item.place}: E002: the values of {item.name} are {came}, but it is declared as "
                f"{variable} ({variable.place})."
            )
    return findings


def _shape(values: Any) -> tuple[int, ...] | None:
    """Return the sizes of nested tuples along their axes, or None if they are ragged."""
    if not isinstance(values, tuple):
        return ()
    inner = {_shape(entry) for entry in values}
    only = inner.pop() if len(inner) == 1 else None
    return None if only is None else (len(values), *only)


def _fits(shape: tuple[int, ...], dimensions: tuple[int | str, ...]) -> bool:
    if any(isinstance(size, str) for size in dimensions) or shape == dimensions:
        return True
    if len(shape) == len(dimensions) == 3:
        return shape == (dimensions[2], *dimensions[:2])
    is_vector = len(shape) < 2 or len(dimensions) < 2
    return is_vector and [n for n in shape if n != 1] == [n for n in dimensions if n != 1]


def variable_findings(
    document: Document, wanted: Mapping[str, tuple[Variable, str]], n_levels: Parameter
) -> Iterator[str]:
    """Yield which variables of a model are missing, of other dimensions or type, or of no level.

    Args:
        document: the specification, its dimensions in place.
        wanted: name -> variable that the model has, and why it has those dimensions.
        n_levels: the parameter that says how many levels there are.
    """
    declared = {variable.name: variable for variable in document.variables}
    for name, (variable, reason) in wanted.items():
        found = declared.get(name)
        if found is None:
            yield (
                f"{n_levels.place}: num_levels is {n_levels.value}, but {variable} is declared in "
                f"none of {document.file}."
            )
        elif found.dimensions != variable.dimensions:
            yield f"{found.place}: {found} must be {variable}: {reason}."
        elif found.type != variable.type:
            yield (
                f"{found.place}: {found} is of type {found.type}; only {variable.type} can be "
                "built."
            )
    letters = {match[1] for name in wanted if (match := NAME_OF_A_LEVEL.fullmatch(name))}
    for name, variable in declared.items():
        match = NAME_OF_A_LEVEL.fullmatch(name)
        if match and match[1] in letters and int(match[2]) >= int(n_levels.value):
            yield (
                f"{variable.place}: {variable} belongs to no level; num_levels is "
                f"{n_levels.value} ({n_levels.place})."
            )


def edge_findings(document: Document, wanted: Sequence[Edge]) -> Iterator[str]:
    """Yield which edges a model has and the document lacks, and the other way round."""
    places = {variable.name: str(variable.place) for variable in document.variables}
    stated = {_ends(c.source, c.target, c.directed, c.label): c for c in document.connections}
    for source, target, directed, label in wanted:
        if _ends(source, target, directed, label) not in stated:
            edge = Connection(source, target, directed, label)
            yield f"{places.get(target, document.file)}: the edge {edge} is missing."
    known = {_ends(*edge) for edge in wanted}
    for ends, connection in stated.items():
        if connection.label is not None and ends not in known:
            yield (
                f"{connection.place}: the edge {connection} is none that the network can have; an "
                "edge without a label is a remark."
            )


def _ends(source: str, target: str, directed: bool, label: str | None) -> Edge:
    """Return an edge such that those without direction are equal whichever end comes first."""
    if directed:
        return source, target, directed, label
    first, second = sorted((source, target))
    return first, second, directed, label
