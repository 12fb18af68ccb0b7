"""Draw Hamiltonian Monte Carlo in latent and in physical space, with the exact answer.

Panels: (a) the second moment against trajectories, thermalization included: mean over the chains,
and a band of one standard error; (b) its autocorrelation. Imports no torch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from strata.artifacts import check_origin, read_h5
from strata.config import read_settings
from strata.neural_rg.autocorrelation import autocorrelation, integrated_autocorrelation_time
from strata.neural_rg.config import RunSettings
from strata.neural_rg.exact import read_exact
from strata.plotting import COLORS, EXACT_LINE, save_figure, stacked_panels, styled
from strata.stages import run_stage, stage_arguments

SPACES = {"latent": COLORS["vermilion"], "physical": COLORS["blue"]}
DATASETS = tuple(f"{space}/{name}" for space in SPACES for name in ("accepted", "observable"))
LAGS_OVER_TAU = 3.0
MIN_LAGS = 10


@styled
def chains_side_by_side(
    evolved: Mapping[str, np.ndarray], exact: float | None, formula: str, title: str
) -> Figure:
    """Return the figure; `exact` is the exact mean of the observable, whose name is `formula`."""
    figure, (course, memory) = stacked_panels([2.3, 1.9], title=title, share_x=False)
    longest = 0.0
    for space, color in SPACES.items():
        accepted = evolved[f"{space}/accepted"]
        observable = evolved[f"{space}/observable"].astype(float)
        trajectory = np.arange(1, len(observable) + 1)
        mean = observable.mean(axis=1)
        error = observable.std(axis=1, ddof=1) / np.sqrt(observable.shape[1])
        label = f"{space}: acceptance {accepted.mean():.2f}"
        course.plot(trajectory, mean, color=color, linewidth=0.7, label=label)
        course.fill_between(trajectory, mean - error, mean + error, color=color, alpha=0.25, lw=0)
        measured = observable[-len(accepted) :]
        tau, tau_error = integrated_autocorrelation_time(measured)
        longest = max(longest, min(tau, len(measured)))
        memory.plot(
            autocorrelation(measured), color=color, label=f"{space}: {_tau(tau, tau_error)}"
        )
    n_therm = len(observable) - len(accepted)
    course.axvspan(
        0,
        n_therm,
        facecolor="0.92",
        edgecolor="0.6",
        linewidth=0.4,
        zorder=0,
        label="thermalization",
    )
    if exact is not None:
        course.axhline(exact, label=f"exact {formula} = {exact:.5g}", **EXACT_LINE)
    course.set_xlim(0, len(observable))
    course.set_xlabel("trajectory")
    course.set_ylabel(f"{formula}, mean\nof the chains")
    course.legend(loc="best")
    memory.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    memory.set_xlim(0, max(MIN_LAGS, min(LAGS_OVER_TAU * longest, len(measured) // 2)))
    memory.set_xlabel("lag (trajectories)")
    memory.set_ylabel(f"autocorrelation of\n{formula}")
    memory.legend(loc="best")
    return figure


def _tau(tau: float, error: float) -> str:
    """Return an autocorrelation time with its error in words."""
    if not np.isfinite(tau):
        return "never moved"
    if not np.isfinite(error):
        return f"$\\tau$ at least {tau:.3g}"
    return f"$\\tau$ = {tau:.3g} ± {error:.2g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "hmc", "exact"], outputs=["figure", "image"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    check_origin(arguments.hmc, settings.sections_of("plot"))
    target = settings.target
    exact = read_exact(arguments.exact, target).get(target.observable)
    figure = chains_side_by_side(
        read_h5(arguments.hmc, *DATASETS),
        None if exact is None else float(exact),
        target.formula,
        target.caption,
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
