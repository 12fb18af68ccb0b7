"""Time to quality: seconds of training until a flow's gap to the exact -ln Z_x is below a mark.

It is the stage `strata.neural_rg.train` that runs, with the experiment's own settings (its own
schedule of the learning rate too), in a temporary folder; its learner is one that looks at the
clock when it is evaluated. The gap is the variational bound minus the exact -ln Z_x, over
`evaluation_batch` samples; where weights are averaged it is that of the averaged weights, which
are what a run ends with. Evaluations come at multiples of `--every` steps, later ones ever farther
apart: by a tenth of the steps until then.

Counted, as wall time: all that a run does from its first step on (chains, loss, gradient,
optimizer, what is compiled or captured in the first steps, records, snapshots, and checkpoints,
which go to the temporary folder), and drawing the exact samples, where the settings learn from
them. Not counted: evaluations, the import of torch, building the network and moving it to the
device. On a GPU the clock is read once the device has done what it was asked to. What reaches the
mark is the first evaluation below it: between two evaluations the gap is not known, and noise of
the size of its error may put it there early.

    python benchmarks/neural_rg_quality.py --experiments mera_L8 --seconds 600 --csv cpu.csv
    python benchmarks/neural_rg_quality.py --draw cpu.csv h200.csv --figure quality.pdf

The first writes a row per evaluation: experiment, device, threads, step, seconds, gap, error; give
`--device cuda` for a GPU, and OMP_NUM_THREADS for threads. The second draws tables that were
written so, beside the original's cost: 3.8 hours on one core to train its own L = 8 network to the
gap of 1.65 nats. A Markdown table of the seconds that each took goes to standard output.
"""

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from strata.config import nearest_names
from strata.devices import resolve_device, set_threads
from strata.errors import Interrupted, UserError
from strata.experiments import load_experiments
from strata.neural_rg import generate, train
from strata.neural_rg.config import RunSettings
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.solve import solve
from strata.plotting import COLORS, PAGE_WIDTH, plain_log_axis, save_figure, styled
from strata.stages import run_stage

EXPERIMENTS = Path(__file__).parents[1] / "config" / "neural_rg.yaml"
COLUMNS = ("experiment", "device", "threads", "step", "seconds", "gap", "error")
GROWTH = 1.1  # from the step of one evaluation to that of the next, at least
ORIGINAL_HOURS = 3.8

Table = pd.DataFrame


@dataclass
class Clock:
    """Seconds of training, the evaluations among them left out, and what these found."""

    device: torch.device
    limit: float
    exact_free_energy: float
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    started: float = 0.0

    def start(self) -> None:
        """Count from now on."""
        self._wait()
        self.started = time.perf_counter()

    def stop(self) -> None:
        """Count no longer."""
        self._wait()
        self.seconds += time.perf_counter() - self.started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def note(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Keep what an evaluation found."""
        gap = metrics["variational"].item() - self.exact_free_energy
        error = metrics["variational_error"].item()
        self.rows.append({"step": step, "seconds": self.seconds, "gap": gap, "error": error})
        print(f"step {step}, {self.seconds:.2f} s: gap {gap:.4g} nats", flush=True)


class TimedLearner(FlowLearner):
    """The learner of the stage, whose evaluations stop the clock, and grow rarer as time goes on.

    An evaluation that is left out returns what the last one found. Raises Interrupted at the limit.
    """

    def __init__(self, clock: Clock, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._clock = clock
        self._step = self._last = 0
        self._found: Mapping[str, Tensor] = {}
        clock.start()

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss and its parts; remember which step it is."""
        self._step = step + 1
        return super().training_step(step)

    def evaluate(self) -> Mapping[str, Tensor]:
        """Return the quality of the present weights; note it, and the time."""
        self._clock.stop()
        if self._step >= GROWTH * self._last or self._step == self.settings.steps:
            self._last, self._found = self._step, super().evaluate()
            self._clock.note(self._step, self._found)
        if self._clock.seconds > self._clock.limit:
            raise Interrupted(f"stopped after {self._clock.seconds:.0f} s of training")
        self._clock.start()
        return self._found


def timed_run(name: str, settings: RunSettings, every: int, device: str, limit: float) -> Table:
    """Train a run for some seconds at most, and return a row per evaluation.

    Raises:
        UserError: the run depends on where it is evaluated.
    """
    own = settings.training
    if own.schedule == "plateau" or own.patience is not None:
        raise UserError(
            f"{name}: patience and the schedule plateau count a run's own evaluations, and here "
            "there are others; name an experiment without them."
        )
    training = own.model_copy(update={"evaluate_every": every})
    settings = settings.model_copy(update={"training": training})
    place, _ = resolve_device(device)
    clock = Clock(place, limit, -solve(settings.target)[0]["log_partition_field"])
    with tempfile.TemporaryDirectory() as folder:
        try:
            _train(settings, clock, Path(folder), device)
        except (Interrupted, UserError) as end:
            print(f"{name}: {end}", flush=True)
    where = torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU"
    about = {"experiment": name, "device": where, "threads": torch.get_num_threads()}
    return pd.DataFrame([{**about, **row} for row in clock.rows], columns=list(COLUMNS))


def _train(settings: RunSettings, clock: Clock, folder: Path, device: str) -> None:
    """Run the stage, and before it the one that draws exact samples, where they are learnt from."""
    files = {name: folder / name for name in ("settings.json", "samples.h5")}
    files["settings.json"].write_text(settings.canonical_json(), encoding="utf-8")
    line = [f"--settings={files['settings.json']}"]
    data = []
    if settings.training.data == "exact":
        clock.start()
        generate.main([*line, f"--samples={files['samples.h5']}"])
        clock.stop()
        print(f"exact samples: {clock.seconds:.2f} s", flush=True)
        data = [f"--data={files['samples.h5']}"]
    outputs = [f"--history={folder / 'history.h5'}", f"--model={folder / 'model.pt'}"]
    with mock.patch.object(train, "FlowLearner", functools.partial(TimedLearner, clock)):
        train.main([*line, *data, *outputs, f"--device={device}"])


# --- the table and the figure ---------------------------------------------------------------------


def read_tables(paths: Sequence[Path]) -> Table:
    """Return the rows of all tables, one below the other.

    Raises:
        UserError: a file is none that this program wrote.
    """
    tables = []
    for path in paths:
        try:
            tables.append(pd.read_csv(path))
        except (OSError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise UserError(f"{path}: cannot be read as a table ({problem}).") from error
        missing = [name for name in COLUMNS if name not in tables[-1]]
        if missing:
            raise UserError(f"{path} holds no {' and no '.join(missing)}; name one written here.")
    return pd.concat(tables, ignore_index=True)


def curves(table: Table) -> dict[str, Table]:
    """Return the rows of each run on each device, in the order of the table."""
    found = {}
    for (name, device, threads), rows in table.groupby(list(COLUMNS[:3]), sort=False):
        cores = f", {threads} thread{'s' * (threads != 1)}" if device == "CPU" else ""
        found[f"{name}, {device}{cores}"] = rows
    return found


def first_below(rows: Table, gap: float) -> pd.Series | None:
    """Return the first evaluation below a gap, if there is one."""
    below = rows[rows["gap"] < gap]
    return below.iloc[0] if len(below) else None


def rounded(number: float) -> str:
    """Return a number of two digits, or more before the point, without an exponent."""
    return f"{number:,.0f}" if number >= 10.0 else f"{number:.2g}"


def report(table: Table, gap: float) -> str:
    """Return a Markdown table of the seconds that each run took to get below a gap."""
    lines = [
        f"| run | step of the first evaluation below {gap:g} nats | seconds of training | "
        f"{ORIGINAL_HOURS:g} h over that | lowest gap (nats) |",
        "|---|---|---|---|---|",
    ]
    for label, rows in curves(table).items():
        first, lowest = first_below(rows, gap), f"{rows['gap'].min():.3g}"
        cells = ["-", "-", "-"]
        if first is not None:
            ratio = 3600 * ORIGINAL_HOURS / first["seconds"]
            cells = [f"{first['step']:.0f}", rounded(first["seconds"]), rounded(ratio)]
        lines.append(f"| {' | '.join([label, *cells, lowest])} |")
    return "\n".join(lines)


@styled
def figure_of(table: Table, gap: float) -> Figure:
    """Return the figure: gap against seconds of training, with the mark and the original's cost."""
    figure, panel = plt.subplots(figsize=(PAGE_WIDTH, 3.4))
    colors = itertools.cycle(COLORS.values())
    for color, (label, rows) in zip(colors, curves(table).items(), strict=False):
        _curve(panel, rows[rows["gap"] > 0.0], gap, color, label)
    panel.set(xscale="log", xlabel="training (s)", ylabel="gap to exact (nats)")
    plain_log_axis(panel)
    panel.axhline(gap, color="0.4", linestyle=(0, (4, 2)), linewidth=1.0, label=f"{gap:g} nats")
    original = 3600 * ORIGINAL_HOURS
    panel.axvline(original, color="black", linestyle=":", linewidth=1.0)
    panel.annotate(
        f"original: {ORIGINAL_HOURS:g} h on one core",
        (original, 0.03),
        xycoords=panel.get_xaxis_transform(),
        xytext=(-3, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="bottom",
        size=7,
    )
    panel.legend(loc="lower left", bbox_to_anchor=(0.45, 0.0))
    return figure


def _curve(panel: Axes, rows: Table, gap: float, color: str, label: str) -> None:
    """Draw a run, with a star and the seconds where it first falls below the gap."""
    panel.errorbar(
        rows["seconds"], rows["gap"], rows["error"], color=color, label=label, fmt=".-",
        markersize=3, linewidth=0.8, elinewidth=0.6,
    )  # fmt: skip
    first = first_below(rows, gap)
    if first is not None:
        place = (first["seconds"], first["gap"])
        panel.plot(*place, "*", color=color, markersize=10, markeredgecolor="black", zorder=6)
        panel.annotate(
            f"{rounded(first['seconds'])} s", place, xytext=(5, 6), textcoords="offset points",
            ha="left", va="bottom", size=7,
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Train, tabulate and draw, as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", nargs="+", default=[], metavar="NAME", help="to be timed")
    parser.add_argument("--csv", type=Path, help="where their rows are written")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<number>")
    parser.add_argument("--seconds", type=float, default=600.0, help="limit of each training")
    parser.add_argument("--every", type=int, default=5, help="steps from evaluation to evaluation")
    parser.add_argument("--gap", type=float, default=1.65, help="the mark, in nats")
    parser.add_argument("--draw", nargs="+", type=Path, default=[], metavar="CSV", help="tables")
    parser.add_argument("--figure", type=Path, help="where they are drawn: .pdf, .png or .svg")
    arguments = parser.parse_args(argv)
    if bool(arguments.experiments) != bool(arguments.csv):
        parser.error("--experiments and --csv go together.")
    if not arguments.experiments and not arguments.draw:
        parser.error("name --experiments to be timed, or tables to --draw.")
    set_threads()
    known = {
        name: run
        for experiment in load_experiments("neural_rg", EXPERIMENTS).values()
        for name, run in experiment.runs.items()
    }
    unknown = [name for name in arguments.experiments if name not in known]
    if unknown:
        near = ", ".join(nearest_names(unknown[0], known))
        raise UserError(f"{EXPERIMENTS}: there is no run {unknown[0]!r}; nearest known: {near}.")
    tables = []
    for name in arguments.experiments:
        tables.append(
            timed_run(name, known[name], arguments.every, arguments.device, arguments.seconds)
        )
        pd.concat(tables).to_csv(arguments.csv, index=False)
    table = read_tables([*arguments.draw, *([arguments.csv] if arguments.csv else [])])
    print(report(table, arguments.gap))
    if arguments.figure is not None:
        save_figure(figure_of(table, arguments.gap), [arguments.figure])


if __name__ == "__main__":
    run_stage(main)
