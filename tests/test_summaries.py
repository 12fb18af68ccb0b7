"""One row per run: what was varied, then what was measured."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from strata.errors import UserError
from strata.summaries import main, summary

Run = tuple[dict[str, Any], dict[str, Any]]


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


def files_of(folder: Path, runs: dict[str, Run]) -> tuple[list[Path], list[Path]]:
    """Write the runs' files; return those of the settings and those of the analyses."""
    for name, contents in runs.items():
        (folder / name).mkdir()
        for kind, content in zip(("settings", "analysis"), contents, strict=True):
            whole = {"quantities": content} if kind == "analysis" else content
            (folder / name / f"{kind}.json").write_text(json.dumps(whole))
    return (
        [folder / name / "settings.json" for name in runs],
        [folder / name / "analysis.json" for name in runs],
    )


def test_what_varies_and_what_was_measured(tmp_path: Path) -> None:
    table = summary(*files_of(tmp_path, RUNS))
    assert table.index.tolist() == list(RUNS)
    assert table.columns.tolist() == ["seed", "training.lr", "gap", "gap_error", "exact"]
    assert table["training.lr"].tolist() == [0.1, 0.2]
    assert table["gap"].tolist() == [0.5, 0.25]
    assert table["gap_error"].tolist() == [0.01, 0.02]


def test_a_setting_that_is_sometimes_null_varies(tmp_path: Path) -> None:
    runs: dict[str, Run] = {
        str(clip_norm): ({"training": {"clip_norm": clip_norm}}, {}) for clip_norm in (None, 1.0)
    }
    table = summary(*files_of(tmp_path, runs))
    assert table.columns.tolist() == ["training.clip_norm"]
    assert table["training.clip_norm"].isna().tolist() == [True, False]


def test_one_run_varies_nothing(tmp_path: Path) -> None:
    name = next(iter(RUNS))
    table = summary(*files_of(tmp_path, {name: RUNS[name]}))
    assert table.columns.tolist() == ["gap", "gap_error", "exact"]


def test_a_quantity_that_one_run_lacks_is_left_empty(tmp_path: Path) -> None:
    runs: dict[str, Run] = {
        "a": ({"seed": 0}, {"gap": quantity(0.5, None)}),
        "b": ({"seed": 1}, {"other": quantity(0.1, None)}),
    }
    table = summary(*files_of(tmp_path, runs))
    assert table["gap"].isna().tolist() == [False, True]
    assert table["other"].isna().tolist() == [True, False]


def test_the_variant_stands_first(tmp_path: Path) -> None:
    """By its name, underscores and all; what it sets follows."""
    runs: dict[str, Run] = {
        f"variant~{name}_seed~{seed}": (
            {"seed": seed, "training": {"clip_norm": clip_norm}},
            {"gap": quantity(0.5, None)},
        )
        for name, clip_norm in (("full", 1.0), ("no_clipping", None))
        for seed in (0, 1)
    }
    table = summary(*files_of(tmp_path, runs))
    assert table.columns.tolist() == ["variant", "seed", "training.clip_norm", "gap"]
    assert table["variant"].tolist() == ["full", "full", "no_clipping", "no_clipping"]


def command_line(folder: Path) -> list[str]:
    settings, analyses = files_of(folder, RUNS)
    inputs = ["--settings", *map(str, settings), "--analyses", *map(str, analyses)]
    return [*inputs, "--summary", str(folder / "summary.csv")]


def test_stage_writes_the_table(tmp_path: Path) -> None:
    main(command_line(tmp_path))
    table = pd.read_csv(tmp_path / "summary.csv", index_col="run")
    assert table.loc["seed~1_lr~0.2"].to_dict() == {
        "seed": 1, "training.lr": 0.2, "gap": 0.25, "gap_error": 0.02, "exact": -7.0,
    }  # fmt: skip


def test_an_analysis_that_cannot_be_read_leaves_no_table(tmp_path: Path) -> None:
    line = command_line(tmp_path)
    (tmp_path / "seed~1_lr~0.2" / "analysis.json").write_text("{")
    with pytest.raises(UserError, match=r"analysis\.json: cannot be read as JSON"):
        main(line)
    assert not list(tmp_path.glob("*summary*"))
