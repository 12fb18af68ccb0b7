"""The figure and the table of a sweep: its rows, its numbers, the published mark, and bad input."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from strata.config import parse
from strata.neural_rg.compare import main
from strata.neural_rg.config import RunSettings
from strata.neural_rg.quality_figure import DIVERGENCES, FRACTIONS, quality
from strata.neural_rg.sweep_quality import Row, read_rows, table
from strata.plotting import PAGE_WIDTH
from strata.quantities import Quantity, quantity, read_analysis, with_error
from strata.stages import run_stage

GAPS = {"full": (0.2, 0.3, 0.25), "no_clipping": (0.8, 0.6, 0.7)}  # of three seeds
PUBLISHED: dict[str, Any] = {"published": 0.39, "published_source": "someone's table 1"}


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def measured(near: float, /, **others: Quantity | None) -> dict[str, Quantity]:
    """Return what an analysis says of a run with such a gap; what is None is left out."""
    found = {
        "gap": quantity(near, 0.01, "nats"),
        "forward_gap": quantity(2.0 * near, 0.02, "nats"),
        "effective_sample_fraction": quantity(math.exp(-abs(near)), None, "1"),
        "acceptance": quantity(0.5, 0.004, "1"),
        "energy": quantity(1.0, None, "J"),
    } | others
    return {name: entry for name, entry in found.items() if entry is not None}


def write_run(
    folder: Path, quantities: Mapping[str, Quantity], block: dict[str, Any] | None = None
) -> Path:
    """Write the two files of a run that the stage reads."""
    folder.mkdir(parents=True)
    settings = parse(RunSettings, block or {}, "test")
    (folder / "settings.json").write_text(settings.canonical_json())
    (folder / "analysis.json").write_text(json.dumps({"quantities": quantities}))
    return folder


def files(folders: Sequence[Path], name: str) -> list[Path]:
    return [folder / name for folder in folders]


def read(*folders: Path) -> list[Row]:
    return read_rows(files(folders, "settings.json"), files(folders, "analysis.json"))


def ablation(folder: Path, **expected: Any) -> list[Path]:
    """Write the runs of two variants with three seeds each; return their folders."""
    return [
        write_run(
            folder / "mera_ablation" / f"variant~{name}_seed~{seed}",
            measured(gap),
            {"seed": seed, "expected": expected},
        )
        for name, gaps in GAPS.items()
        for seed, gap in enumerate(gaps)
    ]


# --- rows -----------------------------------------------------------------------------------------


def test_seeds_of_a_variant_share_a_row_as_written(tmp_path: Path) -> None:
    rows = read(*ablation(tmp_path))
    assert [(row.label, len(row.runs)) for row in rows] == [("full", 3), ("no_clipping", 3)]
    mean = rows[0].mean("gap")
    assert mean is not None
    assert mean == pytest.approx((0.25, 0.05 / math.sqrt(3)))
    backwards = read(*reversed(ablation(tmp_path / "again")))
    assert [row.label for row in backwards] == ["no_clipping", "full"]


@pytest.mark.parametrize(("name", "label"), [
    ("variant~full", "full"),
    ("variant~no_lr_seed~3", "no_lr"),
    ("seed~0_n_layers~4", "n_layers 4"),
    ("n_layers~4_variant~a_b_lr~0.1", "n_layers 4, a_b, lr 0.1"),
    ("seed~2", "my_sweep"),
    ("mera_L8", "mera_L8"),
])  # fmt: skip
def test_rows_are_called_as_their_point_of_the_sweep(tmp_path: Path, name: str, label: str) -> None:
    (row,) = read(write_run(tmp_path / "my_sweep" / name, measured(0.1)))
    assert row.label == label


def test_a_single_run_keeps_its_own_error(tmp_path: Path) -> None:
    (row,) = read(write_run(tmp_path / "run", measured(0.5, forward_gap=None)))
    assert row.mean("gap") == (0.5, 0.01)
    assert row.mean("effective_sample_fraction") == (math.exp(-0.5), None)
    assert row.mean("forward_gap") is None


def test_a_number_that_was_not_finite_does_not_count(tmp_path: Path) -> None:
    bad = measured(0.5, gap={"value": None, "error": None, "unit": "nats"})
    runs = [write_run(tmp_path / "seed~0", bad), write_run(tmp_path / "seed~1", measured(0.7))]
    (row,) = read(*runs)
    assert row.mean("gap") == (0.7, 0.01)
    (alone,) = read(runs[0])
    assert alone.mean("gap") is None
    quality([alone])
    assert "| - |" in table([alone])


# --- the table ------------------------------------------------------------------------------------


def test_the_table_has_the_numbers_with_their_errors(tmp_path: Path) -> None:
    folders = ablation(tmp_path, **PUBLISHED)
    lines = table(read(*folders)).splitlines()
    assert lines[0] == (
        "| run | seeds | reverse KL: gap (nats) | forward KL (nats) | effective samples per sample "
        "| acceptance | published gap (nats) |"
    )
    assert lines[2].startswith("| full | 3 | 0.25(3) | 0.50(6) | 0.78(2) | 0.5 | 0.39 |")
    assert lines[3].startswith("| no_clipping | 3 | 0.70(6) | 1.40(12) |")
    assert lines[-1] == "Published: someone's table 1."


def test_the_table_leaves_out_what_there_is_not(tmp_path: Path) -> None:
    text = table(read(write_run(tmp_path / "run", measured(0.5, forward_gap=None))))
    assert "| run | 1 | 0.500(10) | - | 0.6065 | 0.500(4) |\n" in text
    assert "ublished" not in text


@pytest.mark.parametrize(("value", "error", "text"), [
    (1.4661, 0.0041, "1.466(4)"),
    (1.632, 0.0201, "1.63(2)"),
    (1.632, 0.0149, "1.632(15)"),
    (1.632, 0.0098, "1.632(10)"),
    (-0.004, 0.0031, "-0.004(3)"),
    (55.31, 12.4, "55(12)"),
    (5531.0, 248.0, "5531(248)"),
    (0.5531, None, "0.5531"),
    (0.5531, 0.0, "0.5531"),
    (-148.6550, math.nan, "-148.7"),
])  # fmt: skip
def test_errors_stand_in_brackets(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


# --- the figure -----------------------------------------------------------------------------------


def drawn(rows: Sequence[Row]) -> Figure:
    figure = quality(rows)
    figure.canvas.draw()
    return figure


def words(texts: Sequence[Text]) -> list[str]:
    return [text.get_text() for text in texts]


def legend_of(figure: Figure) -> list[str]:
    return [entry for legend in figure.legends for entry in words(legend.get_texts())]


def means_of(panel: Axes) -> list[tuple[float, float, str]]:
    """Return value, row and shape of the marks with error bars, in the order drawn."""
    markers = [container[0] for container in panel.containers]
    return [(*marker.get_xydata()[0], marker.get_marker()) for marker in markers]


def singles(panel: Axes) -> list[np.ndarray]:
    """Return what the runs of a row have, where they are drawn one by one."""
    upright = [np.asarray(line.get_xdata()) for line in panel.lines if line.get_marker() == "|"]
    return [values for values in upright if len(values) > 1]  # others are the ends of a bar


def dashed(panel: Axes) -> list[np.ndarray]:
    """Return the ends of the dashed lines."""
    lines = [line for line in panel.lines if line.get_linestyle() == "--"]
    return [np.asarray(line.get_xydata()) for line in lines]


def test_there_is_a_row_for_every_variant(tmp_path: Path) -> None:
    figure = drawn(read(*ablation(tmp_path)))
    divergences, fractions = figure.axes
    assert words(divergences.get_yticklabels()) == ["full", "no_clipping"]
    assert divergences.get_ylim() == fractions.get_ylim() == (1.5, -0.5)
    assert figure.get_size_inches()[0] == PAGE_WIDTH
    for panel, marks in ((divergences, DIVERGENCES), (fractions, FRACTIONS)):
        found = means_of(panel)
        assert [(round(place), shape) for _, place, shape in found] == [
            (row, mark.shape) for row in (0, 1) for mark in marks.values()
        ]


def test_marks_are_means_and_single_seeds(tmp_path: Path) -> None:
    divergences, fractions = drawn(read(*ablation(tmp_path))).axes
    values = [value for value, _, _ in means_of(divergences)]
    np.testing.assert_allclose(values, [0.25, 0.5, 0.7, 1.4])
    bar = divergences.containers[0][2][0].get_segments()[0]
    error = 0.05 / math.sqrt(3)
    np.testing.assert_allclose(bar[:, 0], [0.25 - error, 0.25 + error])
    found = singles(divergences)
    np.testing.assert_allclose(found[0], GAPS["full"])
    np.testing.assert_allclose(found[3], np.multiply(2.0, GAPS["no_clipping"]))
    assert [value for value, _, shape in means_of(fractions) if shape == "s"] == [0.5, 0.5]


def test_the_figure_says_what_it_shows(tmp_path: Path) -> None:
    figure = drawn(read(*ablation(tmp_path, **PUBLISHED)))
    divergences, fractions = figure.axes
    assert figure.get_suptitle() == RunSettings().target.caption
    assert divergences.get_xlabel() == "divergence from the target (nats)"
    assert divergences.get_xscale() == "log"
    assert fractions.get_xlabel() == "fraction (1)"
    assert fractions.get_xlim() == (0.0, 1.0)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["(a)", "(b)"]
    assert legend_of(figure) == [
        "reverse, KL($p$ ‖ $\\pi$): the gap",
        "forward, KL($\\pi$ ‖ $p$)",
        "effective samples per sample",
        "acceptance",
        "single seeds",
        "smallest published gap: 0.39 nats",
    ]


def test_every_quantity_has_its_own_shape_and_colour() -> None:
    marks = [*DIVERGENCES.values(), *FRACTIONS.values()]
    assert len({mark.shape for mark in marks}) == len({mark.color for mark in marks}) == 4


def test_the_dashed_line_stands_at_the_published_gap_over_all_rows(tmp_path: Path) -> None:
    divergences, fractions = drawn(read(*ablation(tmp_path, **PUBLISHED))).axes
    np.testing.assert_array_equal(dashed(divergences), [[[0.39, -0.5], [0.39, 1.5]]])
    assert not dashed(fractions)


def test_every_row_has_its_own_published_gap(tmp_path: Path) -> None:
    folders = [
        write_run(
            tmp_path / f"L~{length}",
            measured(gap),
            {"target": {"L": length}, "expected": {"published": published}},
        )
        for length, gap, published in ((4, 0.1, None), (8, 0.4, 0.39), (16, 1.6, 1.88))
    ]
    figure = drawn(read(*folders))
    expected = [[[0.39, 0.5], [0.39, 1.5]], [[1.88, 1.5], [1.88, 2.5]]]
    np.testing.assert_array_equal(dashed(figure.axes[0]), expected)
    assert legend_of(figure)[-1] == "smallest published gap"
    assert figure.get_suptitle() == "", "there is not one target"
    assert words(figure.axes[0].get_yticklabels()) == ["L 4", "L 8", "L 16"]


def test_without_forward_divergence_and_published_gap_there_is_no_such_mark(tmp_path: Path) -> None:
    figure = drawn(read(write_run(tmp_path / "run", measured(0.5, forward_gap=None))))
    assert [shape for _, _, shape in means_of(figure.axes[0])] == ["o"]
    assert not dashed(figure.axes[0])
    assert len(legend_of(figure)) == 3
    assert not singles(figure.axes[0])


def test_a_gap_below_zero_is_an_arrow_at_the_edge(tmp_path: Path) -> None:
    below = {"forward_gap": quantity(0.2, 0.5, "nats")}
    divergences = drawn(read(write_run(tmp_path / "run", measured(-0.003, **below)))).axes[0]
    assert [shape for _, _, shape in means_of(divergences)] == ["D"]
    (arrow,) = [line for line in divergences.lines if line.get_marker() == "<"]
    place = arrow.get_transform().transform(np.asarray(arrow.get_xydata()))
    assert divergences.transAxes.inverted().transform(place)[0, 0] == pytest.approx(0.0)
    assert 0.0 < divergences.get_xlim()[0] < 0.2


# --- the stage ------------------------------------------------------------------------------------


def command(out: Path, folders: Sequence[Path], **inputs: Sequence[Path]) -> list[str]:
    given = {
        "runs-settings": files(folders, "settings.json"),
        "analyses": files(folders, "analysis.json"),
    } | inputs
    outputs = {"table": "quality.md", "figure": "quality.pdf", "image": "quality.png"}
    return [
        *(text for name, paths in given.items() for text in (f"--{name}", *map(str, paths))),
        *(text for name, file in outputs.items() for text in (f"--{name}", str(out / file))),
    ]


def test_stage_writes_the_same_bytes_again(tmp_path: Path) -> None:
    folders = ablation(tmp_path, **PUBLISHED)
    found = []
    for _ in range(2):
        main(command(tmp_path, folders))
        found.append({path.name: path.read_bytes() for path in tmp_path.glob("quality.*")})
    assert found[0] == found[1]
    assert set(found[0]) == {"quality.md", "quality.pdf", "quality.png"}
    assert found[0]["quality.pdf"].startswith(b"%PDF")
    assert found[0]["quality.md"].decode() == table(read(*folders))
    assert not plt.get_fignums(), "a saved figure is closed"


def complaint(line: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence that the stage ends with, status 2."""
    with pytest.raises(SystemExit) as end:
        run_stage(partial(main, line))
    assert end.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


def test_files_of_different_runs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ablation(tmp_path)
    swapped = files([folders[1], folders[0], *folders[2:]], "analysis.json")
    assert "are of different runs" in complaint(
        command(tmp_path, folders, analyses=swapped), capsys
    )
    few = command(tmp_path, folders, analyses=swapped[:2])
    assert "--analyses names 2 files and --runs-settings 6" in complaint(few, capsys)
    assert not list(tmp_path.glob("quality.*"))


@pytest.mark.parametrize(("content", "sentence"), [
    (None, "analysis.json: cannot be read as JSON"),
    ("{", "analysis.json: cannot be read as JSON"),
    ("[]", "analysis.json holds no quantities"),
    ('{"quantities": {}}', "holds no gap and no effective_sample_fraction and no acceptance"),
    ('{"quantities": [1]}', "analysis.json: expected a value and an error of each quantity"),
    ('{"quantities": {"gap": 1.0}}', "analysis.json: expected a value and an error of each"),
    ('{"quantities": {"gap": {"value": 1.0}}}', "expected a value and an error of each quantity"),
])  # fmt: skip
def test_an_analysis_that_is_none_is_named(
    tmp_path: Path, content: str | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", measured(0.1))
    analysis = folder / "analysis.json"
    if content is None:
        analysis.unlink()
    else:
        analysis.write_text(content)
    answer = complaint(command(tmp_path, [folder]), capsys)
    assert sentence in answer
    assert str(analysis) in answer
    assert not list(tmp_path.glob("quality.*"))


@pytest.mark.parametrize(("content", "sentence"), [
    (None, "settings.json: cannot be read as settings"),
    ("{}", "settings.json: the stage compare reads target and expected"),
    ('{"expected": {"published": -1.0}}', "settings.json: expected.published: expected greater"),
])  # fmt: skip
def test_settings_that_are_none_are_named(
    tmp_path: Path, content: str | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run", measured(0.1))
    settings = folder / "settings.json"
    if content is None:
        settings.unlink()
    else:
        settings.write_text(content)
    assert sentence in complaint(command(tmp_path, [folder]), capsys)


def test_an_analysis_is_read_as_it_is_written(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", measured(0.1))
    assert read_analysis(folder / "analysis.json") == measured(0.1)
