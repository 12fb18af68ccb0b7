"""Several documents become one: levels are made from a template, names of dimensions get numbers.

Conventions: levels are numbered l = 0..num_levels-1 from the pixels up. Of what documents say
about the same item, the later one counts; dimensions and types must agree.

A document whose ModelParameters hold `template: level` describes one level. It stands for one copy
per level, in which

- `x` is what the level looks at: x itself at level 0, `s_level{l-1}` above it;
- a variable that a document other than a template declares under the same name (such as `F`) is
  common to all levels and keeps its name; any other gets the ending `_level{l}`;
- the dimensions `n_state` and `n_factor` get the ending `{l}`, and `n_input` becomes `n_state{l-1}`
  above level 0.

Imports neither torch nor numpy.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from strata.config import nearest_names
from strata.rgm.document import Document, Parameter, Variable, refuse, shape_findings
from strata.rgm.notation import TEXT_SECTIONS
from strata.rgm.parameters import COUNT

MARK = "template"  # the parameter that marks a template, and its one value
DESCRIBED = "level"
INPUT = "x"


def merged_parameters(documents: Sequence[Document]) -> dict[str, Parameter]:
    """Return key -> parameter; of several the last. The mark of a template is none of them.

    Raises:
        UserError: the mark of a template has another value than it may have.
    """
    everything = [parameter for document in documents for parameter in document.parameters]
    refuse(
        [
            f"{mark.place}: {MARK}: expected {DESCRIBED}; got {mark.value!r}."
            for mark in everything
            if mark.name == MARK and mark.value != DESCRIBED
        ]
    )
    return _last_of_each([parameter for parameter in everything if parameter.name != MARK])


def merged(
    documents: Sequence[Document],
    parameters: Mapping[str, Parameter],
    known: Collection[str],
    learned: Collection[str] = (),
) -> Document:
    """Return one document without templates; its file names all files.

    Dimensions become numbers, but for those that are learned.

    Args:
        documents: what to merge, the later over the earlier.
        parameters: the merged parameters, which dimensions are looked up in.
        known: names of the parameters that have a meaning; the document keeps only these.
        learned: names of dimensions that have no number before the model has seen images.

    Raises:
        UserError: a dimension has no number, declarations of a variable contradict each other, or
            initial values do not fit.
    """
    common = {v.name for d in documents if not _is_template(d) for v in d.variables}
    n_levels = int(parameters["num_levels"].value)
    copies: list[Document] = []
    for document in documents:
        levels = [_level_of(document, level, common) for level in range(n_levels)]
        copies += levels if _is_template(document) else [document]
    texts = {
        entry: next(filter(None, (getattr(document, entry) for document in documents[::-1])), "")
        for entry in TEXT_SECTIONS.values()
    }
    variables = [variable for copy in copies for variable in copy.variables]
    whole = Document(
        **texts,
        variables=_declared(variables, parameters, learned),
        connections=tuple(dict.fromkeys(edge for copy in copies for edge in copy.connections)),
        initial=tuple(_last_of_each(item for copy in copies for item in copy.initial).values()),
        ontology=tuple(_last_of_each(item for copy in copies for item in copy.ontology).values()),
        parameters=tuple(item for key, item in parameters.items() if key in known),
        file=" and ".join(document.file for document in documents),
    )
    refuse(shape_findings(whole))
    return whole


def _is_template(document: Document) -> bool:
    return any(parameter.name == MARK for parameter in document.parameters)


def _last_of_each(items: Iterable[Any]) -> dict[str, Any]:
    return {item.name: item for item in items}


def _level_of(template: Document, level: int, common: set[str]) -> Document:
    """Return the copy of a template for one level."""
    below = INPUT if level == 0 else f"s_level{level - 1}"
    sizes = {
        "n_input": "n_input" if level == 0 else f"n_state{level - 1}",
        "n_state": f"n_state{level}",
        "n_factor": f"n_factor{level}",
    }

    def named(name: str) -> str:
        if name == INPUT:
            return below
        return name if name in common else f"{name}_level{level}"

    def own(items: Sequence[Any]) -> Iterator[Any]:
        """Yield what is said of the level's own variables: the level below speaks for itself."""
        return (replace(i, name=named(i.name)) for i in items if i.name != INPUT or level == 0)

    return replace(
        template,
        variables=tuple(
            replace(
                variable,
                name=named(variable.name),
                dimensions=tuple(sizes.get(str(size), size) for size in variable.dimensions),
                comment="" if variable.name == INPUT and level > 0 else variable.comment,
            )
            for variable in template.variables
        ),
        connections=tuple(
            replace(edge, source=named(edge.source), target=named(edge.target))
            for edge in template.connections
        ),
        initial=tuple(own(template.initial)),
        ontology=tuple(own(template.ontology)),
    )


def _declared(
    variables: Iterable[Variable], parameters: Mapping[str, Parameter], learned: Collection[str]
) -> tuple[Variable, ...]:
    """Return each variable once, with numbers for dimensions; refuse contradictions."""
    findings: list[str] = []
    known: dict[str, Variable] = {}
    for declared in variables:
        sizes = tuple(
            _size(size, declared, parameters, learned, findings) for size in declared.dimensions
        )
        if any(isinstance(size, str) and size not in learned for size in sizes):
            continue
        variable = replace(declared, dimensions=sizes)
        first = known.setdefault(variable.name, variable)
        if (first.dimensions, first.type) != (variable.dimensions, variable.type):
            findings.append(
                f"{variable.place}: {variable} of type {variable.type} contradicts {first} of type "
                f"{first.type} ({first.place})."
            )
        known[variable.name] = replace(
            first,
            comment=variable.comment or first.comment,
            default=variable.default or first.default,
        )
    refuse(findings)
    return tuple(known.values())


def _size(
    size: int | str,
    variable: Variable,
    parameters: Mapping[str, Parameter],
    learned: Collection[str],
    findings: list[str],
) -> int | str:
    """Return the number that a dimension stands for.

    A dimension that is learned keeps its name; so does one without a number, which becomes a
    finding.
    """
    if isinstance(size, int) or size in learned:
        return size
    parameter = parameters.get(size)
    if parameter is None:
        near = " or ".join(nearest_names(size, [*parameters, *learned])[:1])
        findings.append(
            f"{variable.place}: {variable}: ModelParameters holds no {size}; did you mean {near}?"
        )
    elif not COUNT.allows(parameter.value):
        findings.append(
            f"{parameter.place}: {size} is {parameter.value!r}; as a dimension of {variable} "
            f"({variable.place}) expected {COUNT.expected}."
        )
    else:
        return int(parameter.value)
    return size
