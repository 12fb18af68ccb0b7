"""Statistics over the networks of a sweep: against numpy, with none of the failed ones hidden."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from strata.group_composition.summarize import main
from strata.stages import run_stage

COLUMNS = ("seed", "status", "diverged_at", "initial_loss", "final_loss", "reduction", "n_drops")
Network = tuple[Any, ...]  # a row of seeds.csv; "" where there is no number
RUNS: dict[str, tuple[dict[str, Any], list[Network]]] = {
    "hidden_dim~12": (
        {"model": {"hidden_dim": 12}, "task": {"k": 2}},
        [
            (0, "completed", "", 1.0, 0.5, 0.5, 1),
            (1, "completed", "", 1.0, 0.125, 0.125, 2),
            (2, "diverged", 137, 1.0, "", "", 1),
            (3, "completed", "", 1.0, 0.0625, 0.0625, ""),
        ],
    ),
    "hidden_dim~24": (
        {"model": {"hidden_dim": 24}, "task": {"k": 2}},
        [(0, "completed", "", 2.0, 0.01, 0.005, 3)],
    ),
    "hidden_dim~48": (
        {"model": {"hidden_dim": 48}, "task": {"k": 2}},
        [(0, "diverged", 12, 1.5, "", "", 0), (1, "diverged", 1234567, 1.5, "", "", 0)],
    ),
}


def write(folder: Path, runs: Mapping[str, tuple[dict[str, Any], list[Network]]]) -> list[str]:
    """Write the runs' files; return the stage's command line."""
    for name, (settings, networks) in runs.items():
        (folder / name).mkdir()
        (folder / name / "settings.json").write_text(json.dumps(settings))
        lines = [",".join(map(str, row)) for row in (COLUMNS, *networks)]
        (folder / name / "seeds.csv").write_text("\n".join(lines) + "\n")
    return [
        "--runs-settings", *(str(folder / name / "settings.json") for name in runs),
        "--seeds", *(str(folder / name / "seeds.csv") for name in runs),
        "--statistics", str(folder / "statistics.csv"), "--table", str(folder / "statistics.md"),
    ]  # fmt: skip


def table_of(folder: Path, runs: Mapping[str, Any] = RUNS) -> pd.DataFrame:
    main(write(folder, runs))
    return pd.read_csv(folder / "statistics.csv").set_index(["run", "quantity"])


def reached(quantity: str, runs: Sequence[str]) -> np.ndarray:
    """Return what the networks that completed reached, where there is a number."""
    place = COLUMNS.index(quantity)
    rows = [row for name in runs for row in RUNS[name][1] if row[1] == "completed"]
    return np.array([row[place] for row in rows if row[place] != ""], dtype=np.float64)


@pytest.mark.parametrize("quantity", COLUMNS[3:])
@pytest.mark.parametrize("runs", [[name] for name in RUNS] + [list(RUNS)])
def test_statistics_are_those_of_numpy(runs: list[str], quantity: str, tmp_path: Path) -> None:
    name = runs[0] if len(runs) == 1 else "all runs"
    row = table_of(tmp_path).loc[(name, quantity)]
    values = reached(quantity, runs)
    assert row["count"] == len(values)
    if not len(values):
        assert row[["mean", "sd", "min", "max", "median"]].isna().all()
        return
    found = row[["mean", "min", "max", "median"]].astype(float)
    expected = [values.mean(), values.min(), values.max(), np.median(values)]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    if len(values) == 1:
        assert np.isnan(row["sd"])
    else:
        assert float(row["sd"]) == pytest.approx(values.std(ddof=1), rel=1e-12)


def test_networks_are_counted_run_by_run_and_together(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    counts = table.xs("final_loss", level="quantity")[["networks", "completed", "diverged"]]
    assert counts.T.to_dict("list") == {
        "hidden_dim~12": [4, 3, 1],
        "hidden_dim~24": [1, 1, 0],
        "hidden_dim~48": [2, 0, 2],
        "all runs": [7, 4, 3],
    }
    assert list(counts.index) == [*RUNS, "all runs"]


def test_a_row_says_what_varied(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    assert "task.k" not in table
    dims = table.xs("reduction", level="quantity")["model.hidden_dim"]
    assert dims.tolist()[:-1] == [12, 24, 48]
    assert np.isnan(dims["all runs"])


def test_loss_and_reduction_come_first(tmp_path: Path) -> None:
    quantities = table_of(tmp_path).loc["hidden_dim~12"].index.tolist()
    assert quantities == ["final_loss", "reduction", "initial_loss", "n_drops"]


def test_every_network_that_diverged_is_named_with_its_seed_and_step(tmp_path: Path) -> None:
    main(write(tmp_path, RUNS))
    lines = (tmp_path / "statistics.md").read_text().splitlines()
    start = lines.index("## Networks that diverged")
    assert lines[start + 2 : start + 8] == [
        "| run | seed | at step |",
        "| --- | --- | --- |",
        "| hidden_dim~12 | 2 | 137 |",
        "| hidden_dim~48 | 0 | 12 |",
        "| hidden_dim~48 | 1 | 1234567 |",
        "",
    ]
    assert "| hidden_dim~48 | 2 | 0 | 2 |" in lines
    assert "| all runs | 7 | 4 | 3 |" in lines
    assert lines[0] == "# 7 networks in 3 runs"


def test_the_report_holds_a_table_for_every_quantity(tmp_path: Path) -> None:
    main(write(tmp_path, RUNS))
    lines = (tmp_path / "statistics.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("## ")][1:] == [
        "## final_loss", "## reduction", "## initial_loss", "## n_drops",
    ]  # fmt: skip
    start = lines.index("## final_loss")
    assert lines[start + 2 : start + 6] == [
        "| run | count | mean | sd | min | max | median |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| hidden_dim~12 | 3 | 0.229167 | 0.236621 | 0.0625 | 0.5 | 0.125 |",
        "| hidden_dim~24 | 1 | 0.01 | - | 0.01 | 0.01 | 0.01 |",
    ]


def test_a_sweep_without_failures_says_so(tmp_path: Path) -> None:
    name = "hidden_dim~24"
    table = table_of(tmp_path, {name: RUNS[name]})
    assert table.columns[0] == "networks", "one run varies nothing"
    report = (tmp_path / "statistics.md").read_text()
    assert "## Networks that diverged\n\nNone.\n" in report
    row, together = table.loc[(name, "reduction")], table.loc[("all runs", "reduction")]
    assert row["mean"] == together["mean"] == 0.005


def test_equal_files_are_equal_bytes(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        main(write(folder, RUNS))
        found.append([(folder / f"statistics.{suffix}").read_bytes() for suffix in ("csv", "md")])
    assert found[0] == found[1]


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(("content", "message"), [
    (None, "seeds.csv: cannot be read as a table of networks"),
    ("", "seeds.csv: cannot be read as a table of networks"),
    (HEADER, "seeds.csv holds no network;"),
    (HEADER.replace("reduction", "other") + "\n0,completed,,1,1,1,1", "holds no reduction;"),
    (HEADER + "\n0,lost,,1,1,1,1", "the status of a network to be completed or diverged; got 'lo"),
    (HEADER + "\n0,completed,,1,small,1,1", "expected final_loss to hold numbers"),
])  # fmt: skip
def test_tables_that_cannot_be_read_are_one_sentence(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = write(tmp_path, RUNS)
    file = tmp_path / "hidden_dim~24" / "seeds.csv"
    file.unlink() if content is None else file.write_text(content)
    complaint = complaint_of(line, capsys)
    assert message in complaint
    assert str(file) in complaint
    assert not list(tmp_path.glob("statistics*"))


def complaint_of(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, line))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    return complaint


def test_files_that_do_not_go_together_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = write(tmp_path, RUNS)
    first = line.index("--seeds") + 1
    fewer = [*line[:first], *line[first + 1 :]]
    assert "--seeds names 2 files and --runs-settings 3" in complaint_of(fewer, capsys)
    line[first], line[first + 1] = line[first + 1], line[first]
    assert "are of different runs" in complaint_of(line, capsys)
