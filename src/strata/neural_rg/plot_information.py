"""Draw the mutual information of physical and of latent variables.

Panels: (a) pairs of sites of the exact field, (b) pairs of latent variables of the same samples, in
the order of the sites or, for a multiscale network, of the scales at which they are split off; (c)
the largest value at each distance, and the level that independent variables reach by chance.
Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.artifacts import check_origin, read_h5
from strata.config import read_settings
from strata.errors import UserError
from strata.neural_rg.config import RunSettings
from strata.neural_rg.target_settings import LatticeTarget
from strata.plotting import COLORS, COLUMN_WIDTH, EXACT_LINE, save_figure, styled
from strata.stages import run_stage, stage_arguments

MEASURED = ("physical", "latent", "noise_level", "coordinates")
HEIGHT = 4.6  # inches
SMALLEST_SHOWN = 3e-4  # nats; what is less, or negative by noise, is drawn here


@styled
def mutual_information(
    measured: Mapping[str, np.ndarray], target: LatticeTarget, title: str
) -> Figure:
    """Return the figure; see `strata.neural_rg.measure` for the arrays."""
    figure = plt.figure(figsize=(COLUMN_WIDTH, HEIGHT))
    figure.suptitle(title, fontsize=8)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.2, 1.0])[:, 0]
    panels = above.subplots(1, 2)
    order = np.arange(len(measured["physical"]))
    by_scale = order
    if "latent_scales" in measured:
        by_scale = np.argsort(-measured["latent_scales"], kind="stable")
    limit = float(np.nanmax(measured["physical"]))
    for panel, letter, name, rows in (
        (panels[0], "a", "physical", order),
        (panels[1], "b", "latent", by_scale),
    ):
        image = panel.imshow(
            measured[name][np.ix_(rows, rows)],
            cmap="cividis",
            vmin=0.0,
            vmax=limit,
            interpolation="none",
        )
        panel.set_title(f"({letter}) {name}", loc="left")
        panel.set_xticks([])
        panel.set_yticks([])
    panels[0].set_xlabel("site")
    panels[1].set_xlabel("latent variable")
    if "latent_scales" in measured:
        _mark_scales(panels[1], measured["latent_scales"][by_scale])
    above.colorbar(
        image,
        ax=panels,
        location="bottom",
        label="mutual information (nats)",
        shrink=0.8,
        aspect=30,
    )
    _against_distance(below.subplots(), measured, target)
    return figure


def _mark_scales(panel: Axes, scales: np.ndarray) -> None:
    """Write the scale beside its latent variables, the coarsest first."""
    starts = np.flatnonzero(np.diff(scales, prepend=scales[0] + 1))
    for start in starts[1:]:
        panel.axhline(start - 0.5, color="white", linewidth=0.4)
        panel.axvline(start - 0.5, color="white", linewidth=0.4)
    ends = [*starts[1:], len(scales)]
    large = [
        (a, b) for a, b in zip(starts, ends, strict=True) if b - a > len(scales) / 12
    ]  # others have no room for a number
    panel.set_yticks([(a + b - 1) / 2 for a, b in large], [str(scales[a]) for a, _ in large])
    panel.tick_params(length=0)
    panel.set_ylabel("scale")


def _against_distance(
    panel: Axes, measured: Mapping[str, np.ndarray], target: LatticeTarget
) -> None:
    """Draw the largest value of all pairs at each distance."""
    coordinates = measured["coordinates"]
    if len(coordinates) < target.L**target.d:
        corner = " × ".join(str(side) for side in coordinates.max(axis=0) + 1)
        panel.set_title(f"{corner} sites of the lattice", loc="right")
    distances = pair_distances(coordinates, target)
    pairs = np.triu_indices(len(distances), 1)
    for name, color, marker in (("physical", "blue", "o"), ("latent", "vermilion", "s")):
        distance, largest = largest_by_distance(distances[pairs], measured[name][pairs])
        panel.plot(
            distance,
            np.maximum(largest, SMALLEST_SHOWN),
            color=COLORS[color],
            marker=marker,
            markersize=2.5,
            linestyle="none",
            label=name,
        )
    noise = float(measured["noise_level"])
    label = f"independent: below {noise:.4f}"
    panel.axhline(noise, label=label, **EXACT_LINE)
    panel.set_yscale("log")
    panel.set_title("(c)", loc="left")
    panel.set_xlabel("distance of the two sites (lattice constants)")
    panel.set_ylabel("largest mutual\ninformation (nats)")
    panel.legend(
        loc="upper center",
        bbox_to_anchor=(0.45, -0.3),
        ncols=3,
        columnspacing=1.0,
        handletextpad=0.4,
        borderaxespad=0.0,
    )


def pair_distances(
    coordinates: np.ndarray, target: LatticeTarget
) -> Float[np.ndarray, "variables variables"]:
    """Return the Euclidean distance of each pair of sites, the shortest way round if periodic."""
    apart = np.abs(coordinates[:, None] - coordinates[None])
    if target.boundary == "periodic":
        apart = np.minimum(apart, target.L - apart)
    return np.sqrt(np.square(apart).sum(axis=2).astype(float))


def largest_by_distance(
    distance: Float[np.ndarray, " pairs"], values: Float[np.ndarray, " pairs"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances that occur, and the largest value of each."""
    found, number = np.unique(distance.round(6), return_inverse=True)
    largest = np.full(len(found), -math.inf)
    np.maximum.at(largest, number, values)
    return found, largest


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "information"], outputs=["figure", "image"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "plot")
    check_origin(arguments.information, settings.sections_of("plot"))
    target = settings.target
    if not isinstance(target, LatticeTarget):
        raise UserError(
            f"{arguments.settings}: mutual information is drawn of a lattice; the target is "
            f"{target.name}."
        )
    measured = read_h5(arguments.information, *MEASURED)
    figure = mutual_information(measured, target, target.caption)
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
