"""Draw how the free energy falls during inference.

Panels: (a) the mean free energy against the iteration, (b) how far it stands above its end, (c) how
many iterations an image takes; of clean images, and of those with the most of them hidden.
Conventions: those of `strata.rgm.conditions`. Imports no torch.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from strata.plotting import COLORS, PAGE_WIDTH, save_figure, styled
from strata.rgm.conditions import CLEAN, Condition, read_conditions
from strata.rgm.damage_kinds import DAMAGE_KINDS
from strata.stages import run_stage, stage_arguments

COURSES = (
    ("black", "-"),
    ("orange", "--"),
    ("green", "-."),
    ("purple", ":"),
    ("sky", (0, (5, 1, 1, 1, 1, 1))),
)
SMALLEST_EXCESS = 1e-3  # nats; what is nearer to the end is not drawn
N_BARS = 30  # of the histogram at most


def shown_courses(conditions: Mapping[str, Condition]) -> list[Condition]:
    """Return the clean condition, and of every way to hide pixels the strongest, by mask."""
    found = [conditions[CLEAN]]
    for damage in (name for name, kind in DAMAGE_KINDS.items() if kind.hides):
        for known in (False, True):
            of_kind = [c for c in conditions.values() if c.damage == damage and c.known == known]
            found += sorted(of_kind, key=lambda condition: condition.severity)[-1:]
    return found


@styled
def free_energy(conditions: Sequence[Condition]) -> Figure:
    """Return the figure of the free energy's course, of at most five conditions."""
    figure, panels = plt.subplots(1, 3, figsize=(PAGE_WIDTH, 2.5))
    course, excess, taken = panels
    longest = max(int(condition.iterations.max()) for condition in conditions)
    width = max(1, -(-(longest + 1) // N_BARS))
    edges = np.arange(0, longest + 1 + width, width) - 0.5
    for condition, (color, linestyle) in zip(conditions, COURSES, strict=False):
        style = {"color": COLORS.get(color, color), "linestyle": linestyle}
        energies = condition.free_energy
        course.plot(energies, label=condition.caption, **style)
        above_end = energies - energies[-1]
        shown = np.where(above_end > SMALLEST_EXCESS, above_end, np.nan)
        excess.plot(shown, **style)
        share = np.histogram(condition.iterations, edges)[0] / len(condition.iterations)
        taken.stairs(share, edges, **style)
    course.set(xlabel="iteration", ylabel="free energy per image (nats)")
    excess.set(xlabel="iteration", ylabel="above the end (nats)", yscale="log")
    taken.set(xlabel="iterations in all", ylabel="share of the images", ylim=(0.0, None))
    for letter, panel in zip("abc", panels, strict=True):
        panel.set_title(f"({letter})", loc="left")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.legend(
        *course.get_legend_handles_labels(), loc="outside upper center", ncols=3, handlelength=3
    )
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["inference"], outputs=["figure", "image"]
    ).parse_args(argv)
    conditions = read_conditions(arguments.inference)
    save_figure(free_energy(shown_courses(conditions)), [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
