"""The models of a sweep side by side: a row for each point of the sweep, its seeds together.

Conventions: a row has a model, the number of labelled images that it was trained on, and whatever
else the sweep varies, by name and value as written; parts of a variant's name that only repeat the
model or the number are left out. Rows stand in the order of the runs. A row's number is that of its
run with its error, or, of several seeds, their mean with the standard error of the mean. Seconds
are wall-clock seconds of the last attempt to train. Imports no torch.
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from strata.artifacts import read_h5, read_json
from strata.config import read_settings
from strata.errors import UserError
from strata.history import read_history
from strata.quantities import Quantity, quantity, read_analysis, with_error
from strata.rgm.conditions import CLEAN
from strata.rgm.config import RunSettings
from strata.rgm.measurements import LABELLED, RANDOM
from strata.summaries import sweep_point
from strata.sweeps import VARIANT

MODELS = {"continuous": "continuous", "spm": "discrete"}  # a value of `model` -> the model in words
OWN_COLUMNS = ("model", "n_train")  # settings that a table has in every case
SEED = "seed"
SECONDS, CPU_SECONDS = "training_seconds", "training_cpu_seconds"
ACCURACY = f"{CLEAN}_accuracy_amortised"
COLUMNS = {
    SECONDS: "training (s)",
    ACCURACY: "accuracy",
    "half_occlusion_0.5_known_accuracy_inferred": "right half hidden",
    "gaussian_0.3_accuracy_amortised": "Gaussian noise 0.3",
    "generated_consistency": "generated digits consistent",
    "calibration_error_amortised": "calibration error",
}
NOT_MEASURED = "NA"
BENCHMARK = {"s": SECONDS, "cpu_time": CPU_SECONDS}  # columns of a benchmark

Estimate = tuple[float, float | None]


@dataclass(frozen=True)
class Curve:
    """Accuracy on test images against the number of labelled images so far."""

    labelled: Integer[np.ndarray, " test"]
    accuracy: Float[np.ndarray, " test"]


@dataclass(frozen=True)
class Run:
    """What was measured of a run, seconds of training included.

    curve: of the discrete model, how it learned, image by image; of the continuous one, what it
        reaches when only so many of its images have labels, chosen at random.
    """

    quantities: Mapping[str, Quantity]
    curve: Curve


@dataclass(frozen=True)
class Row:
    """A point of a sweep, and the runs of its seeds.

    others: what the sweep varies beside the model, the number of images and the seed.
    """

    model: str
    n_labelled: int
    others: Mapping[str, str]
    runs: list[Run]

    @property
    def label(self) -> str:
        """The row in words, less the number of labelled images."""
        words = [
            value if key == VARIANT else f"{key} {value}" for key, value in self.others.items()
        ]
        return ", ".join([MODELS[self.model], *words])

    def estimates(self, name: str) -> list[Estimate]:
        """Return a quantity of every run that has it, with its error."""
        found = [run.quantities[name] for run in self.runs if name in run.quantities]
        return [(entry["value"], entry["error"]) for entry in found if entry["value"] is not None]

    def mean(self, name: str) -> Estimate | None:
        """Return the row's number and its error; None where no run has the quantity."""
        estimates = self.estimates(name)
        if len(estimates) < 2:
            return estimates[0] if estimates else None
        values = [value for value, _ in estimates]
        return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def read_rows(
    settings_files: Sequence[Path],
    analyses: Sequence[Path],
    histories: Sequence[Path],
    actives: Sequence[Path],
    benchmarks: Sequence[Path],
) -> list[Row]:
    """Return the rows of a sweep from five files of each of its runs.

    Args:
        settings_files: `settings.json`, in the run's folder.
        analyses: `analysis.json`.
        histories: `history.h5`.
        actives: `active.h5`.
        benchmarks: of the training, one folder deeper.

    Raises:
        UserError: the files are not of the same runs, or one is missing or something else.
    """
    named = {
        **{"--analyses": analyses, "--histories": histories},
        **{"--actives": actives, "--benchmarks": benchmarks},
    }
    for option, files in named.items():
        if len(files) != len(settings_files):
            raise UserError(
                f"{option} names {len(files)} files and --runs-settings {len(settings_files)}; "
                "name one of each for every run, in one order."
            )
    rows: dict[tuple[str, ...], Row] = {}
    for path, *others in zip(settings_files, analyses, histories, actives, benchmarks, strict=True):
        _check_one_run(path, *others)
        settings = read_settings(RunSettings, path, "contrast")
        point = sweep_point(path.parent.name, read_json(path))
        place = {key: value for key, value in point.items() if key != SEED}
        row = Row(settings.model, settings.data.n_train, _others(place, settings), [])
        key = (*place, *place.values()) if point else (path.parent.name,)
        rows.setdefault(key, row).runs.append(_run(settings, *others))
    return list(rows.values())


def _check_one_run(settings_file: Path, *others: Path) -> None:
    *files, benchmark = others
    folders = {**{path: path.parent for path in files}, benchmark: benchmark.parents[1]}
    for path, folder in folders.items():
        if folder != settings_file.parent:
            raise UserError(
                f"{path} and {settings_file} are of different runs; name the files in one order."
            )


def _others(point: Mapping[str, str], settings: RunSettings) -> dict[str, str]:
    """Return what a point of the sweep says beside the model and the number of its images."""
    others = {
        key: value for key, value in point.items() if key.rpartition(".")[2] not in OWN_COLUMNS
    }
    if VARIANT in others:
        known = {settings.model, str(settings.data.n_train)}
        parts = [part for part in others.pop(VARIANT).split("_") if part not in known]
        if parts:
            others[VARIANT] = "_".join(parts)
    return others


def _run(
    settings: RunSettings, analysis: Path, history: Path, active: Path, benchmark: Path
) -> Run:
    quantities = read_analysis(analysis)
    if ACCURACY not in quantities:
        raise UserError(
            f"{analysis} holds no {ACCURACY}; analyze the run again, or name its analysis.json."
        )
    curve = _learned(history, settings) if settings.model == "spm" else _labelled(active)
    return Run({**quantities, **read_benchmark(benchmark)}, curve)


def _learned(history: Path, settings: RunSettings) -> Curve:
    evaluated = read_history(history, "eval", "step", "accuracy")
    labelled = settings.n_exemplars + evaluated["step"]
    return Curve(labelled, evaluated["accuracy"].astype(np.float64))


def _labelled(active: Path) -> Curve:
    found = read_h5(active, *LABELLED)
    accuracy = found[f"accuracy/{RANDOM}"].astype(np.float64).mean(axis=0)
    return Curve(found["labels_given"], accuracy)


def read_benchmark(path: Path) -> dict[str, Quantity]:
    """Return the seconds of a Snakemake benchmark, means of its repeats.

    Seconds that were not measured (`NA`) are left out.

    Raises:
        UserError: the file is missing, or is no benchmark.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            repeats = list(csv.DictReader(file, delimiter="\t"))
        columns = {column: [repeat[column] for repeat in repeats] for column in BENCHMARK}
        return {
            BENCHMARK[column]: quantity(statistics.fmean(map(float, texts)), None, "s")
            for column, texts in columns.items()
            if NOT_MEASURED not in texts
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected a benchmark of Snakemake, with the columns "
            f"{' and '.join(BENCHMARK)}; train the run again, or name its benchmark."
        ) from error


def table(rows: Sequence[Row]) -> str:
    """Return `models.md`: a line per row."""
    keys = _other_keys(rows)
    header = ["model", "labelled images", *keys, "runs", *COLUMNS.values()]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        others = [row.others.get(key, "-") for key in keys]
        means = [row.mean(name) for name in COLUMNS]
        numbers = ["-" if mean is None else with_error(*mean) for mean in means]
        lines.append(
            [MODELS[row.model], str(row.n_labelled), *others, str(len(row.runs)), *numbers]
        )
    remark = (
        "In brackets: one standard error, in units of the last digit; of several seeds, that of "
        "their mean. Right half hidden: accuracy by inference that knows the mask. Seconds are "
        "wall-clock seconds, on whatever machine a run was trained."
    )
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), f"\n{remark}"]) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Return `models.csv`: a line per row, a column with the error behind each number."""
    keys = _other_keys(rows)
    measured = [SECONDS, CPU_SECONDS, *(name for name in COLUMNS if name != SECONDS)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [column for name in measured for column in (name, f"{name}_error")]
    writer.writerow(["model", "labelled_images", *keys, "runs", *columns])
    for row in rows:
        means = [row.mean(name) or (None, None) for name in measured]
        numbers = [number for mean in means for number in mean]
        others = [row.others.get(key) for key in keys]
        writer.writerow([row.model, row.n_labelled, *others, len(row.runs), *numbers])
    return text.getvalue()


def _other_keys(rows: Sequence[Row]) -> list[str]:
    """Return what the rows differ in beside the model and the number of images, in order."""
    return list(dict.fromkeys(key for row in rows for key in row.others))
