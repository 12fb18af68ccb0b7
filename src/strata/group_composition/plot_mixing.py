"""Draw how a recurrent network mixes its neurons: blocks of W_mix, and how they form.

Figure `mixing`: (a) W_mix at the last checkpoint, rows and columns sorted into blocks of one
irreducible representation; (b) the share of ||W_mix||^2 within these blocks over the checkpoints,
dashed: its mean if all entries were independent and alike.

Conventions: row n, column m is the weight from neuron m of a hidden state to neuron n of the next.
Blocks are those of the last checkpoint at all steps. Imports no torch.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.group_composition.neuron_panels import Block, blocks_of, label_blocks
from strata.group_composition.neurons import (
    Parts,
    read_neurons,
    read_parts,
    within_blocks_at_random,
)
from strata.plotting import COLORS, COLUMN_WIDTH, EXACT_LINE, save_figure, styled
from strata.stages import run_stage, stage_arguments

LAYOUT = {
    "checkpoints/step": "checkpoint",
    "examples/elements": "example position",
    "mixing/weights": "neuron neuron",
    "mixing/order": "neuron",
    "mixing/irrep": "neuron",
    "mixing/within": "checkpoint",
}
HEIGHTS = (3.0, 1.6)  # inches of the panels
MATRIX = 2.0  # inches, about, that the matrix is wide and high
SATURATED = 1.0  # percent of the entries that may have the darkest colours
LEAST_SCALE = 0.25  # of the largest entry


@styled
def mixing(parts: Parts, arrays: Mapping[str, np.ndarray]) -> Figure:
    """Return the figure; see `strata.group_composition.inspect` for the arrays."""
    figure, (matrix, share) = plt.subplots(
        2, 1, figsize=(COLUMN_WIDTH, sum(HEIGHTS)), height_ratios=HEIGHTS
    )
    order, irreps = arrays["mixing/order"], arrays["mixing/irrep"]
    blocks = blocks_of(irreps[order], parts.learned, parts.names)
    _matrix(matrix, arrays["mixing/weights"][np.ix_(order, order)], blocks)
    steps = arrays["checkpoints/step"]
    matrix.set_title(f"(a) W_mix after {steps[-1]:,} steps", loc="left")
    share.plot(steps, arrays["mixing/within"], "o-", color=COLORS["blue"], markersize=3)
    share.axhline(within_blocks_at_random(irreps), **EXACT_LINE)
    share.set(xlabel="step", ylabel="share of ||W_mix||²\nwithin blocks", ylim=(0.0, 1.04))
    share.set_title("(b) formation of the blocks", loc="left")
    if arrays["examples/elements"].shape[1] == 2:
        share.text(
            0.5, 0.9, "sequences of two do not use W_mix", transform=share.transAxes,
            ha="center", va="top", fontsize=7, color="0.4",
        )  # fmt: skip
    return figure


def _matrix(
    panel: Axes, weights: Float[np.ndarray, "neuron neuron"], blocks: Sequence[Block]
) -> None:
    sizes = np.abs(weights)
    usual = np.percentile(sizes, 100.0 - SATURATED)
    limit = float(max(usual, LEAST_SCALE * sizes.max())) or 1.0
    image = panel.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="none")
    extents = np.array([[block.start - 0.5, block.stop - 0.5] for block in blocks])
    for edge in extents[1:, 0]:
        panel.axhline(edge, color="0.4", linewidth=0.4)
        panel.axvline(edge, color="0.4", linewidth=0.4)
    label_blocks(panel, blocks, extents, size=(MATRIX, MATRIX))
    panel.set(xticks=[], yticks=[], xlabel="from neuron (column) to neuron (row)")
    panel.spines[:].set(visible=True, linewidth=0.4)
    bar = panel.figure.colorbar(
        image, ax=panel, fraction=0.05, pad=0.03, shrink=0.75, extend="both"
    )
    bar.outline.set_linewidth(0.4)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["task", "neurons"], outputs=["mixing", "mixing_image"]
    ).parse_args(argv)
    parts = read_parts(arguments.task)
    arrays = read_neurons(arguments.neurons, LAYOUT, task=arguments.task, parts=parts)
    save_figure(mixing(parts, arrays), [arguments.mixing, arguments.mixing_image])


if __name__ == "__main__":
    run_stage(main)
