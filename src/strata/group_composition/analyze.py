"""Hold the staircase of every network against the prediction: numbers, tables, verdict.

Written are `analysis.json` (statistics over the networks), `seeds.csv` (a row per network, those
that diverged among them), `staircase.md` (predicted and measured, drop by drop) and `verdict.json`.
Checks are those that the settings ask for (`expected`), of the worst network that did not diverge,
and two that every run has to pass: no network diverged, and the loss begins at |x|^2 / |G|.
Conventions: those of `strata.group_composition.measurements`. Imports no torch.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from strata.artifacts import provenance, settings_behind, written_beside
from strata.config import canonical, read_settings
from strata.errors import UserError
from strata.group_composition.config import ExpectedSettings, RunSettings
from strata.group_composition.measurements import (
    TASK,
    Arrays,
    Climb,
    climbs,
    is_in_order,
    jump_ratios,
    worst_plateau_error,
)
from strata.history import read_history
from strata.layouts import read_arrays
from strata.quantities import Quantity, quantity, write_analysis
from strata.stages import run_stage, stage_arguments
from strata.verdicts import Check, Relation, write_verdict

SMALL_START = 1e-2
"""Largest relative difference of the first loss from |x|^2 / |G|, for networks that begin small."""
THEORY = "theory of irreducible representations, arXiv:2602.03655"


def asked_drops(task: Arrays, expected: ExpectedSettings) -> int:
    """Return how many drops the verdict asks for.

    Raises:
        UserError: more than there are.
    """
    there_are = len(task["drops/after"])
    if expected.n_drops is None:
        return there_are
    if expected.n_drops > there_are:
        raise UserError(
            f"expected.n_drops asks for {expected.n_drops} drops; theory predicts {there_are}."
        )
    return expected.n_drops


def asked_plateaus(task: Arrays, expected: ExpectedSettings) -> tuple[int, ...]:
    """Return the numbers of the plateaus that the verdict asks for, 1 after the first drop.

    Raises:
        UserError: one that is no plateau.
    """
    there_are = len(task["drops/after"]) - 1
    if expected.plateaus is None:
        return tuple(range(1, min(asked_drops(task, expected), there_are) + 1))
    wrong = [number for number in expected.plateaus if not 1 <= number <= there_are]
    if wrong:
        raise UserError(
            f"expected.plateaus asks for plateau {wrong[0]}; theory predicts {there_are}, counted "
            "from 1."
        )
    return expected.plateaus


def seed_table(
    task: Arrays, found: Sequence[Climb], first_seed: int, expected: ExpectedSettings
) -> pd.DataFrame:
    """Return a row per network; empty where a network that diverged has no value."""
    n_drops, numbers = asked_drops(task, expected), asked_plateaus(task, expected)
    rows = []
    for seed, climb in enumerate(found, start=first_seed):
        is_whole = climb.diverged_at is None
        ratios = jump_ratios(task, climb, n_drops)
        has_ratios = is_whole and len(ratios) > 0 and bool(np.isfinite(ratios).all())
        rows.append(
            {
                "seed": seed,
                "status": "completed" if is_whole else "diverged",
                "diverged_at": climb.diverged_at,
                "initial_loss": climb.initial,
                "final_loss": climb.final if is_whole else None,
                "reduction": climb.final / task["drops/before"][0] if is_whole else None,
                "n_drops": climb.n_drops if is_whole else None,
                "in_order": int(is_in_order(task, climb, n_drops)) if is_whole else None,
                "worst_plateau_error": worst_plateau_error(climb, numbers) if is_whole else None,
                "smallest_jump_ratio": float(ratios.min()) if has_ratios else None,
                "largest_jump_ratio": float(ratios.max()) if has_ratios else None,
            }
        )
    return pd.DataFrame(rows)


def quantities(table: pd.DataFrame) -> dict[str, Quantity]:
    """Return mean (with standard error), spread and extremes of every column over the networks."""
    whole = table[table["status"] == "completed"]
    found = {
        "n_networks": quantity(float(len(table)), None, "1"),
        "n_diverged": quantity(float(len(table) - len(whole)), None, "1"),
    }
    for name in table.columns.drop(["seed", "status", "diverged_at"]):
        values = whole[name].dropna().to_numpy(dtype=np.float64)
        if not len(values):
            continue
        with np.errstate(invalid="ignore"):  # infinite errors have no spread
            error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
            found[name] = quantity(float(values.mean()), error, "1")
            spread = {"min": values.min(), "max": values.max(), "median": np.median(values)}
            spread["sd"] = values.std(ddof=1) if len(values) > 1 else math.nan
            for statistic, value in spread.items():
                found[f"{name}_{statistic}"] = quantity(float(value), None, "1")
    return found


def checks(
    task: Arrays,
    found: Sequence[Climb],
    table: pd.DataFrame,
    expected: ExpectedSettings,
    *,
    begins_small: bool = True,
) -> list[Check]:
    """Return the run's checks; the loss of networks that begin small is |x|^2 / |G| at first."""
    whole = table[table["status"] == "completed"]
    n_diverged = len(table) - len(whole)
    result = [
        Check("networks that diverged", float(n_diverged), "at most", 0.0, 0.0, "1", "every run")
    ]

    def worst(column: str, relation: Relation) -> float:
        values = whole[column].dropna().to_numpy(dtype=np.float64)
        if len(values) < len(table) - n_diverged or not len(values):
            return math.nan
        return float(values.min() if relation == "at least" else values.max())

    def ask(name: str, column: str, relation: Relation, limit: float | None) -> None:
        if limit is not None:
            value = worst(column, relation)
            result.append(Check(name, value, relation, limit, 0.0, "1", THEORY))

    n_drops = asked_drops(task, expected)
    if n_drops:
        ask("drops made", "n_drops", "at least", float(n_drops))
    if n_drops and expected.in_order:
        ask("learns in the predicted order (1: yes)", "in_order", "at least", 1.0)
    if asked_plateaus(task, expected):
        ask(
            "relative error of plateau heights",
            "worst_plateau_error",
            "at most",
            expected.plateau_error,
        )
    if expected.jump_ratio is not None:
        low, high = expected.jump_ratio
        ask("smallest jump step over predicted", "smallest_jump_ratio", "at least", low)
        ask("largest jump step over predicted", "largest_jump_ratio", "at most", high)
    ask("final loss over the initial one", "reduction", "at most", expected.final_reduction)
    if expected.final_plateau is not None:
        result.append(_stall(task, whole, expected))
    return [_start(task, found), *result] if begins_small else result


def _start(task: Arrays, found: Sequence[Climb]) -> Check:
    predicted = float(task["drops/before"][0])
    measured = max((climb.initial for climb in found), key=lambda loss: abs(loss - predicted))
    return Check(
        "loss at the first step",
        measured,
        "equals",
        predicted,
        SMALL_START * predicted,
        "1",
        THEORY,
    )


def _stall(task: Arrays, whole: pd.DataFrame, expected: ExpectedSettings) -> Check:
    """Return the check that the loss stays on a plateau; tolerance as for heights."""
    levels = [*task["drops/before"], task["drops/after"][-1]]
    number = expected.final_plateau or 0
    if number >= len(levels):
        raise UserError(
            f"expected.final_plateau asks for {number} drops; theory predicts {len(levels) - 1}."
        )
    height = float(levels[number])
    losses = whole["final_loss"].to_numpy(dtype=np.float64)
    measured = float(losses[np.abs(losses - height).argmax()]) if len(losses) else math.nan
    tolerance = (expected.plateau_error or 0.01) * height
    name = f"final loss, on plateau {expected.final_plateau}"
    return Check(name, measured, "equals", height, tolerance, "1", THEORY)


def staircase_table(task: Arrays, found: Sequence[Climb]) -> str:
    """Return `staircase.md`: drop by drop, predicted and measured (median and range)."""
    names = [name.decode() for name in task["irreps/name"]]
    columns = ["drop", "representations", "not before step", "measured", "ratio"]
    columns += ["plateau after", "measured", "relative error"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    whole = [climb for climb in found if climb.diverged_at is None]
    for number, (step, after) in enumerate(
        zip(task["drops/step"], task["drops/after"], strict=True)
    ):
        members = np.unique(task["components/irrep"][task["components/drop"] == number])
        times = [climb.steps[number] for climb in whole]
        is_last = number == len(task["drops/after"]) - 1
        heights = [] if is_last else [climb.heights[number] for climb in whole]
        errors = [] if is_last else [climb.plateau_errors[number] for climb in whole]
        ratios = np.array(times) / (step or math.nan)
        lines.append(
            f"| {number + 1} | {', '.join(names[i] for i in members)} | {_in_words([step], ',.0f')}"
            f" | {_in_words(times, ',.0f')} | {_in_words(ratios, '.2f')} | "
            f"{after:.6g} | {_in_words(heights, '.6g')} | {_in_words(errors, '.2g')} |"
        )
    return "\n".join(lines) + "\n"


def _in_words(values: Sequence[float] | np.ndarray, form: str) -> str:
    """Return median and range of the finite values, and how many are missing."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return "-"
    middle, low, high = np.median(finite), min(finite), max(finite)
    words = f"{middle:{form}}"
    if high > low:
        words += f" ({low:{form}} to {high:{form}})"
    missing = len(values) - len(finite)
    return f"{words}, {missing} without" if missing else words


def _written(path: Path, text: str) -> None:
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "task", "history"],
        outputs=["analysis", "seeds", "staircase", "verdict"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    behind = settings_behind([arguments.task, arguments.history], settings.sections_of("analyze"))
    task = read_arrays(arguments.task, TASK)
    train = read_history(arguments.history, "train", "step", "losses")
    evaluations = read_history(arguments.history, "eval", "step", "losses", "coefficients")
    found = climbs(task, train, evaluations)
    first_seed = behind.get("seeds", {}).get("init", 0)
    table = seed_table(task, found, first_seed, settings.expected)
    begins_small = behind.get("model", {}).get("start") != "exact"
    verdict = checks(task, found, table, settings.expected, begins_small=begins_small)
    origin = provenance(canonical(behind))
    write_analysis(arguments.analysis, quantities(table), origin)
    _written(arguments.seeds, table.to_csv(index=False))
    _written(arguments.staircase, staircase_table(task, found))
    write_verdict(arguments.verdict, verdict, origin)


if __name__ == "__main__":
    run_stage(main)
