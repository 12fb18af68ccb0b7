"""Experiments: how runs are written down in YAML, and named.

Conventions: an experiment is a named block of `config/<family>.yaml`. Without `sweep` it is one run
whose folder carries the experiment's name; with it, one run per point of the grid, in
`<experiment>/<point>` (see `strata.sweeps`). The key `layers` of a file holds named blocks that are
no experiments; an experiment's `layers: [default, mnist]` starts from them, the later over the
earlier, its own keys over all, block by block.

Imports neither torch nor numpy.
"""

import importlib
import json
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from strata.config import RunSettings, parse, shown
from strata.errors import UserError
from strata.sweeps import merged, unfolded
from strata.workflow_settings import WorkflowSettings

EXPERIMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
LAYERS = "layers"
VERDICT = "verdict.json"
SWEEP_TABLES = ("summary.csv", "summary.md", "summary.html")
MOST_BYTES, MOST_VALUES = 1 << 20, 100_000  # of a YAML file; values with aliases written out
# What these names mean on Snakemake's command line, or below results/, is the workflow's own.
RESERVED_NAMES = frozenset(
    {"all", "demo", "verdicts", "settings", "stage_settings", "summary", "mnist", "fashion_mnist"}
    | {"summaries", "compare", "comparison", "crate", "data", "exact", "logs"}
)


@dataclass(frozen=True)
class Experiment:
    """A named experiment of one family and its runs (run name -> settings).

    Of a `large` sweep the runs end in their verdicts; their other files are made when asked for.
    """

    name: str
    family: str
    runs: Mapping[str, RunSettings]
    is_large: bool = False

    @property
    def is_sweep(self) -> bool:
        """Whether the runs live in folders below the experiment's."""
        return set(self.runs) != {self.name}

    def products_of(self, run: str) -> tuple[str, ...]:
        """Return the files that a run ends in, below its folder."""
        return (VERDICT,) if self.is_large else self.runs[run].products

    @property
    def sweep_files(self) -> list[str]:
        """The files that a sweep ends in beside those of its runs, below the results folder."""
        if not self.is_sweep:
            return []
        names = (*SWEEP_TABLES, *next(iter(self.runs.values())).sweep_products)
        return [f"{self.name}/{name}" for name in names]

    @property
    def is_demo(self) -> bool:
        """Whether `snakemake demo` builds it, rather than plain `snakemake`."""
        return self.name.startswith("demo_")


def family_settings(family: str) -> type[RunSettings]:
    """Return the settings model of a family, by name: `strata.<family>.config.RunSettings`.

    Raises:
        UserError: there is no such family.
    """
    try:
        module = importlib.import_module(f"strata.{family}.config")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith(f"strata.{family}"):
            raise
        raise UserError(
            f"families: {family} is no family; expected one of {', '.join(known_families())}."
        ) from error
    model: type[RunSettings] = module.RunSettings
    return model


def known_families() -> list[str]:
    """Return the names of the families that exist: the folders with a `config` module."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.py"))


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but keys are texts, none stands twice, and aliases are few."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the document before its values are made.

        Raises:
            yaml.constructor.ConstructorError: with its aliases written out it is too long.
        """
        node = super().get_single_node()
        if node is not None and _length(node, {}) > MOST_VALUES:
            problem = f"more than {MOST_VALUES} values, with every alias written out"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node


def _length(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Return how many values stand in a node, aliases written out; `known` are those counted."""
    if known.get(node) == 0:
        problem = "an alias stands inside what it stands for"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    if node not in known:
        known[node] = 0
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[node] = 1 + sum(_length(part, known) for part in parts)
    return known[node]


def _mapping_of_texts(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        problem = None
        if not isinstance(key, str):
            problem = f"the key {key!r} is no text; YAML 1.1 reads yes, no, on and off as such"
        elif key in seen:
            problem = f"the key {key!r} stands twice"
        if problem is not None:
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_of_texts)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: the file is missing, too long or not YAML, holds a key twice or one that is no
            text.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path}: expected a settings file of at most {MOST_BYTES} bytes; got "
                f"{path.stat().st_size}; name another file."
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a settings file ({error}).") from error
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: not valid YAML ({error.problem}).") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML (blocks in blocks, too deep).") from error
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({problem}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of names to settings; got {shown(content)}.")
    return content


def workflow_settings(config: Mapping[str, Any]) -> WorkflowSettings:
    """Return the content of `config/config.yaml`, checked.

    Raises:
        UserError: see `strata.config.parse`.
    """
    return parse(WorkflowSettings, config, "config/config.yaml")


def load_workflow(workflow: WorkflowSettings) -> dict[str, Experiment]:
    """Return the experiments of all families by name.

    Raises:
        UserError: see `load_experiments`; also for a name that stands in two families, or that
            means something else on Snakemake's command line.
    """
    taken = RESERVED_NAMES.union(*map(_rule_names, workflow.families))
    experiments: dict[str, Experiment] = {}
    for family, file in workflow.families.items():
        for name, experiment in load_experiments(family, Path(file)).items():
            if name in experiments:
                raise UserError(
                    f"{file}: {name}: the family {experiments[name].family} has an experiment of "
                    "this name; names are unique across families."
                )
            if name in taken:
                raise UserError(f"{file}: {name}: this name is taken by the workflow itself.")
            is_large = len(experiment.runs) > workflow.largest_full_sweep
            experiments[name] = replace(experiment, is_large=is_large)
    return experiments


def experiments_of(families: str) -> dict[str, Experiment]:
    """Return all experiments by name, of a JSON text: family -> file of its experiments.

    Raises:
        UserError: the text is something else, or a file is bad.
    """
    try:
        content = json.loads(families)
    except ValueError as error:
        raise UserError(f"--families: expected JSON; got {families!r} ({error}).") from error
    return load_workflow(workflow_settings({"families": content}))


def _rule_names(family: str) -> set[str]:
    """Return what Snakemake's rules of a family are called: <family>, <family>_<stage>."""
    model = family_settings(family)
    stages = (*model.stage_sections, *model.further_rules)
    return {family, *(f"{family}_{stage}" for stage in stages)}


def load_experiments(family: str, path: Path) -> dict[str, Experiment]:
    """Return the experiments of one family's file, sweeps expanded, every run validated.

    Raises:
        UserError: with the file, the experiment, the key, what was expected and what came.
    """
    model = family_settings(family)
    experiments = {}
    content = read_yaml(path)
    layers = _known_layers(content.pop(LAYERS, {}), path)
    for name, block in content.items():
        if not EXPERIMENT_NAME.fullmatch(name):
            raise UserError(
                f"{path}: {shown(name)} cannot name an experiment; use letters, digits and "
                "underscores, a letter first."
            )
        if block is not None and not isinstance(block, dict):
            raise UserError(f"{path}: {name}: expected a block of settings; got {shown(block)}.")
        block = _on_layers(dict(block or {}), layers, f"{path}: {name}")
        experiments[name] = _expand(name, family, model, block, path)
    return experiments


def _known_layers(layers: Any, path: Path) -> dict[str, dict[str, Any]]:
    if not isinstance(layers, dict) or not all(isinstance(b, dict) for b in layers.values()):
        raise UserError(
            f"{path}: {LAYERS}: expected named blocks of settings; got {shown(layers)}."
        )
    return layers


def _on_layers(
    block: dict[str, Any], layers: Mapping[str, dict[str, Any]], context: str
) -> dict[str, Any]:
    """Return an experiment's block on top of the layers that it names."""
    names = block.pop(LAYERS, [])
    if not isinstance(names, list):
        raise UserError(f"{context}: {LAYERS}: expected a list of names; got {shown(names)}.")
    result: dict[str, Any] = {}
    for name in names:
        if not isinstance(name, str) or name not in layers:
            known = ", ".join(layers) or "none"
            raise UserError(
                f"{context}: {LAYERS}: there is no layer {shown(name)}; known: {known}."
            )
        result = merged(result, layers[name])
    return merged(result, block)


def _expand(
    name: str, family: str, model: type[RunSettings], block: dict[str, Any], path: Path
) -> Experiment:
    context = f"{path}: {name}"
    if "sweep" not in block:
        return Experiment(name, family, {name: parse(model, block, context)})
    runs: dict[str, RunSettings] = {}
    called: dict[str, str] = {}
    for point, settings in unfolded(block.pop("sweep"), block, model, context).items():
        run = parse(model, settings, f"{context}: at {point}")
        other = called.setdefault(run.canonical_json(), point)
        if other != point:
            raise UserError(
                f"{context}: sweep: {other} and {point} have equal settings; leave one out."
            )
        runs[f"{name}/{point}"] = run
    return Experiment(name, family, runs)
