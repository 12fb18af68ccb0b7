"""The figure of a sweep: medians and ranges, plateaus never reached, widths, diverged networks."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from strata.artifacts import write_h5
from strata.config import parse
from strata.group_composition.compare import main
from strata.group_composition.config import ComparisonSettings, RunSettings
from strata.group_composition.exact_solutions import width
from strata.group_composition.groups import build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.sweep_figures import (
    losses,
    plateau_steps,
    steps_to_plateau,
    thinned,
)
from strata.group_composition.sweep_runs import Run, labels_of, read_runs, varied_settings
from strata.group_composition.width_figure import widths
from strata.stages import run_stage

BEFORE, AFTER = (1.0, 0.4, 0.1), (0.4, 0.1, 0.0)
STEPS = np.arange(1, 101)
DEFAULTS = ComparisonSettings()


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def staircase(*drops: int) -> np.ndarray:
    """Return losses that rest on the predicted plateaus and drop at the given steps."""
    heights = np.array([1.0, 0.4, 0.1, 1e-7])
    return heights[np.searchsorted(drops, STEPS, side="right")]


def write_run(
    folder: Path,
    curves: Sequence[np.ndarray],
    block: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    final: Sequence[float] | None = None,
) -> Path:
    """Write settings, task and history of a run; one curve per network."""
    folder.mkdir(parents=True)
    settings = parse(RunSettings, {"template": {"name": "onehot"}} | (block or {}), "test")
    (folder / "settings.json").write_text(settings.canonical_json())
    irreps = irreducible_representations(build_group(settings.group))
    arrays = {
        "drops/before": np.array(BEFORE),
        "drops/after": np.array(AFTER),
        "irreps/dimension": np.array([irrep.dimension for irrep in irreps]),
        "irreps/degree": np.array([irrep.degree for irrep in irreps]),
        "irreps/power": np.array([0.0] + [1.0] * (len(irreps) - 1)),
    } | (task or {})
    table = np.stack(curves, axis=1)
    history = {
        "train/step": STEPS[: len(table)],
        "train/losses": table,
        "eval/step": STEPS[: len(table)][[0, -1]],
        "eval/losses": np.stack([table[0], table[-1] if final is None else np.array(final)]),
    }
    for name, content, stage in (("task", arrays, "predict"), ("history", history, "train")):
        write_h5(
            folder / f"{name}.h5",
            content,
            units=dict.fromkeys(content, "1"),
            attributes={"settings": settings.sections_of(stage)},
        )
    return folder


def files(folders: Sequence[Path], name: str) -> list[Path]:
    return [folder / name for folder in folders]


def read(*folders: Path) -> list[Run]:
    return read_runs(
        files(folders, "settings.json"), files(folders, "task.h5"), files(folders, "history.h5")
    )


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# --- what varies ----------------------------------------------------------------------------------


def test_what_varies_is_named_once_or_in_every_label() -> None:
    blocks = [{"model": {"hidden_dim": d, "kind": "RNN"}, "task": {"k": 2}} for d in (6, 12)]
    assert labels_of(varied_settings(blocks)) == ("hidden_dim", ["6", "12"])
    blocks[1]["task"] = {"k": 3}
    assert labels_of(varied_settings(blocks)) == ("", ["hidden_dim 6, k 2", "hidden_dim 12, k 3"])


def test_blocks_of_other_kinds_vary_in_what_they_have() -> None:
    groups = [{"name": "cyclic", "n": 10}, {"name": "product", "orders": [4, 6]}]
    varied = varied_settings([{"group": group} for group in groups])
    assert varied == [
        {"group.name": "cyclic", "group.n": 10},
        {"group.name": "product", "group.orders": [4, 6]},
    ]
    assert labels_of(varied)[1] == ["name cyclic, n 10", "name product, orders 4, 6"]


# --- losses ---------------------------------------------------------------------------------------


def sweep(folder: Path, n_runs: int, n_networks: int = 3) -> list[Run]:
    """Return runs of widths 6, 12, ... with random losses."""
    random = np.random.default_rng(0)
    folders = [
        write_run(
            folder / f"hidden_dim~{6 * number}",
            [np.exp(random.normal(size=len(STEPS))) for _ in range(n_networks)],
            {"model": {"hidden_dim": 6 * number}},
            final=np.exp(random.normal(size=n_networks)),
        )
        for number in range(1, n_runs + 1)
    ]
    return read(*folders)


def test_curves_and_points_are_medians_and_bars_are_ranges(tmp_path: Path) -> None:
    runs = sweep(tmp_path, 3)
    figure = losses(runs, DEFAULTS)
    curves, final = figure.axes
    drawn = [line for line in curves.lines if len(line.get_xdata()) == len(STEPS)]
    triples = zip(runs, drawn, final.containers, strict=True)
    for number, (run, line, point) in enumerate(triples, start=1):
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        np.testing.assert_array_equal(line.get_ydata(), np.median(run.losses()[1], axis=1))
        values = run.final_losses()
        marker, _, (bar,) = point
        np.testing.assert_array_equal(marker.get_xydata(), [[number, np.median(values)]])
        ends = [[number, values.min()], [number, values.max()]]
        np.testing.assert_allclose(bar.get_segments()[0], ends)
        assert marker.get_color() == line.get_color()
    assert legend_of(figure) == ["6", "12", "18"]
    assert figure.legends[0].get_title().get_text() == "hidden_dim"
    assert [text.get_text() for text in final.get_xticklabels()] == ["6", "12", "18"]
    assert curves.get_yscale() == curves.get_xscale() == "log"


def test_the_plateaus_are_drawn_if_all_runs_share_them(tmp_path: Path) -> None:
    def heights(figure: Figure) -> list[float]:
        return [
            line.get_ydata()[0]
            for line in figure.axes[0].lines
            if line.get_color() == "black" and line.get_linestyle() == "--"
        ]

    runs = sweep(tmp_path, 2)
    assert heights(losses(runs, DEFAULTS)) == [0.4, 0.1]
    other = {"drops/before": np.array([1.0, 0.3]), "drops/after": np.array([0.3, 0.0])}
    another = read(write_run(tmp_path / "other", [staircase(9)], task=other))
    assert heights(losses([*runs, *another], DEFAULTS)) == []


def test_a_network_that_diverged_is_named_and_does_not_count(tmp_path: Path) -> None:
    good, better, bad = 2.0 * staircase(20, 40), staircase(20, 40), staircase(20, 40).copy()
    bad[29:] = np.nan
    (run,) = read(write_run(tmp_path / "run", [good, bad, better]))
    curves, final = losses([run], DEFAULTS).axes
    np.testing.assert_allclose(curves.lines[0].get_ydata(), (good + better) / 2)
    cross = curves.lines[1]
    np.testing.assert_array_equal(cross.get_xydata(), [[29, 0.4]])
    assert cross.get_marker() == "x"
    assert texts(final) == ["1 of 3 diverged"]
    assert final.containers[0][0].get_ydata() == pytest.approx(0.15)


def test_a_run_whose_networks_all_diverged_is_drawn_as_far_as_it_went(tmp_path: Path) -> None:
    first, second = staircase(20).copy(), 3.0 * staircase(20)
    first[9:], second[49:] = np.nan, np.nan
    (run,) = read(write_run(tmp_path / "run", [first, second]))
    figure = losses([run], DEFAULTS)
    figure.canvas.draw()
    curves, final = figure.axes
    line = curves.lines[0]
    assert line.get_xdata()[-1] == 49
    np.testing.assert_allclose(line.get_ydata()[[0, 8, 9, 48]], [2.0, 2.0, 3.0, 1.2])
    assert not final.containers
    assert texts(final) == ["2 of 2 diverged"]


def test_many_runs_have_a_scale_of_colours_and_no_legend(tmp_path: Path) -> None:
    figure = losses(sweep(tmp_path, 10, n_networks=1), DEFAULTS)
    assert not figure.legends
    assert figure.get_suptitle() == "10 runs"
    colors = [container[0].get_color() for container in figure.axes[1].containers]
    assert len(set(colors)) == 10


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    rows = thinned(20000)
    assert len(rows) <= 400
    assert (rows[0], rows[-1]) == (0, 19999)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(thinned(30), np.arange(30))


# --- steps to plateaus ----------------------------------------------------------------------------


def test_a_plateau_is_reached_at_the_first_loss_below_its_height_times_the_reach() -> None:
    random = np.random.default_rng(2)
    values = np.exp(random.normal(size=(50, 4)))
    values[30:, 3] = np.nan
    found = plateau_steps(2 * np.arange(50), values, [0.5, 0.2, 0.01], 1.1)
    for number, height in enumerate([0.5, 0.2, 0.01]):
        for network in range(4):
            below = [row for row in range(50) if values[row, network] <= 1.1 * height]
            assert found[number, network] == (2 * below[0] if below else math.inf)


def guided(folder: Path, k: int, outputs: str, *drops: Sequence[int]) -> Path:
    block = {"task": {"k": k, "outputs": outputs}}
    return write_run(folder / f"k~{k}_outputs~{outputs}", [staircase(*d) for d in drops], block)


def marks(panel: Axes, marker: str) -> list[tuple[int, float]]:
    """Return k and step of the markers of one kind."""
    lines = [line for line in panel.lines if line.get_marker() == marker]
    return [(round(line.get_xdata()[0]), line.get_ydata()[0]) for line in lines]


def upright(panel: Axes) -> list[tuple[float, float]]:
    """Return the ends of the bars."""
    lines = [line for line in panel.lines if line.get_marker() == "None"]
    return [tuple(y) for x, y in (line.get_data() for line in lines) if x[0] == x[-1]]


def test_steps_are_medians_with_ranges_for_either_kind_of_outputs(tmp_path: Path) -> None:
    runs = read(
        guided(tmp_path, 2, "last", (10, 20), (12, 40), (30, 60)),
        guided(tmp_path, 2, "every", (11, 22)),
        guided(tmp_path, 3, "every", (15, 30), (25, 35)),
    )
    figure = steps_to_plateau(runs, DEFAULTS)
    first, second = figure.axes
    assert marks(first, "o") == [(2, 12)]
    assert marks(second, "o") == [(2, 40)]
    assert marks(first, "s") == [(2, 11), (3, 20)]
    assert marks(second, "s") == [(2, 22), (3, 32.5)]
    assert upright(first) == [(10, 30), (11, 11), (15, 25)]
    assert [panel.get_title(loc="left") for panel in figure.axes] == [
        "(a) plateau 1", "(b) plateau 2",
    ]  # fmt: skip
    assert legend_of(figure)[:2] == ["outputs last", "outputs every"]
    assert not marks(first, "^")
    assert first.get_yscale() == "log"


def test_a_plateau_that_is_not_reached_is_an_open_triangle_at_the_end(tmp_path: Path) -> None:
    runs = read(
        guided(tmp_path, 2, "last", (10, 20), (10, 30), (10,)),
        guided(tmp_path, 3, "last", (50,), (60,)),
    )
    first, second = steps_to_plateau(runs, DEFAULTS).axes
    assert not marks(first, "^")
    assert marks(second, "^") == [(2, 100), (3, 100)]
    assert marks(second, "o") == [(2, 30)], "no median where half of the networks never arrive"
    assert upright(second) == [(20, 100), (100, 100)]
    (triangle, _) = [line for line in second.lines if line.get_marker() == "^"]
    assert triangle.get_markerfacecolor() == "white"


def test_the_reach_and_the_number_of_plateaus_are_settings(tmp_path: Path) -> None:
    curve = np.linspace(1.0, 0.05, len(STEPS))
    runs = read(write_run(tmp_path / "run", [curve]))
    for reach in (1.1, 2.0):
        figure = steps_to_plateau(runs, ComparisonSettings(reach=reach, n_plateaus=1))
        (panel,) = figure.axes
        expected = STEPS[np.flatnonzero(curve <= reach * 0.4)[0]]
        assert marks(panel, "o") == [(3, expected)]


def test_runs_of_one_k_stand_beside_each_other(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{d}", [staircase(d, 50)], {"model": {"hidden_dim": d}})
        for d in (10, 20, 30)
    ]
    panel = steps_to_plateau(read(*folders), DEFAULTS).axes[0]
    places = [line.get_xdata()[0] for line in panel.lines if line.get_marker() == "o"]
    assert places == sorted(places)
    assert len(set(places)) == 3
    assert [step for _, step in marks(panel, "o")] == [10, 20, 30]


# --- widths ---------------------------------------------------------------------------------------


def mlp(folder: Path, k: int, n: int, hidden_dim: int, *final: float, **more: Any) -> Path:
    block = {
        "group": {"name": "cyclic", "n": n},
        "task": {"k": k},
        "model": {"kind": "SequentialMLP", "hidden_dim": hidden_dim},
        **more,
    }
    name = f"k~{k}_n~{n}_hidden_dim~{hidden_dim}"
    curves = [np.linspace(1.0, 0.5, 5) for _ in final]
    return write_run(folder / name, curves, block, final=final)


def mesh_of(panel: Axes) -> np.ma.MaskedArray:
    return panel.collections[0].get_array()


def test_cells_are_medians_of_final_over_initial_losses(tmp_path: Path) -> None:
    runs = read(
        mlp(tmp_path, 2, 5, 8, 0.5, 0.1, 0.2),
        mlp(tmp_path, 2, 7, 8, 0.25),
        mlp(tmp_path, 2, 7, 32, 1e-6, 1e-7, 2e-6),
        mlp(tmp_path, 3, 5, 32, 0.125),
    )
    runs[0].task["drops/before"][0] = 2.0
    two, three = widths(runs, DEFAULTS).axes[:2]
    np.testing.assert_allclose(mesh_of(two).filled(np.nan), [[0.1, 0.25], [np.nan, 1e-6]])
    blank = [[np.nan, np.nan], [0.125, np.nan]]
    np.testing.assert_allclose(mesh_of(three).filled(np.nan), blank)
    assert [text.get_text() for text in two.get_xticklabels()] == ["5", "7"]
    assert [text.get_text() for text in two.get_yticklabels()] == ["8", "32"]
    assert [panel.get_title(loc="left") for panel in (two, three)] == ["k = 2", "k = 3"]
    (discs,) = [line for line in two.lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(discs.get_xydata(), [[1, 1]])
    low, high = two.get_ylim()
    assert low < high, "wider networks stand above"


def test_the_line_stands_below_the_first_width_of_the_exact_solution(tmp_path: Path) -> None:
    dims = (6, 12, 24, 100)
    folders = [mlp(tmp_path, k, n, d, 0.1) for k in (2, 3) for n in (5, 7) for d in dims]
    for k, panel in zip((2, 3), widths(read(*folders), DEFAULTS).axes, strict=False):
        line = panel.patches[0].get_data()
        # (k + 1) 2^(k - 1) neurons for each of the (n - 1) / 2 frequencies
        needed = [(n - 1) // 2 * (k + 1) * 2 ** (k - 1) for n in (5, 7)]
        expected = [sum(d < width for d in dims) - 0.5 for width in needed]
        np.testing.assert_array_equal(line.values, expected)


@pytest.mark.parametrize("group", [
    {"name": "dihedral", "n": 4}, {"name": "dicyclic", "n": 2}, {"name": "cyclic", "n": 10},
])  # fmt: skip
@pytest.mark.parametrize("model", [
    {"kind": "SequentialMLP"}, {"kind": "QuadraticRNN"},
    {"kind": "QuadraticRNN", "transform": "multiplicative"}, {"kind": "TreeMLP"},
])  # fmt: skip
def test_the_exact_width_is_that_of_the_representations(
    group: dict[str, Any], model: dict[str, Any], tmp_path: Path
) -> None:
    (run,) = read(write_run(tmp_path / "run", [staircase(9)], {"group": group, "model": model}))
    irreps = irreducible_representations(build_group(run.settings.group))
    power, settings = run.task["irreps/power"], run.settings.model
    assert run.exact_width == width(irreps, power, settings.kind, 3, settings.transform)


def test_other_activations_have_no_line(tmp_path: Path) -> None:
    block = {
        "task": {"k": 2},
        "model": {"kind": "TwoLayerNet", "nonlinearity": "relu"},
    }
    (run,) = read(write_run(tmp_path / "run", [staircase(9)], block))
    assert run.exact_width is None
    figure = widths([run], DEFAULTS)
    figure.canvas.draw()
    assert np.isnan(figure.axes[0].patches[0].get_data().values).all()


def test_cells_with_diverged_networks_have_a_cross(tmp_path: Path) -> None:
    nan = math.nan
    runs = read(mlp(tmp_path, 2, 5, 8, 0.5, nan, 0.3), mlp(tmp_path, 2, 5, 16, nan, nan))
    figure = widths(runs, DEFAULTS)
    figure.canvas.draw()
    panel = figure.axes[0]
    np.testing.assert_allclose(mesh_of(panel).filled(np.nan), [[0.4], [np.nan]])
    (crosses,) = [line for line in panel.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(crosses.get_xydata(), [[0, 0], [0, 1]])
    assert "a network diverged" in legend_of(figure)
    good = read(mlp(tmp_path / "good", 2, 5, 8, 0.5))
    assert "a network diverged" not in legend_of(widths(good, DEFAULTS))


def test_runs_of_one_cell_are_taken_together(tmp_path: Path) -> None:
    runs = read(
        mlp(tmp_path / "a", 2, 5, 8, 0.5, 0.1),
        mlp(tmp_path / "b", 2, 5, 8, 0.2, seeds={"init": 7}),
    )
    assert mesh_of(widths(runs, DEFAULTS).axes[0]).filled(np.nan) == pytest.approx(0.2)


# --- the stage ------------------------------------------------------------------------------------


def arguments(folder: Path, figure: dict[str, Any], runs: Sequence[Path]) -> list[str]:
    folder.mkdir(exist_ok=True)
    settings = folder / "compare.json"
    settings.write_text(json.dumps({"comparison": figure}))
    names = {"tasks": "task.h5", "histories": "history.h5", "runs-settings": "settings.json"}
    inputs = [t for option, name in names.items() for t in (f"--{option}", *files(runs, name))]
    outputs = ["--comparison", folder / "comparison.pdf"]
    outputs += ["--comparison-image", folder / "comparison.png"]
    return list(map(str, ["--settings", settings, *inputs, *outputs]))


@pytest.mark.parametrize("figure", ["losses", "steps_to_plateau", "widths"])
def test_equal_files_are_equal_bytes(figure: str, tmp_path: Path) -> None:
    runs = [mlp(tmp_path, 2, n, 8, 0.5, math.nan) for n in (5, 7)]
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(arguments(folder, {"figure": figure}, runs))
        found.append({path.name: path.read_bytes() for path in folder.glob("comparison.*")})
    assert found[0] == found[1]
    assert set(found[0]) == {"comparison.pdf", "comparison.png"}
    assert not plt.get_fignums()


def complaint_of(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, line))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    return complaint


def test_sweeps_that_cannot_be_drawn_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_drop = {"drops/before": np.array([1.0]), "drops/after": np.array([0.0])}
    flat = write_run(tmp_path / "flat", [staircase(9)], task=one_drop)
    line = arguments(tmp_path / "out", {"figure": "steps_to_plateau"}, [flat])
    assert "No run of this sweep has a plateau" in complaint_of(line, capsys)
    same_order = [
        mlp(tmp_path / name, 2, 6, 8, 0.1, **block)
        for name, block in {
            "cyclic": {},
            "dihedral": {"group": {"name": "dihedral", "n": 3}},
        }.items()
    ]
    line = arguments(tmp_path / "out", {"figure": "widths"}, same_order)
    assert "of k = 2 and order 6 differ in the width" in complaint_of(line, capsys)
    assert not list((tmp_path / "out").glob("comparison.*"))


def test_files_that_do_not_fit_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (mlp(tmp_path, 2, n, 8, 0.5) for n in (5, 7))
    line = arguments(tmp_path / "out", {}, [first, second])
    task = line.index("--tasks") + 1
    fewer = [*line[:task], *line[task + 1 :]]
    assert "--tasks names 1 files and --runs-settings 2" in complaint_of(fewer, capsys)
    swapped = list(line)
    swapped[task], swapped[task + 1] = line[task + 1], line[task]
    assert "was made with another group than the settings have" in complaint_of(swapped, capsys)
    (tmp_path / "out" / "compare.json").write_text("{}")
    assert "reads comparison, which this file lacks" in complaint_of(line, capsys)


@pytest.mark.parametrize(("changes", "message"), [
    ({"eval/losses": None}, "history.h5 holds no eval/losses"),
    ({"train/step": np.zeros(0, int), "train/losses": np.zeros((0, 1))}, "holds no rows"),
    ({"train/losses": np.ones(3)}, "expected train/losses to have a column per network"),
])  # fmt: skip
def test_histories_that_cannot_be_drawn_are_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", [staircase(9)])
    arrays = {
        "train/step": np.arange(3),
        "train/losses": np.ones((3, 1)),
        "eval/step": np.arange(3),
        "eval/losses": np.ones((3, 1)),
    } | changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    write_h5(run / "history.h5", arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    assert message in complaint_of(arguments(tmp_path / "out", {}, [run]), capsys)


def test_lines_of_the_legend_are_those_of_the_runs(tmp_path: Path) -> None:
    figure = losses(sweep(tmp_path, 2), DEFAULTS)
    handles = figure.legends[0].legend_handles
    colors = [container[0].get_color() for container in figure.axes[1].containers]
    assert [h.get_color() for h in handles if isinstance(h, Line2D)] == colors
