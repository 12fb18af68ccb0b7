"""Checks against expected numbers, their file, and the table of many runs."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.artifacts import read_json, write_json
from strata.config import parse, sha256
from strata.errors import UserError
from strata.experiments import family_settings
from strata.verdicts import COLUMNS, Check, main, markdown_table, verdict_rows, write_verdict

finite = st.floats(-1e6, 1e6)


def check(
    measured: float, relation: Any, expected: float, tolerance: float = 0.0, unit: str = "nats"
) -> Check:
    return Check("free energy", measured, relation, expected, tolerance, unit, "Onsager 1944")


@pytest.mark.parametrize(("measured", "relation", "expected", "tolerance", "passed"), [
    (1.0, "equals", 1.0, 0.0, True),
    (1.5, "equals", 1.0, 0.5, True),
    (0.5, "equals", 1.0, 0.5, True),
    (1.6, "equals", 1.0, 0.5, False),
    (0.4, "equals", 1.0, 0.5, False),
    (1.0, "at most", 1.0, 0.0, True),
    (1.5, "at most", 1.0, 0.5, True),
    (1.6, "at most", 1.0, 0.5, False),
    (-9.0, "at most", 1.0, 0.0, True),
    (1.0, "at least", 1.0, 0.0, True),
    (0.5, "at least", 1.0, 0.5, True),
    (0.4, "at least", 1.0, 0.5, False),
    (9.0, "at least", 1.0, 0.0, True),
])  # fmt: skip
def test_relations(
    measured: float, relation: str, expected: float, tolerance: float, passed: bool
) -> None:
    assert check(measured, relation, expected, tolerance).passed is passed


@pytest.mark.parametrize("relation", ["equals", "at most", "at least"])
@pytest.mark.parametrize("place", range(3))
def test_what_is_not_a_number_never_passes(relation: str, place: int) -> None:
    numbers = [1.0, 1.0, 1.0]
    numbers[place] = math.nan
    measured, expected, tolerance = numbers
    assert not check(measured, relation, expected, tolerance).passed


@given(measured=finite, expected=finite, tolerance=st.floats(0, 1e6))
def test_equal_is_both_at_most_and_at_least(
    measured: float, expected: float, tolerance: float
) -> None:
    equals, at_most, at_least = (
        check(measured, relation, expected, tolerance).passed
        for relation in ("equals", "at most", "at least")
    )
    assert equals == (at_most and at_least)
    assert at_most or at_least


# --- the file of a run --------------------------------------------------------------------------


def test_verdict_file_lists_every_check(tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    write_verdict(path, [check(1.0, "at most", 2.0), check(3.0, "at most", 2.0, 0.5)])
    content = read_json(path)
    assert content["passed"] is False
    assert [entry["passed"] for entry in content["checks"]] == [True, False]
    assert content["checks"][1] == {
        "name": "free energy", "measured": 3.0, "relation": "at most", "expected": 2.0,
        "tolerance": 0.5, "unit": "nats", "source": "Onsager 1944", "passed": False,
    }  # fmt: skip


@pytest.mark.parametrize("checks", [[], [check(1.0, "at most", 2.0)]])
def test_a_run_passes_if_every_check_does(tmp_path: Path, checks: list[Check]) -> None:
    write_verdict(tmp_path / "verdict.json", checks)
    assert read_json(tmp_path / "verdict.json")["passed"] is True


@pytest.mark.parametrize("place", ["measured", "expected", "tolerance"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_a_result(tmp_path: Path, place: str, number: float) -> None:
    numbers = {"measured": 1.0, "expected": 0.0, "tolerance": 0.5, place: number}
    path = tmp_path / "verdict.json"
    write_verdict(path, [check(relation="at most", **numbers)])
    assert read_json(path)["checks"][0][place] is None
    table = markdown_table(verdict_rows("study", path), [])
    assert "not finite" in table


# --- the table of all runs ----------------------------------------------------------------------


def cells_of(tmp_path: Path, found: Check) -> list[str]:
    """Return the cells of the table's only row."""
    write_verdict(tmp_path / "verdict.json", [found])
    table = markdown_table(verdict_rows("study", tmp_path / "verdict.json"), [])
    return [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]


@pytest.mark.parametrize(("tolerance", "measured", "expected"), [
    (0.0, "1.235", "1.234"),
    (0.5, "1.235", "1.234 ± 0.500"),
    (0.012, "1.235", "1.234 ± 0.012"),
    (0.00034, "1.23457", "1.23400 ± 0.00034"),
])  # fmt: skip
def test_numbers_show_two_digits_of_their_tolerance(
    tmp_path: Path, tolerance: float, measured: str, expected: str
) -> None:
    cells = cells_of(tmp_path, check(1.234567, "at least", 1.234, tolerance))
    assert cells[2:5] == [measured, ">=", expected]


def test_a_failed_check_does_not_look_as_if_it_had_passed(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, check(0.35004, "at most", 0.35))
    assert cells[-1] == "FAILED"
    assert float(cells[2]) > float(cells[4])


@pytest.mark.parametrize(("unit", "shown"), [("1", ""), ("nats", "nats")])
def test_a_number_without_dimension_has_no_unit(tmp_path: Path, unit: str, shown: str) -> None:
    assert cells_of(tmp_path, check(1.0, "equals", 1.0, unit=unit))[5:] == [shown, "passed"]


MOG2 = {"target": {"name": "mog2"}, "flow": {"name": "realnvp"}}
NOW = sha256(parse(family_settings("neural_rg"), MOG2, "here").verdict_json())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    origin = {"settings_sha256": NOW}
    write_verdict(tmp_path / "one" / "verdict.json", [check(1.0, "equals", 1.0)], origin)
    write_verdict(
        tmp_path / "two" / "seed~0" / "verdict.json",
        [check(2.0, "at most", 1.0, 0.25), check(math.nan, "at least", 1.0)],
        origin,
    )
    return tmp_path


def gathered(results: Path, **experiments: object) -> tuple[str, list[dict[str, str]]]:
    """Return the tables that the command writes, of a workflow with these experiments."""
    markdown, table, file = (results / f"verdicts.{kind}" for kind in ("md", "csv", "yaml"))
    file.write_text(json.dumps(experiments))
    families = json.dumps({"neural_rg": str(file)})
    outputs = ["--markdown", str(markdown), "--csv", str(table)]
    main(["--families", families, "--results", str(results), *outputs])
    with table.open(encoding="utf-8", newline="") as rows:
        return markdown.read_text(encoding="utf-8"), list(csv.DictReader(rows))


def test_table_of_several_runs(results: Path) -> None:
    sweep = {**MOG2, "sweep": {"seed": [0]}}
    markdown, rows = gathered(results, one=MOG2, two=sweep, three=MOG2)
    lines = markdown.splitlines()
    assert len({len(line) for line in lines[:5]}) == 1, "the columns are aligned"
    assert set(lines[1]) == {"|", "-"}
    assert [("passed" in line, "FAILED" in line) for line in lines[2:5]] == [
        (True, False), (False, True), (False, True),
    ]  # fmt: skip
    assert "1 of 3 checks passed." in lines
    assert "Made before" not in markdown
    assert lines[-1] == "Not run yet: three."
    assert tuple(rows[0]) == COLUMNS
    assert [row["run"] for row in rows] == ["one", "two/seed~0", "two/seed~0"]
    assert [row["measured"] for row in rows] == ["1.0", "2.0", ""]
    assert [row["passed"] for row in rows] == ["True", "False", "False"]
    assert rows[1]["tolerance"] == "0.25"


def test_table_before_any_run(results: Path) -> None:
    markdown, rows = gathered(results, first=MOG2, second=MOG2)
    assert "0 of 0 checks passed." in markdown
    assert "Not run yet: first, second." in markdown
    assert rows == []


def test_results_of_other_settings_are_named(results: Path) -> None:
    markdown, _ = gathered(results, one={**MOG2, "training": {"lr": 0.5}})
    assert "Made before the settings last changed: one." in markdown


def test_a_file_that_is_no_verdict_is_named(results: Path) -> None:
    write_json(results / "one" / "verdict.json", {"checked": []})
    with pytest.raises(UserError, match=r"verdict\.json holds no checks"):
        gathered(results, one=MOG2)


def test_families_that_are_no_json_are_refused(results: Path) -> None:
    outputs = ["--markdown", str(results / "a"), "--csv", str(results / "b")]
    with pytest.raises(UserError, match="--families: expected JSON"):
        main(["--families", "neural_rg", "--results", str(results), *outputs])
