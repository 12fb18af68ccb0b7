"""One row per run: what was varied, how far it came, then what was measured."""

from typing import Any

import pandas as pd

from strata.run_states import RunState
from strata.summaries import RunRecord, summary

Run = tuple[dict[str, Any], dict[str, Any]]
STATE = ["state", "checks_passed", "checks"]


def quantity(value: float, error: float | None) -> dict[str, Any]:
    return {"value": value, "error": error, "unit": "nats"}


RUNS: dict[str, Run] = {
    "seed~0_lr~0.1": (
        {"seed": 0, "training": {"lr": 0.1, "clip_norm": None}, "target": {"L": 4}},
        {"gap": quantity(0.5, 0.01), "exact": quantity(-7.0, None)},
    ),
    "seed~1_lr~0.2": (
        {"seed": 1, "training": {"lr": 0.2, "clip_norm": None}, "target": {"L": 4}},
        {"gap": quantity(0.25, 0.02), "exact": quantity(-7.0, None)},
    ),
}


def table_of(runs: dict[str, Run]) -> pd.DataFrame:
    """Return the summary of finished runs."""
    return summary(
        [
            RunRecord(name, settings, RunState("finished"), quantities, [True, False])
            for name, (settings, quantities) in runs.items()
        ]
    )


def test_what_varies_and_what_was_measured() -> None:
    table = table_of(RUNS)
    assert table.index.tolist() == list(RUNS)
    assert table.columns.tolist() == [
        *("seed", "training.lr", *STATE), *("gap", "gap_error", "exact"),
    ]  # fmt: skip
    assert table["training.lr"].tolist() == [0.1, 0.2]
    assert table["gap"].tolist() == [0.5, 0.25]
    assert table["gap_error"].tolist() == [0.01, 0.02]
    assert table["checks_passed"].tolist() == [1, 1]
    assert table["checks"].tolist() == [2, 2]


def test_a_setting_that_is_sometimes_null_varies() -> None:
    runs: dict[str, Run] = {
        str(clip_norm): ({"training": {"clip_norm": clip_norm}}, {}) for clip_norm in (None, 1.0)
    }
    table = table_of(runs)
    assert table.columns.tolist() == ["training.clip_norm", *STATE]
    assert table["training.clip_norm"].isna().tolist() == [True, False]


def test_one_run_varies_nothing() -> None:
    name = next(iter(RUNS))
    table = table_of({name: RUNS[name]})
    assert table.columns.tolist() == [*STATE, "gap", "gap_error", "exact"]


def test_a_quantity_that_one_run_lacks_is_left_empty() -> None:
    runs: dict[str, Run] = {
        "a": ({"seed": 0}, {"gap": quantity(0.5, None)}),
        "b": ({"seed": 1}, {"other": quantity(0.1, None)}),
    }
    table = table_of(runs)
    assert table["gap"].isna().tolist() == [False, True]
    assert table["other"].isna().tolist() == [True, False]


def test_the_variant_stands_first() -> None:
    """By its name, underscores and all; what it sets follows."""
    runs: dict[str, Run] = {
        f"variant~{name}_seed~{seed}": (
            {"seed": seed, "training": {"clip_norm": clip_norm}},
            {"gap": quantity(0.5, None)},
        )
        for name, clip_norm in (("full", 1.0), ("no_clipping", None))
        for seed in (0, 1)
    }
    table = table_of(runs)
    assert table.columns.tolist() == ["variant", "seed", "training.clip_norm", *STATE, "gap"]
    assert table["variant"].tolist() == ["full", "full", "no_clipping", "no_clipping"]


def test_a_run_without_results_is_a_row_of_what_was_varied() -> None:
    """The counts of the others stay whole numbers."""
    done, absent = ({"seed": seed} for seed in (0, 1))
    records = [
        RunRecord("seed~0", done, RunState("finished"), {"gap": quantity(0.5, None)}, [True]),
        RunRecord("seed~1", absent, RunState("failed", "train.log", "too hot")),
    ]
    assert summary(records).to_csv(lineterminator="\n").splitlines() == [
        "run,seed,state,checks_passed,checks,gap",
        "seed~0,0,finished,1,1,0.5",
        "seed~1,1,failed,,,",
    ]
