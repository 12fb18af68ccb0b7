"""Draw how the accuracy grows with the number of labels, by the strategy that asks for them.

Panels: (a) the accuracy, mean over the repeats and a band of one standard error, and, dashed, what
all labels give; (b) the gain over random choice, paired by repeat. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.plotting import COLORS, EXACT_LINE, save_figure, stacked_panels, styled
from strata.rgm.measurements import LABELLED, RANDOM
from strata.rgm.scores import mean_estimate, paired_gain
from strata.stages import run_stage, stage_arguments

STRATEGIES = {  # in the order of the legend
    RANDOM: ("0.45", "-"),
    "entropy": (COLORS["blue"], "--"),
    "margin": (COLORS["orange"], "-."),
    "mutual_information": (COLORS["green"], ":"),
    "information_gain": (COLORS["sky"], (0, (3, 1, 1, 1))),
    "evidence": (COLORS["purple"], (0, (1, 1))),
    "diversity": (COLORS["vermilion"], (0, (5, 1, 1, 1, 1, 1))),
}


@styled
def active_learning(active: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `active.h5` for the arrays, of which some strategies may lack."""
    figure, (course, advantage) = stacked_panels([2.4, 1.7], title="active learning")
    labels = active["labels_given"]
    random = active[f"accuracy/{RANDOM}"].astype(float)
    for name, (color, linestyle) in STRATEGIES.items():
        if f"accuracy/{name}" not in active:
            continue
        series = active[f"accuracy/{name}"].astype(float)
        panels = [(course, [mean_estimate(column) for column in series.T])]
        if name != RANDOM:
            pairs = zip(series.T, random.T, strict=True)
            panels.append((advantage, [paired_gain(*pair) for pair in pairs]))
        for panel, estimates in panels:
            mean, error = np.transpose(estimates)
            panel.plot(labels, mean, color=color, linestyle=linestyle, label=_words(name))
            panel.fill_between(labels, mean - error, mean + error, color=color, alpha=0.2, lw=0)
    best = float(active["all_labels_accuracy"])
    course.axhline(best, label=f"all labels: {best:.4f}", **EXACT_LINE)
    course.set_ylabel("accuracy")
    course.legend(loc="best", handlelength=3)
    advantage.axhline(0.0, color="0.45", linewidth=0.8, zorder=0)
    advantage.set(xlabel="number of labels", ylabel="gain over\nrandom choice")
    advantage.margins(x=0.0)
    return figure


def _words(strategy: str) -> str:
    return strategy.replace("_", " ")


def read_active(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an `active.h5`.

    Raises:
        UserError: the file is missing or damaged, is something else, or holds a strategy with
            another number of repeats or of labels than random choice.
    """
    active = read_h5(path, *LABELLED)
    shape = (len(active[f"accuracy/{RANDOM}"]), len(active["labels_given"]))
    for name in STRATEGIES:
        series = active.get(f"accuracy/{name}")
        if series is not None and series.shape != shape:
            raise UserError(
                f"{path}: expected {shape[0]} repeats at {shape[1]} numbers of labels of "
                f"{_words(name)}; got an array of shape {series.shape}; query again."
            )
    return active


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, inputs=["active"], outputs=["figure", "image"]).parse_args(
        argv
    )
    save_figure(active_learning(read_active(arguments.active)), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
