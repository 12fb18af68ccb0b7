"""The import law, what may be imported where, and the size and wording of modules."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import strata

SOURCE = Path(strata.__file__).parents[1]
PACKAGE = SOURCE / "strata"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
RULES = Path(__file__).parents[1] / "workflow" / "rules"
FAMILIES = sorted(path.parent.name for path in PACKAGE.glob("*/config.py"))
SAYS_NOTHING = {"utils", "util", "common", "helpers", "core", "misc", "base", "tools", "shared"}
READS_FILES_ONLY = {"analyze", "solve", "verdicts", "summaries", "history", "artifacts"}
DRAWS = ("plot", "animation")  # how the names of such modules begin
MAX_LINES = 400


def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports_of(module: str) -> Iterator[str]:
    """Yield the name of all that a module imports, wherever the statement stands."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from (f"{source}.{alias.name}" for alias in node.names)


def family_of(name: str) -> str | None:
    """Return the family that a module (or what is imported from it) belongs to, if any."""
    package, *rest = name.split(".")
    return rest[0] if package == "strata" and rest and rest[0] in FAMILIES else None


def test_there_is_something_to_test() -> None:
    assert "neural_rg" in FAMILIES
    assert "strata.neural_rg.config.RunSettings" in imports_of("strata.neural_rg.train")
    assert family_of("strata.neural_rg.config.RunSettings") == "neural_rg"
    assert family_of("strata.config.Settings") is None


@pytest.mark.parametrize("module", FILES)
def test_imports_obey_the_law(module: str) -> None:
    """A family imports itself and the root; the root imports no family."""
    names = list(imports_of(module))
    assert not {family_of(name) for name in names} - {None, family_of(module)}
    assert not [name for name in names if name.startswith(".")], "write names in full"


def modules_found_after_importing(modules: list[str], unwanted: list[str]) -> str:
    """Import the modules one after the other in a new process; return where one is found."""
    program = f"""
import importlib, sys
for module in {modules}:
    importlib.import_module(module)
    found = sorted(set({unwanted}) & set(sys.modules))
    if found:
        print(module, "imports", *found)
        break
"""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def promising(words: str) -> set[str]:
    """Return the modules whose docstring says so."""
    docstrings = {module: ast.get_docstring(tree_of(module)) or "" for module in FILES}
    return {module for module, text in docstrings.items() if words in " ".join(text.split())}


def test_settings_import_neither_torch_nor_numpy() -> None:
    modules = {"strata.config", *(f"strata.{family}.config" for family in FAMILIES)}
    modules |= promising("mports neither torch nor numpy")
    assert not modules_found_after_importing(sorted(modules), ["torch", "numpy", "pandas"])


def test_what_reads_files_only_imports_no_torch() -> None:
    names = {module: module.rpartition(".")[2] for module in FILES}
    modules = {m for m, name in names.items() if name in READS_FILES_ONLY or name.startswith(DRAWS)}
    modules |= promising("mports no torch") | promising("othing here imports torch")
    assert {"strata.verdicts", "strata.plotting", "strata.neural_rg.plot_snapshots"} <= modules
    assert not modules_found_after_importing(sorted(modules), ["torch"])


def modules_behind(module: str) -> set[str]:
    """Return a module of strata and all others that it imports, in turn."""
    found, waiting = set(), {module}
    while waiting:
        found.add(next_one := waiting.pop())
        names = {part for name in imports_of(next_one) for part in (name, name.rpartition(".")[0])}
        waiting |= names & set(FILES) - found
    return found


def rules_that_name_modules() -> dict[str, tuple[str, set[str]]]:
    """Return the rules that run again when a module changes: rule -> its stage, those modules."""
    rules = {}
    for file in sorted(RULES.glob("*.smk")):
        for rule in re.split(r"^(?=rule )", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            named = re.search(r" modules\(([^)]*)\)", rule)
            stage = re.search(r"python -m ([\w.]+)", rule)
            if named and stage:
                name = rule.removeprefix("rule ").partition(":")[0]
                modules = {f"strata.{module}" for module in re.findall(r'"([\w.]+)"', named[1])}
                rules[name] = (stage[1], modules)
    return rules


@pytest.mark.parametrize("rule", rules_that_name_modules())
def test_a_figure_is_drawn_again_when_a_module_that_draws_it_changes(rule: str) -> None:
    stage, named = rules_that_name_modules()[rule]
    behind = modules_behind(stage)
    libraries = {
        module: {name.partition(".")[0] for name in imports_of(module)} for module in FILES
    }
    drawing = {module for module in behind if libraries[module] & {"matplotlib", "PIL"}}
    assert {stage} | drawing <= named
    assert named <= behind, "a rule need not run again for what its stage does not import"


@pytest.mark.parametrize("module", FILES)
def test_modules_are_chapters_named_after_what_they_hold(module: str) -> None:
    assert not SAYS_NOTHING & set(module.split("."))
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", FILES)
def test_modules_functions_and_classes_say_what_they_are(module: str) -> None:
    tree = tree_of(module)
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert ast.get_docstring(tree), f"{module} has no docstring"
    missing = [node.name for node in public if not ast.get_docstring(node)]
    assert not missing, f"in {module}: {missing} have no docstring"
