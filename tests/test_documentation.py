"""The page of settings: it is up to date, describes every key, and says what the models do.

What the page says of defaults and bounds is held against the models, which know nothing of it.
"""

import html
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from strata.config import Settings, block_name, blocks_of, setting
from strata.documentation import settings_document
from strata.experiments import family_settings, known_families
from strata.workflow_settings import WorkflowSettings

REPOSITORY = Path(__file__).parents[1]
HEADER = "| key | type | default | unit | meaning |"


def test_settings_page_matches_the_models(tmp_path: Path) -> None:
    """`make docs` writes config/README.md anew."""
    written = tmp_path / "README.md"
    command = ["-m", "strata.documentation", "--config", "config/config.yaml"]
    subprocess.run([sys.executable, *command, "--readme", str(written)], cwd=REPOSITORY, check=True)
    assert written.read_text() == (REPOSITORY / "config" / "README.md").read_text()


# --- what stands where --------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    key: str
    kind: str
    default: str
    unit: str
    meaning: str


def tables_of(page: str) -> dict[tuple[str, ...], list[Row]]:
    """Return the tables by the headings that they stand below, the file's name first."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    headings: tuple[str, ...] = ()
    for line in page.splitlines():
        if heading := re.fullmatch("(##+) (.*)", line):
            headings = (*headings[: len(heading[1]) - 2], heading[2])
        elif line == HEADER:
            tables[headings] = []
        elif line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|", maxsplit=4)]
            tables[headings].append(Row(cells[0].strip("`"), *map(html.unescape, cells[1:])))
    return tables


PAGE = settings_document(known_families())
TABLES = tables_of(PAGE)


def described_blocks() -> Iterator[tuple[tuple[str, ...], str, type[BaseModel]]]:
    """Yield where each block of settings is described, its key and its model."""
    models = {f"{family}.yaml": family_settings(family) for family in known_families()}
    for file, model in {"config.yaml": WorkflowSettings, **models}.items():
        yield from blocks_within((file,), "", model)


def blocks_within(
    headings: tuple[str, ...], prefix: str, model: type[BaseModel]
) -> Iterator[tuple[tuple[str, ...], str, type[BaseModel]]]:
    yield headings, prefix, model
    for key, field in model.model_fields.items():
        blocks, place = blocks_of(field.annotation), f"{prefix}{key}"
        for block in blocks:
            variant = () if len(blocks) == 1 else (f"{place}.name: {block_name(block)}",)
            yield from blocks_within((*headings, place, *variant), f"{place}.", block)


BLOCKS = list(described_blocks())
parametrize_blocks = pytest.mark.parametrize(
    ("headings", "prefix", "model"), BLOCKS, ids=[" ".join(headings) for headings, _, _ in BLOCKS]
)


def test_every_block_has_its_table_and_there_is_no_other() -> None:
    assert list(TABLES) == [headings for headings, _, _ in BLOCKS]
    tables = {("neural_rg.yaml", "flow", f"flow.name: {n}") for n in ("mera", "tebd", "realnvp")}
    assert tables <= set(TABLES)


def test_no_cell_holds_what_markdown_takes_for_its_own() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| "):
            assert line.count("|") == 6
            assert "<" not in line


@parametrize_blocks
def test_every_key_has_its_line(
    headings: tuple[str, ...], prefix: str, model: type[BaseModel]
) -> None:
    rows = TABLES[headings]
    assert sorted(row.key for row in rows) == sorted(f"{prefix}{key}" for key in model.model_fields)
    for row in rows:
        field = model.model_fields[row.key.removeprefix(prefix)]
        assert row.meaning == field.description
        blocks = blocks_of(field.annotation)
        assert (row.kind in ("block", "block or null")) == bool(blocks)
        assert (row.kind == "block or null") == (bool(blocks) and field.default is None)
    if "name" in model.model_fields:
        assert rows[0].key == f"{prefix}name"


def test_the_block_without_a_name_is_said() -> None:
    for family in known_families():
        for key, field in family_settings(family).model_fields.items():
            if field.discriminator:
                introduction = (
                    rf"^### {key}\n\n{re.escape(field.description or '')}.*without `name`"
                )
                said = re.search(introduction + r", (\w+)", PAGE, re.MULTILINE)
                assert said is not None
                assert said[1] == field.default.name


def test_a_block_that_may_be_missing_says_so() -> None:
    rows = {row.key: row for row in TABLES["neural_rg.yaml",]}
    assert (rows["original"].kind, rows["training"].kind) == ("block or null", "block")
    originals = {row.key: row for row in TABLES["neural_rg.yaml", "original"]}
    assert originals["original.checkpoint"].default == "required"
    assert originals["original.parameters"].default == "`null`"


@parametrize_blocks
def test_a_block_is_introduced_by_its_sentence(
    headings: tuple[str, ...], prefix: str, model: type[BaseModel]
) -> None:
    if prefix:
        heading = re.escape(f"{'#' * (len(headings) + 1)} {headings[-1]}")
        sentence = re.escape((model.__doc__ or "").partition("\n")[0])
        assert re.search(f"^{heading}\n\n{sentence}\n\n{re.escape(HEADER)}$", PAGE, re.MULTILINE)


# --- what is said of values ---------------------------------------------------------------------


@parametrize_blocks
def test_defaults_read_as_yaml_are_the_defaults(
    headings: tuple[str, ...], prefix: str, model: type[BaseModel]
) -> None:
    required = {row.key: "some text" for row in TABLES[headings] if row.default == "required"}
    written = {row.key: row.default.strip("`") for row in TABLES[headings] if row.default}
    block = {
        key.removeprefix(prefix): yaml.safe_load(text) for key, text in (written | required).items()
    }
    assert model.model_validate(block) == model(
        **{key.removeprefix(prefix): text for key, text in required.items()}
    )


BOUND = re.compile("([≥>≤<]) ([0-9.]+)")
BEYOND = {"≥": lambda b: b - 1, ">": lambda b: b, "≤": lambda b: b + 1, "<": lambda b: b}


@parametrize_blocks
def test_bounds_are_enforced_as_written(
    headings: tuple[str, ...], prefix: str, model: type[BaseModel]
) -> None:
    for row in TABLES[headings]:
        key = row.key.removeprefix(prefix)
        for sign, number in BOUND.findall(row.kind):
            bound: Any = int(number) if "integer" in row.kind else float(number)
            with pytest.raises(ValidationError) as refusal:
                model.model_validate({key: BEYOND[sign](bound)})
            kinds = {error["type"] for error in refusal.value.errors() if key in error["loc"]}
            assert len(kinds) == 1
            assert kinds < {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}


def test_a_page_can_be_made_of_any_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shade(Settings):
        """A shade."""

        size: tuple[float, int] = setting((1e-5, 3), "Its width and number of folds.")

    class Lamp(Settings):
        """A lamp."""

        power: float | None = setting(None, "Its power; null is off.", unit="W", ge=0, lt=100)
        colours: bool = setting(True, "Shows colours.")
        shade: Shade = setting(Shade(), "What hangs around it.")

    class Room(Settings):
        """A room."""

        lamp: Lamp | None = setting(None, "What hangs there.")
        label: str = setting("", "What stands on the door.")
        keys: tuple[str, ...] = setting(("brass", ""), "What opens it.")
        size: tuple[int, int] | None = setting(None, "Length and width.", unit="m")

    monkeypatch.setattr("strata.documentation.family_settings", lambda _family: Room)
    tables = tables_of(settings_document(["house"]))
    assert tables["house.yaml",] == [
        Row("lamp", "block or null", "", "", "What hangs there."),
        Row("label", "text", '`""`', "", "What stands on the door."),
        Row("keys", "list of text", '`[brass, ""]`', "", "What opens it."),
        Row("size", "[integer, integer] or null", "`null`", "m", "Length and width."),
    ]
    assert tables["house.yaml", "lamp"] == [
        Row("lamp.power", "number or null, ≥ 0, < 100", "`null`", "W", "Its power; null is off."),
        Row("lamp.colours", "true or false", "`true`", "", "Shows colours."),
        Row("lamp.shade", "block", "", "", "What hangs around it."),
    ]
    assert tables["house.yaml", "lamp", "lamp.shade"] == [
        Row(
            "lamp.shade.size",
            "[number, integer]",
            "`[1.0e-05, 3]`",
            "",
            "Its width and number of folds.",
        )
    ]
