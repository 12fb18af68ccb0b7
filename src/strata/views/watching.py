"""`strata watch`: the runs that are being made, told from their live histories and processes.

Conventions: a metric is the one that the family watches (`strata.curves.Curve`), as of the last
evaluation that is written; a vector of exact values (plateaus) is shown by the nearest. Memory in
MiB. Imports no torch.
"""

import os
import shutil
import sys
import time
from collections.abc import Sequence

import numpy as np

from strata.config import RunSettings
from strata.curves import Curve
from strata.errors import UserError
from strata.experiments import Experiment
from strata.heartbeat import Heartbeat
from strata.history import read_history
from strata.monitored import evaluations, exact_values
from strata.processes import RunningStage, running_stages
from strata.standings import LIVE_HISTORY, heartbeat
from strata.views.selection import RESULTS, chosen, experiments_here
from strata.views.tables import aligned, cut, duration, show

HEADER = ("run", "step", "metric", "exact", "rate", "left", "memory", "on", "saved")
SECONDS_BETWEEN_FRAMES = 2.0
PATIENCE = 10.0  # seconds for which nothing may run: between two stages nothing does
CLEAR, HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"

Row = tuple[str, ...]


def watch(names: Sequence[str], *, once: bool) -> None:
    """Show the running experiments of these names, or all, until nothing runs any more.

    They are printed once with `once`, or where there is no terminal to redraw.

    Raises:
        UserError: there is no workflow here, a setting is wrong, or a name is unknown.
    """
    experiments = chosen(experiments_here(), names)
    if once or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        show(frame(experiments, time.time())[0])
        return
    _watch_on_terminal(experiments)


def _watch_on_terminal(experiments: Sequence[Experiment]) -> None:
    print(CLEAR, end="")
    last_running = time.monotonic()
    while True:
        lines, something_runs = frame(experiments, time.time())
        now = time.monotonic()
        if something_runs:
            last_running = now
        done = now - last_running > PATIENCE
        hint = "Nothing runs any more." if done else "Ctrl-C leaves; the runs go on."
        columns, rows = shutil.get_terminal_size()
        lines = [*lines[: rows - 3], "", hint]
        print(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in cut(lines, columns)), end="")
        print(CLEAR_BELOW, end="", flush=True)
        if done:
            return
        time.sleep(SECONDS_BETWEEN_FRAMES)


def frame(experiments: Sequence[Experiment], now: float) -> tuple[list[str], bool]:
    """Return the lines that show the runs of these experiments, and whether any of them runs.

    What runs comes first; then what was stopped and can go on.
    """
    runs = {name: run for experiment in experiments for name, run in experiment.runs.items()}
    stages = running_stages(RESULTS, runs)
    running: list[Row] = []
    stopped: list[Row] = []
    for name, settings in runs.items():
        of_run = [stage for stage in stages if stage.run == name]
        beat = heartbeat(RESULTS / name / LIVE_HISTORY)
        liveness = None if beat is None else beat.liveness(now)
        if beat is not None and liveness == "running":
            trains = {stage.stage for stage in of_run if stage.process == beat.process}
            of_run = [stage for stage in of_run if stage.stage not in trains]
            running.append(_row_of_training(name, settings, beat, now))
        running += [_row_of_stage(stage, now) for stage in _one_of_each(of_run)]
        if beat is not None and liveness != "running" and not of_run:
            stopped.append(_row_of_stopped(name, settings, beat, now))
    if not running and not stopped:
        return ["No run of these experiments is being made."], False
    lines = aligned(HEADER, [*running, *stopped], right="rate left memory")
    return lines, bool(running)


def _one_of_each(stages: Sequence[RunningStage]) -> list[RunningStage]:
    """Return one process of each stage: a stage may be several processes."""
    return list({stage.stage: stage for stage in reversed(stages)}.values())[::-1]


def _row_of_training(run: str, settings: RunSettings, beat: Heartbeat, now: float) -> Row:
    metric, exact = metric_and_exact(run, settings.curve)
    left = beat.seconds_left(now)
    memory = f"{beat.memory:.0f} MiB"
    if beat.device_memory:
        memory += f" + {beat.device_memory:.0f} MiB"
    return (
        run,
        f"{beat.step} of {beat.steps} ({100 * beat.step // beat.steps} %)",
        metric,
        exact,
        "" if beat.rate is None else rate_in_words(beat.rate),
        "" if left is None else duration(left),
        memory,
        f"{beat.device}, {beat.host}",
        f"{duration(beat.age(now))} ago",
    )


def _row_of_stopped(run: str, settings: RunSettings, beat: Heartbeat, now: float) -> Row:
    metric, exact = metric_and_exact(run, settings.curve)
    word = "silent" if beat.liveness(now) == "silent" else "stopped"
    where = f"{beat.device}, {beat.host}"
    step = f"{word} at {beat.step} of {beat.steps}"
    return run, step, metric, exact, "", "", "", where, f"{duration(beat.age(now))} ago"


def _row_of_stage(stage: RunningStage, now: float) -> Row:
    since = duration(max(0.0, now - stage.started))
    memory = f"{stage.memory:.0f} MiB"
    return stage.run, f"{stage.stage} for {since}", "", "", "", "", memory, "", ""


def metric_and_exact(run: str, curve: Curve) -> tuple[str, str]:
    """Return a run's present metric and what it is held against, in words.

    Before the first evaluation that is the loss of the last recorded step, and before the exact
    answer is made, nothing.
    """
    live = RESULTS / run / LIVE_HISTORY
    try:
        present = float(evaluations(live, curve)[1][-1])
    except (UserError, OSError):
        return _training_loss(run), ""
    unit = "" if curve.unit == "1" else f" {curve.unit}"
    try:
        exact = exact_values(RESULTS, run, curve)
    except (UserError, OSError):
        exact = np.empty(0)
    return f"{curve.metric} {present:.6g}{unit}", _held_against(present, exact, curve)


def _held_against(present: float, exact: np.ndarray, curve: Curve) -> str:
    if not len(exact):
        return ""
    nearest = int(np.argmin(np.abs(exact - present)))
    which = f", {nearest + 1} of {len(exact)}" if len(exact) > 1 else ""
    return f"{exact[nearest]:.6g} ({curve.exact.label}{which})"


def _training_loss(run: str) -> str:
    try:
        loss = read_history(RESULTS / run / LIVE_HISTORY, "train", "loss")["loss"]
    except (UserError, OSError):
        return ""
    return f"loss {np.mean(loss[-1]):.6g} (training)"


def rate_in_words(rate: float) -> str:
    """Return steps per second, or the time of one step if that is longer than a second."""
    return f"{rate:.3g} steps/s" if rate >= 1 else f"{1 / rate:.3g} s/step"
