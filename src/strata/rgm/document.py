"""What a model specification holds: variables, edges, values, parameters, and where each stands.

Conventions: items and documents are equal whatever the file and the lines they stand on. Lines are
counted from 1. A finding is a sentence that opens with file and line.

Source: Smekal and Friedman, "Generalized Notation Notation for Active Inference models" (2023),
https://doi.org/10.5281/zenodo.7803328; its file format in version 1.1.

Imports neither torch nor numpy.
"""

from collections.abc import Sequence
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
    """Raise a `UserError` with one finding a line, if there are any."""
    if findings:
        raise UserError("\n".join(findings))


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
