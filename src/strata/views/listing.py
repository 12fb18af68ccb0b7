"""`strata ls`: the experiments, where each stands, and how it was judged.

Imports no torch.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from strata.experiments import Experiment
from strata.processes import running_stages
from strata.standings import Standing, Verdict, Word, standing_of, verdict_of
from strata.views.selection import RESULTS, chosen, experiments_here
from strata.views.tables import aligned, show

HEADER = ("experiment", "family", "runs", "verdict", "state")


@dataclass(frozen=True)
class Line:
    """One line of the list: an experiment, or one run of a sweep.

    `passed` of `checks` checks hold in the runs that were judged; `outdated` of these were made
    with other settings than they have now, and the verdicts of `damaged` cannot be read.
    """

    name: str
    family: str
    runs: int
    state: Word
    detail: str
    passed: int
    checks: int
    outdated: int
    damaged: int

    @property
    def verdict(self) -> str:
        """How many checks passed, and what is wrong with it; nothing before a verdict."""
        words = [f"{self.passed} of {self.checks}"] if self.checks else []
        if self.outdated:
            words.append("outdated" if self.outdated == self.runs else f"{self.outdated} outdated")
        return ", ".join([*words, *["damaged"] * bool(self.damaged)])

    def cells(self) -> tuple[str, ...]:
        """Return what stands in the columns; the run of a sweep is set in."""
        experiment, _, point = self.name.partition("/")
        state = f"{self.state}: {self.detail}" if self.detail else self.state
        label = f"  {point}" if point else experiment
        return label, self.family, "" if point else str(self.runs), self.verdict, state


def list_experiments(names: Sequence[str], *, as_json: bool) -> None:
    """Print the experiments of these names, or all; a sweep that is named, run by run as well.

    Raises:
        UserError: there is no workflow here, a setting is wrong, or a name is unknown.
    """
    lines = listed(chosen(experiments_here(), names), set(names), time.time())
    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False))
    else:
        show(aligned(HEADER, [line.cells() for line in lines], right="runs"))


def listed(experiments: Sequence[Experiment], unfolded: set[str], now: float) -> list[Line]:
    """Return the lines of these experiments, and of the runs of those to be unfolded.

    Args:
        experiments: which, in the order of the lines.
        unfolded: names of the sweeps whose runs have lines of their own.
        now: the time, in seconds since the epoch.
    """
    stages = running_stages(RESULTS, [run for e in experiments for run in e.runs])
    lines = []
    for experiment in experiments:
        states, verdicts = {}, {}
        for name, settings in experiment.runs.items():
            of_run = [stage for stage in stages if stage.run == name]
            products = experiment.products_of(name)
            states[name] = standing_of(RESULTS / name, products, of_run, now)
            verdicts[name] = verdict_of(RESULTS / name, settings)
        whole = (
            sweep_standing(experiment, states) if experiment.is_sweep else states[experiment.name]
        )
        lines.append(_line(experiment.name, experiment, whole, list(verdicts.values())))
        if experiment.is_sweep and experiment.name in unfolded:
            lines += [_line(run, experiment, states[run], [verdicts[run]]) for run in states]
    return lines


def _line(
    name: str, experiment: Experiment, state: Standing, verdicts: Sequence[Verdict | None]
) -> Line:
    judged = [verdict for verdict in verdicts if verdict is not None]
    return Line(
        name,
        experiment.family,
        len(verdicts),
        state.word,
        state.detail,
        passed=sum(verdict.passed for verdict in judged),
        checks=sum(verdict.checks for verdict in judged),
        outdated=sum(verdict.is_outdated for verdict in judged),
        damaged=sum(verdict.is_damaged for verdict in judged),
    )


def sweep_standing(experiment: Experiment, states: Mapping[str, Standing]) -> Standing:
    """Return where a sweep stands: the most pressing word of its runs, and how many are done.

    A sweep is done when its runs are, and the files that it ends in beside them are there.
    """
    counts = Counter(state.word for state in states.values())
    word = min(counts, key=get_args(Word).index)
    done = f"{counts['done']} of {len(states)} runs done"
    if word == "not run":
        return Standing(word)
    if word in ("partly done", "done"):
        missing = [name for name in experiment.sweep_files if not (RESULTS / name).exists()]
        if counts["done"] < len(states):
            return Standing("partly done", done)
        return (
            Standing("partly done", f"{', '.join(missing)} missing") if missing else Standing(word)
        )
    name, first = next((name, state) for name, state in states.items() if state.word == word)
    which = f"{name.partition('/')[2]}: {first.detail}"
    return Standing(word, f"{counts[word]} of {len(states)} runs ({which}), {counts['done']} done")
