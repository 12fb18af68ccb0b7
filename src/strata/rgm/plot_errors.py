"""Draw the prediction errors of each level, and where in the image the reconstructions fail.

Columns: levels. (a) Size of the prediction error e_l = s_(l-1) - g_l(B_l s_l + b_l), s_(-1) being
the pixels. (b) The same weighted with the square root of its precision, and, dashed, the standard
normal density, which it has if the precisions are right and the errors normal. (c) Mean squared
error of each pixel rebuilt from the level, on one scale for all, which is finer near 0. Imports no
torch.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from strata.plotting import COLORS, EXACT_LINE, PAGE_WIDTH, save_figure, styled
from strata.rgm.figure_inputs import as_images, each_level, read_states
from strata.stages import run_stage, stage_arguments

Errors = Float[np.ndarray, "images _"]  # one per pixel or unit that the level predicts

HEIGHTS = (1.7, 1.7, 2.2)  # inches
SHOWN_FRACTION = 0.9999  # of the sizes; the others are beyond the panel
N_BINS = 60
WEIGHTED_END = 6.0  # standard deviations
SMALLEST_DENSITY = 1e-5


@styled
def error_distributions(
    errors: Sequence[Errors],
    weighted: Sequence[Errors],
    squared_error_map: Float[np.ndarray, "levels height width"],
) -> Figure:
    """Return the figure of arrays of each level, from level 0 on."""
    figure, axes = plt.subplots(
        3,
        len(errors),
        squeeze=False,
        figsize=(PAGE_WIDTH, sum(HEIGHTS)),
        height_ratios=HEIGHTS,
    )
    figure.suptitle(
        "prediction errors of test images, and errors of the pixels",
        fontsize=plt.rcParams["axes.titlesize"],
    )
    colors = PowerNorm(0.5, 0.0, float(squared_error_map.max()) or 1.0)
    for level, (sizes, normal, pixels) in enumerate(axes.T):
        of_what = f"{errors[level].shape[1]} " + (
            f"units of level {level - 1}" if level else "pixels"
        )
        sizes.set_title(f"{_letter('a', level)}level {level}: {of_what}", loc="left")
        _sizes(sizes, np.abs(errors[level].astype(np.float64)).ravel(), level)
        values = weighted[level].astype(np.float64).ravel()
        mean_square = np.square(values).mean()
        normal.set_title(f"{_letter('b', level)}mean square {mean_square:.2f}", loc="left")
        _weighted(normal, values, level)
        pixels.set_title(
            f"{_letter('c', level)}from level {level}: mean {squared_error_map[level].mean():.4f}",
            loc="left",
        )
        image = pixels.imshow(
            squared_error_map[level], cmap="cividis", norm=colors, interpolation="none"
        )
        pixels.spines[:].set_visible(True)
        pixels.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("density")
    axes[1, 0].set_ylabel("density")
    top = max(panel.get_ylim()[1] for panel in axes[1])
    for panel in axes[1]:
        panel.set_ylim(SMALLEST_DENSITY, top)
    legend = axes[1, -1].legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2, handletextpad=0.5
    )
    legend.set_in_layout(False)  # it stands above the colour bar, which makes room for both
    figure.colorbar(image, ax=axes[2], label="mean squared error\n(per pixel)", aspect=20, pad=0.02)
    return figure


def _letter(letter: str, level: int) -> str:
    return f"({letter}) " if level == 0 else ""


def _sizes(panel: Axes, sizes: Float[np.ndarray, " values"], level: int) -> None:
    end = float(np.quantile(sizes, SHOWN_FRACTION)) or 1.0
    _density(panel, sizes, np.linspace(0.0, end, N_BINS + 1), "")
    panel.set_xlabel(f"|$e_{level}$| " + ("(activation)" if level else "(intensity)"))


def _weighted(panel: Axes, values: Float[np.ndarray, " values"], level: int) -> None:
    edges = np.linspace(-WEIGHTED_END, WEIGHTED_END, N_BINS + 1)
    _density(panel, values, edges, "measured")
    x = np.linspace(-4.5, 4.5, 181)
    density = np.exp(-0.5 * np.square(x)) / np.sqrt(2.0 * np.pi)
    panel.plot(x, density, label="standard\nnormal", **EXACT_LINE)
    panel.set_xlim(-WEIGHTED_END, WEIGHTED_END)
    panel.set_xlabel(rf"$\pi_{level}^{{1/2}}\, e_{level}$ (1)")


def _density(
    panel: Axes, values: Float[np.ndarray, " values"], edges: np.ndarray, label: str
) -> None:
    """Draw the histogram as a density of all values, those beyond the edges too."""
    counts, _ = np.histogram(values, bins=edges)
    panel.stairs(
        counts / (len(values) * np.diff(edges)),
        edges,
        color=COLORS["blue"],
        fill=True,
        alpha=0.5,
        label=label,
    )
    panel.set_yscale("log")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, inputs=["states"], outputs=["figure", "image"]).parse_args(
        argv
    )
    path = arguments.states
    states = read_states(
        path, "image_shape", "squared_error_map", by_level=["errors", "weighted_errors"]
    )
    figure = error_distributions(
        each_level(states, "errors"),
        each_level(states, "weighted_errors"),
        as_images(path, states["squared_error_map"], states["image_shape"]),
    )
    save_figure(figure, [arguments.figure, arguments.image])


if __name__ == "__main__":
    run_stage(main)
