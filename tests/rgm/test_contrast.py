"""Models side by side: rows of a sweep, their numbers, which curve stands where, bad input."""

import csv
import io
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
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.config import parse
from strata.quantities import Quantity, quantity
from strata.rgm.config import RunSettings
from strata.rgm.contrast import main
from strata.rgm.contrast_figure import models, series_of
from strata.rgm.contrast_table import Row, comma_separated, read_benchmark, read_rows, table
from strata.rgm.damage_kinds import DAMAGE_KINDS
from strata.stages import run_stage

STEPS = np.array([0, 100, 1000])
FILES = ("settings.json", "analysis.json", "history.h5", "active.h5", "benchmarks/train.tsv")
OPTIONS = ("runs-settings", "analyses", "histories", "actives", "benchmarks")
ACCURACY = "clean_accuracy_amortised"


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def measured(accuracy: float, /, **others: Quantity | None) -> dict[str, Quantity]:
    """Return what an analysis says of a run; what is None is left out."""
    found: dict[str, Quantity | None] = {
        ACCURACY: quantity(accuracy, 0.002, "1"),
        "half_occlusion_0.5_known_accuracy_inferred": quantity(0.8 * accuracy, 0.004, "1"),
        "generated_consistency": quantity(0.95, 0.01, "1"),
        "calibration_error_amortised": quantity(0.0123, None, "1"),
    }
    for damage, kind in DAMAGE_KINDS.items():
        for number, severity in enumerate(kind.severities, start=1):
            value = quantity(accuracy - 0.1 * number, 0.02, "1")
            found[f"{damage}_{severity:g}_accuracy_amortised"] = value
    return {name: entry for name, entry in (found | others).items() if entry is not None}


def write_run(
    folder: Path,
    quantities: Mapping[str, Quantity],
    *,
    seconds: float = 10.0,
    **block: Any,
) -> Path:
    """Write the five files of a run that the stage reads."""
    (folder / "benchmarks").mkdir(parents=True)
    settings = parse(RunSettings, block, "test")
    (folder / "settings.json").write_text(settings.canonical_json())
    (folder / "analysis.json").write_text(json.dumps({"quantities": quantities}))
    arrays = {"eval/step": STEPS, "eval/accuracy": np.array([0.6, 0.7, 0.8])}
    write_h5(folder / "history.h5", arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    labelled = {
        "labels_given": np.array([20, 40]),
        "accuracy/random": np.array([[0.3, 0.5], [0.5, 0.7]]),
    }
    labelled["all_labels_accuracy"] = np.array(0.9)
    write_h5(folder / "active.h5", labelled, units=dict.fromkeys(labelled, "1"), attributes={})
    (folder / "benchmarks" / "train.tsv").write_text(
        f"s\th:m:s\tmax_rss\tcpu_time\n{seconds}\t0:00:10\t430.2\t{0.9 * seconds}\n"
    )
    return folder


def sweep(folder: Path) -> list[Path]:
    """Write a sweep of both models over the images, with two seeds; return the runs' folders."""
    return [
        write_run(
            folder / "models" / f"model~{model}_n_train~{n_train}_seed~{seed}",
            measured(accuracy + 0.01 * seed),
            seconds=seconds * n_train + seed,
            model=model,
            seed=seed,
            data={"n_train": n_train},
        )
        for model, seconds, accuracies in (
            ("continuous", 4e-3, (0.9, 0.96)),
            ("spm", 1e-3, (0.85, 0.94)),
        )
        for n_train, accuracy in zip((5000, 50000), accuracies, strict=True)
        for seed in (0, 1)
    ]


def files_of(folders: Sequence[Path]) -> list[list[Path]]:
    return [[folder / name for folder in folders] for name in FILES]


def read(*folders: Path) -> list[Row]:
    return read_rows(*files_of(folders))


# --- rows -----------------------------------------------------------------------------------------


def test_a_row_is_a_model_and_a_number_of_images(tmp_path: Path) -> None:
    rows = read(*sweep(tmp_path))
    assert [(row.model, row.n_labelled, row.label, len(row.runs)) for row in rows] == [
        ("continuous", 5000, "continuous", 2),
        ("continuous", 50000, "continuous", 2),
        ("spm", 5000, "discrete", 2),
        ("spm", 50000, "discrete", 2),
    ]
    assert rows[0].mean(ACCURACY) == pytest.approx((0.905, 0.005))
    assert rows[0].mean("training_seconds") == pytest.approx((20.5, 0.5))
    assert rows[0].mean("no such") is None


def test_a_single_run_keeps_its_own_error(tmp_path: Path) -> None:
    (row,) = read(write_run(tmp_path / "run", measured(0.9)))
    assert row.mean(ACCURACY) == (0.9, 0.002)
    assert row.mean("training_seconds") == (10.0, None)
    assert (row.model, row.label, row.others) == ("continuous", "continuous", {})


def test_a_number_that_was_not_finite_does_not_count(tmp_path: Path) -> None:
    nothing = {"value": None, "error": None, "unit": "1"}
    runs = [
        write_run(tmp_path / "s" / f"seed~{seed}", measured(0.9, generated_consistency=value))
        for seed, value in enumerate((nothing, quantity(0.5, 0.1, "1")))
    ]
    (row,) = read(*runs)
    assert row.mean("generated_consistency") == (0.5, 0.1)
    (alone,) = read(runs[0])
    assert alone.mean("generated_consistency") is None


@pytest.mark.parametrize(("name", "others", "label"), [
    ("seed~3", {}, "discrete"),
    ("variant~spm", {}, "discrete"),
    ("variant~spm_8000", {}, "discrete"),
    ("variant~medoids_8000_spm_seed~0", {"variant": "medoids"}, "discrete, medoids"),
    ("n_exemplars~26_data.n_train~8000", {"n_exemplars": "26"}, "discrete, n_exemplars 26"),
    ("model~spm_variant~no_gate_seed~1", {"variant": "no_gate"}, "discrete, no_gate"),
])  # fmt: skip
def test_what_else_varies_is_said_once(
    tmp_path: Path, name: str, others: dict[str, str], label: str
) -> None:
    folder = tmp_path / "my_sweep" / name
    (row,) = read(write_run(folder, measured(0.9), model="spm", data={"n_train": 8000}))
    assert (row.n_labelled, row.others, row.label) == (8000, others, label)


def test_points_that_are_called_alike_stay_apart(tmp_path: Path) -> None:
    names = ("variant~spm", "variant~spm_spm")
    rows = read(*(write_run(tmp_path / name, measured(0.9), model="spm") for name in names))
    assert [len(row.runs) for row in rows] == [1, 1]


def test_exemplars_are_labelled_images_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", measured(0.9), model="spm", structure={"n_exemplars": 7})
    (row,) = read(run)
    curve = row.runs[0].curve
    np.testing.assert_array_equal(curve.labelled, STEPS + 70)
    np.testing.assert_array_equal(curve.accuracy, [0.6, 0.7, 0.8])


def test_the_curve_of_the_continuous_model_is_over_labels_at_random(tmp_path: Path) -> None:
    (row,) = read(write_run(tmp_path / "continuous", measured(0.9)))
    np.testing.assert_array_equal(row.runs[0].curve.labelled, [20, 40])
    np.testing.assert_allclose(row.runs[0].curve.accuracy, [0.4, 0.6])


def test_seconds_are_means_over_repeats_as_far_as_measured(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("s\th:m:s\tcpu_time\n2.0\t0:00:02\t1.5\n4.0\t0:00:04\tNA\n")
    assert read_benchmark(path) == {"training_seconds": quantity(3.0, None, "s")}


# --- tables ---------------------------------------------------------------------------------------


def test_the_table_has_the_numbers_with_their_errors(tmp_path: Path) -> None:
    lines = table(read(*sweep(tmp_path))).splitlines()
    assert lines[0] == (
        "| model | labelled images | runs | training (s) | accuracy | right half hidden "
        "| Gaussian noise 0.3 | generated digits consistent | calibration error |"
    )
    assert lines[2] == (
        "| continuous | 5000 | 2 | 20.5(5) | 0.905(5) | 0.724(4) | 0.605(5) | 0.95 | 0.0123 |"
    )
    assert lines[5].startswith("| discrete | 50000 | 2 | 50.5(5) | 0.945(5) |")
    assert lines[6] == ""
    assert lines[7].startswith("In brackets: one standard error")


def test_both_tables_name_what_else_varies(tmp_path: Path) -> None:
    few = measured(0.9, generated_consistency=None)
    runs = [
        write_run(tmp_path / "variant~spm_n_exemplars~26", few, model="spm"),
        write_run(tmp_path / "variant~continuous", few, data={"n_train": 9000}),
    ]
    rows = read(*runs)
    lines = table(rows).splitlines()
    assert lines[0].startswith("| model | labelled images | n_exemplars | runs |")
    assert lines[2].startswith("| discrete | 54000 | 26 | 1 | 10 | 0.900(2) | 0.720(4) |")
    assert lines[3].startswith("| continuous | 9000 | - | 1 | 10 |")
    assert lines[3].endswith("| - | 0.0123 |")
    found = list(csv.DictReader(io.StringIO(comma_separated(rows))))
    assert [(row["model"], row["labelled_images"], row["n_exemplars"]) for row in found] == [
        ("spm", "54000", "26"),
        ("continuous", "9000", ""),
    ]
    for row in found:
        assert (float(row[ACCURACY]), float(row[f"{ACCURACY}_error"])) == (0.9, 0.002)
        assert (row["training_seconds"], row["training_seconds_error"]) == ("10.0", "")
        assert (row["training_cpu_seconds"], row["generated_consistency"]) == ("9.0", "")


# --- the figure -----------------------------------------------------------------------------------


def marks(panel: Axes) -> list[tuple[list[list[float]], list[float], str, str]]:
    """Return places, errors, shape and line of what has error bars, in the order drawn."""
    found = []
    for container in panel.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        errors = (ends[:, 1] - ends[:, 0]) / 2
        places = np.asarray(line.get_xydata()).tolist()
        found.append((places, errors.tolist(), str(line.get_marker()), line.get_linestyle()))
    return found


def thin(panel: Axes) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in panel.lines if line.get_linewidth() == 0.7]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_accuracy_stands_against_the_labelled_images(tmp_path: Path) -> None:
    panel = models(read(*sweep(tmp_path))).axes[0]
    continuous, discrete = marks(panel)
    np.testing.assert_allclose(continuous[0], [[5000, 0.905], [50000, 0.965]])
    np.testing.assert_allclose(continuous[1], 0.005)
    np.testing.assert_allclose(discrete[0], [[5000, 0.855], [50000, 0.945]])
    assert continuous[3] == "-"
    assert discrete[3] == "None", "the way there is drawn instead"
    curves = thin(panel)
    assert len(curves) == 6, "a curve for each run, of the continuous model for the largest"
    for curve in curves[:2]:
        np.testing.assert_allclose(curve, [[20, 0.4], [40, 0.6]])
    for curve in curves[2:]:
        np.testing.assert_allclose(curve, [[130, 0.6], [230, 0.7], [1130, 0.8]])
    left, right = panel.get_xlim()
    assert left < 20
    assert right > 50000
    assert panel.get_xscale() == "log"


def test_seconds_stand_against_the_labelled_images(tmp_path: Path) -> None:
    panel = models(read(*sweep(tmp_path))).axes[1]
    continuous, discrete = marks(panel)
    np.testing.assert_allclose(continuous[0], [[5000, 20.5], [50000, 200.5]])
    np.testing.assert_allclose(discrete[0], [[5000, 5.5], [50000, 50.5]])
    np.testing.assert_allclose(discrete[1], 0.5)
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")


def test_damage_is_that_of_the_runs_with_the_most_images(tmp_path: Path) -> None:
    figure = models(read(*sweep(tmp_path)))
    assert len(figure.axes) == 2 + len(DAMAGE_KINDS)
    for panel, (damage, kind) in zip(figure.axes[2:], DAMAGE_KINDS.items(), strict=True):
        severities = [0.0, *kind.severities]
        for (places, errors, _, _), accuracy in zip(marks(panel), (0.965, 0.945), strict=True):
            expected = [accuracy - 0.1 * number for number in range(len(severities))]
            np.testing.assert_allclose(places, np.transpose([severities, expected]))
            np.testing.assert_allclose(errors, 0.005)
        label = panel.get_xlabel().replace("\n", " ")
        assert label == kind.label + (" (pixels)" if damage == "centre_occlusion" else "")


def test_the_figure_says_what_it_shows(tmp_path: Path) -> None:
    figure = models(read(*sweep(tmp_path)))
    assert legend_of(figure) == ["continuous", "discrete"]
    assert [panel.get_title(loc="left") for panel in figure.axes] == [f"({x})" for x in "abcdef"]
    assert figure.axes[1].get_ylabel() == "seconds of training"
    looks = [(shape, places[0][1]) for places, _, shape, _ in marks(figure.axes[0])]
    assert len({shape for shape, _ in looks}) == 2


def test_only_runs_with_as_many_images_are_damaged(tmp_path: Path) -> None:
    runs = [
        write_run(
            tmp_path / f"n_exemplars~{n}", measured(0.9), model="spm", data={"n_train": n_train}
        )
        for n, n_train in ((5, 6000), (13, 8000), (26, 8000))
    ]
    figure = models(read(*runs))
    assert legend_of(figure) == [f"discrete, n_exemplars {n}" for n in (5, 13, 26)]
    assert len(marks(figure.axes[0])) == 3
    assert [shape for _, _, shape, _ in marks(figure.axes[2])] == [
        shape for _, _, shape, _ in marks(figure.axes[0])[1:]
    ]


def test_a_mask_that_is_known_will_do_where_there_is_no_other(tmp_path: Path) -> None:
    changes: dict[str, Quantity | None] = {}
    for severity in DAMAGE_KINDS["centre_occlusion"].severities:
        changes[f"centre_occlusion_{severity:g}_accuracy_amortised"] = None
    changes["centre_occlusion_8_known_accuracy_amortised"] = quantity(0.7, 0.02, "1")
    figure = models(read(write_run(tmp_path / "run", measured(0.9, **changes))))
    ((places, _, _, _),) = marks(figure.axes[-1])
    assert places == [[0.0, 0.9], [8.0, 0.7]]


@pytest.mark.parametrize("model", ["continuous", "spm"])
def test_seeds_alone_are_one_mark(tmp_path: Path, model: str) -> None:
    runs = [
        write_run(tmp_path / "s" / f"seed~{seed}", measured(0.9 + 0.01 * seed), model=model)
        for seed in range(3)
    ]
    figure = models(read(*runs))
    ((places, errors, _, _),) = marks(figure.axes[0])
    np.testing.assert_allclose(places, [[54000, 0.91]])
    np.testing.assert_allclose(errors, [0.01 / math.sqrt(3)])
    assert len(thin(figure.axes[0])) == 3, "a curve for each seed"


def test_without_damage_and_seconds_there_are_no_such_marks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {ACCURACY: quantity(0.9, 0.002, "1")})
    (run / "benchmarks" / "train.tsv").write_text("s\tcpu_time\nNA\tNA\n")
    figure = models(read(run))
    assert len(figure.axes) == 2
    assert not figure.axes[1].containers


def test_every_series_has_its_own_look(tmp_path: Path) -> None:
    both = []
    for model in ("spm", "continuous"):
        names = [f"variant~{model}{number}" for number in range(9)]
        runs = [write_run(tmp_path / name, measured(0.9), model=model) for name in names]
        alone = [one.style for one in series_of(read(*runs))]
        assert len({tuple(style.values()) for style in alone}) == 9
        assert len({style["color"] for style in alone}) == 6, "all there are"
        both += runs
    found = [one.style for one in series_of(read(*both))]
    assert len({tuple(style.values()) for style in found}) == 18
    assert not {s["color"] for s in found[:9]} & {s["color"] for s in found[9:]}


# --- the stage ------------------------------------------------------------------------------------


def command(out: Path, inputs: Sequence[Sequence[Path]]) -> list[str]:
    outputs = {"data": "models.csv", "table": "models.md"}
    outputs |= {"figure": "models.pdf", "image": "models.png"}
    line = [
        text
        for option, paths in zip(OPTIONS, inputs, strict=True)
        for text in (f"--{option}", *map(str, paths))
    ]
    return [
        *line,
        *(t for option, file in outputs.items() for t in (f"--{option}", str(out / file))),
    ]


def test_stage_writes_the_same_bytes_again(tmp_path: Path) -> None:
    folders = sweep(tmp_path)
    found = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        main(command(folder, files_of(folders)))
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"models.csv", "models.md", "models.pdf", "models.png"}
    rows = read(*folders)
    assert found[0]["models.md"].decode() == table(rows)
    assert found[0]["models.csv"].decode() == comma_separated(rows)
    assert not plt.get_fignums(), "a saved figure is closed"


def complaint(line: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one sentence that the stage ends with, status 2."""
    with pytest.raises(SystemExit) as end:
        run_stage(partial(main, line))
    assert end.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("strata: ")
    assert sentence.count("\n") == 1
    return sentence


@pytest.mark.parametrize("which", range(1, 4))
def test_files_of_different_runs_are_refused(
    which: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = sweep(tmp_path)[:2]
    inputs = files_of(folders)
    inputs[which].reverse()
    assert "are of different runs" in complaint(command(tmp_path / "out", inputs), capsys)
    inputs[which] = inputs[which][:1]
    sentence = complaint(command(tmp_path / "out", inputs), capsys)
    assert f"--{OPTIONS[which]} names 1 files and --runs-settings 2" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "content", "message"), [
    ("analysis.json", None, "cannot be read as JSON"),
    ("analysis.json", '{"quantities": {}}', "holds no clean_accuracy_amortised"),
    ("settings.json", "{}", "the stage contrast reads model and data and structure"),
    ("history.h5", None, "does not exist"),
    ("history.h5", "no HDF5", "is damaged or not an HDF5 file"),
    ("active.h5", None, "does not exist"),
    ("benchmarks/train.tsv", None, "expected a benchmark of Snakemake, with the columns s and"),
    ("benchmarks/train.tsv", "", "expected a benchmark of Snakemake"),
    ("benchmarks/train.tsv", "s\tcpu_time\n", "expected a benchmark of Snakemake"),
    ("benchmarks/train.tsv", "seconds\n1.0\n", "expected a benchmark of Snakemake"),
    ("benchmarks/train.tsv", "s\tcpu_time\nten\t1\n", "expected a benchmark of Snakemake"),
    ("benchmarks/train.tsv", "s\tcpu_time\n10\n", "expected a benchmark of Snakemake"),
])  # fmt: skip
def test_a_file_that_is_none_is_named(
    name: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = "continuous" if name == "active.h5" else "spm"
    run = write_run(tmp_path / "run", measured(0.9), model=model)
    (run / name).unlink()
    if content is not None:
        (run / name).write_text(content)
    sentence = complaint(command(tmp_path / "out", files_of([run])), capsys)
    assert message in sentence
    assert str(run / name) in sentence
    assert not (tmp_path / "out").exists()
