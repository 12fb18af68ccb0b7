"""Seeds put together: means and their errors, against numpy and by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.run_states import RunState
from strata.seed_means import Estimate, Point, Table, point_table, points_of, quantity_names
from strata.summaries import RunRecord

FINISHED = RunState("finished")


def record(
    name: str, settings: dict[str, Any] | None = None, state: RunState = FINISHED, **values: Any
) -> RunRecord:
    """Return a run with quantities in nats, each given as value or as (value, error)."""
    pairs = {k: v if isinstance(v, tuple) else (v, None) for k, v in values.items()}
    quantities = {k: {"value": v, "error": e, "unit": "nats"} for k, (v, e) in pairs.items()}
    return RunRecord(name, settings or {"seed": 0, "L": 4}, state, quantities, [True, False])


def point(*runs: RunRecord) -> Point:
    return Point((), runs)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_seeds_give_their_mean_and_the_standard_error_of_it(values: list[float]) -> None:
    """Not the runs' own errors, which are of other randomness."""
    runs = [record(f"seed~{n}", gap=(value, 7.0)) for n, value in enumerate(values)]
    estimate = point(*runs).estimate("gap")
    assert estimate is not None
    assert estimate.n == len(values)
    assert estimate.value == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    expected = np.std(values, ddof=1) / np.sqrt(len(values))
    assert estimate.error == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_by_hand() -> None:
    """The gaps that the README names: mean 1.632, error 0.02."""
    values = (1.669, 1.626, 1.601)
    runs = [record(f"seed~{n}", gap=value) for n, value in enumerate(values)]
    estimate = point(*runs).estimate("gap")
    assert estimate is not None
    deviations = [value - 1.632 for value in values]
    error = math.sqrt(sum(d * d for d in deviations) / 2) / math.sqrt(3)
    assert (estimate.value, estimate.error) == pytest.approx((1.632, error))
    assert point(*runs).cell("gap") == "1.63(2)"


def test_one_seed_has_its_own_error() -> None:
    alone = point(record("seed~0", gap=(1.669, 0.0046)))
    assert alone.estimate("gap") == Estimate(1.669, 0.0046, 1)
    assert alone.cell("gap") == "1.669(5)"


def test_what_a_run_lacks_or_has_no_number_for_does_not_count_and_the_cell_says_so() -> None:
    runs = [record("seed~0", gap=1.0), record("seed~1", gap=3.0), record("seed~2", gap=None)]
    both = point(*runs, record("seed~3", other=0.5))
    assert both.estimate("gap") == Estimate(2.0, 1.0, 2)
    assert both.cell("gap") == "2.0(10) (n = 2)"
    assert both.estimate("unheard of") is None
    assert both.cell("unheard of") == ""


def test_a_run_without_results_does_not_count() -> None:
    failed = record("seed~1", state=RunState("failed", "train.log", "hot"))
    one = point(record("seed~0", gap=(1.0, 0.5)), failed)
    assert one.estimate("gap") == Estimate(1.0, 0.5, 1)
    assert (one.seeds, one.verdict) == ("1 of 2", "1 of 2")
    none = point(failed)
    assert (none.seeds, none.verdict, none.cell("gap")) == ("0 of 1", "", "")


def test_points_are_what_differs_beside_seeds() -> None:
    settings = {"seeds": {"init": 0, "n_init": 3}, "training": {"lr": 0.1}, "seed": 0}
    names = ["init~0_lr~0.1", "init~1_lr~0.1", "init~0_lr~0.2", "init~1_lr~0.2"]
    records = [record(name, settings) for name in names]
    points = points_of(records, ["seeds.init"])
    assert [p.settings for p in points] == [{"lr": "0.1"}, {"lr": "0.2"}]
    assert [[run.name for run in p.runs] for p in points] == [names[:2], names[2:]]
    networks = [record(f"n_init~{n}", settings) for n in (1, 2)]
    assert len(points_of(networks, ["seeds.init"])) == 2, "a number of seeds is no seed"


def test_the_table_has_a_row_per_point_and_units_in_its_header() -> None:
    settings = {"seed": 0, "L": 4}
    records = [
        record(f"L~{length}_seed~{seed}", settings, gap=length + seed, other=1.0)
        for length in (4, 8)
        for seed in (0, 1)
    ]
    table = point_table(points_of(records, ["seed"]), ["gap"])
    assert table.header == ["L", "seeds", "checks passed", "gap (nats)"]
    assert table.rows == [["4", "2", "2 of 4", "4.5(5)"], ["8", "2", "2 of 4", "8.5(5)"]]


def test_headlines_are_chosen_by_pattern_and_all_if_none_is_there() -> None:
    points = [point(record("seed~0", mse_level1=1.0, gap=2.0, mse_level0=3.0))]
    assert quantity_names(points, ["gap", "mse_level?"]) == ["gap", "mse_level1", "mse_level0"]
    assert quantity_names(points, ["absent"]) == ["mse_level1", "gap", "mse_level0"]


def test_markdown_is_aligned_and_no_cell_breaks_it() -> None:
    table = Table(["a|b", "c"], [["1\n2", "<script>"], ["", "long enough"]])
    lines = table.markdown().splitlines()
    assert lines == [
        "| a\\|b | c           |",
        "|------|-------------|",
        "| 1 2  | &lt;script> |",
        "|      | long enough |",
    ]


def test_a_transposed_table_has_a_row_per_column() -> None:
    table = Table(["", "x", "y"], [["a", "1", "2"], ["b", "3", "4"]]).transposed()
    assert (table.header, table.rows) == (["", "a", "b"], [["x", "1", "3"], ["y", "2", "4"]])
