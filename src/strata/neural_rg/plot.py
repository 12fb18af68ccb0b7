"""Draw loss and acceptance against training steps, with the exact answer in the figure.

Panels: (a) the variational free energy <ln p - ln pi~> and the exact -ln Z_x that bounds it from
below; (b) their difference, on a logarithmic axis; (c) the acceptance of the chains. Imports no
torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.artifacts import check_origin
from strata.config import read_settings
from strata.history import read_history
from strata.neural_rg.config import RunSettings
from strata.neural_rg.exact import read_exact
from strata.plotting import (
    COLORS,
    EXACT_LINE,
    plain_log_axis,
    save_figure,
    stacked_panels,
    styled,
)
from strata.stages import run_stage, stage_arguments

SMOOTHING_FRACTION = 0.01  # of the steps
SMALLEST_MARGIN = 0.01  # nats, where all values are one
EARLY_FRACTION = 0.05  # of the steps; what happens before does not set the scale of panel (a)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the centred mean over `window` entries (fewer at the ends)."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


@styled
def loss_and_acceptance(
    train: Mapping[str, np.ndarray],
    evaluated: Mapping[str, np.ndarray],
    exact_free_energy: float,
    title: str,
) -> Figure:
    """Return the figure; `exact_free_energy` is -ln Z_x in nats."""
    figure, (loss, gap, acceptance) = stacked_panels([1.9, 1.5, 1.5], title=title)
    steps = train["step"]
    window = max(1, round(SMOOTHING_FRACTION * len(steps)))

    _with_mean(loss, steps, train["variational"], window, COLORS["blue"])
    label = f"exact \N{MINUS SIGN}ln $Z_x$ = {exact_free_energy:.4f}".replace(
        "= -", "= \N{MINUS SIGN}"
    )
    loss.axhline(exact_free_energy, label=label, **EXACT_LINE)
    late = train["variational"][int(EARLY_FRACTION * len(steps)) :]
    bottom, top = min(late.min(), exact_free_energy), max(late.max(), exact_free_energy)
    margin = 0.06 * (top - bottom) or SMALLEST_MARGIN
    loss.set_ylim(bottom - margin, top + margin)
    loss.set_ylabel("variational free\nenergy (nats)")
    loss.legend(loc="upper right")

    difference = evaluated["variational"] - exact_free_energy
    above = difference > 0  # an estimate may fall below the exact value by its own error
    gap.plot(
        evaluated["step"][above],
        difference[above],
        color=COLORS["blue"],
        marker=".",
        markersize=3,
        linewidth=0.8,
    )
    plain_log_axis(gap)
    gap.set_ylabel("gap to exact\n(nats)")

    _with_mean(acceptance, steps, train["acceptance"], window, COLORS["vermilion"])
    acceptance.set_ylim(0.0, 1.0)
    acceptance.set_ylabel("acceptance\n(fraction)")
    acceptance.set_xlabel("training step")
    acceptance.set_xlim(0, steps[-1])
    return figure


def _with_mean(panel: Axes, steps: np.ndarray, values: np.ndarray, window: int, color: str) -> None:
    panel.plot(steps, values, color=color, alpha=0.25, linewidth=0.5, rasterized=True)
    panel.plot(steps, running_mean(values, window), color=color, label="flow")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "history", "exact"], outputs=["figure", "image"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    exact_free_energy = -float(read_exact(arguments.exact, settings.target)["log_partition_field"])
    check_origin(arguments.history, settings.sections_of("plot"))
    figure = loss_and_acceptance(
        read_history(arguments.history, "train"),
        read_history(arguments.history, "eval"),
        exact_free_energy,
        settings.target.caption,
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
