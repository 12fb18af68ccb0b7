"""How figures show neurons: in blocks of one irreducible representation, with their labels.

Conventions: representations are coloured in the order in which they are learned; at most
`MOST_BLOCKS` have blocks of their own, and one block holds the others. Dead neurons are grey and
come last. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from strata.group_composition.neurons import evenly_chosen
from strata.plotting import COLORS

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DEAD_COLOR, OTHERS_COLOR = "0.65", "0.35"
MOST_BLOCKS = 12
MOST_DEAD = 6  # dead neurons that are drawn
LABEL_SIZE = 6.5  # points
LINE_HEIGHT = 1.25 * LABEL_SIZE / 72.0  # inches
STRIP, GAP = 0.06, 0.04  # inches: width of the strip of colour, and what is between it and others


@dataclass(frozen=True)
class Look:
    """How a representation is drawn."""

    color: str
    marker: str


@dataclass(frozen=True)
class Block:
    """Neurons of one representation, from `start` to before `stop` in the order drawn."""

    label: str
    color: str
    start: int
    stop: int
    is_dead: bool = False

    @property
    def size(self) -> int:
        """Number of neurons."""
        return self.stop - self.start


def look_of(place: int) -> Look:
    """Return the look of the representation that is learned in this place; 18 colours differ."""
    colors = list(COLORS.values())
    towards, share = ((0.0, 0.0), (0.0, 0.5), (1.0, 0.6))[place // len(colors) % 3]
    pure = np.array(to_rgb(colors[place % len(colors)]))
    red, green, blue = ((1 - share) * pure + share * towards).tolist()
    return Look(to_hex((red, green, blue)), MARKERS[place % len(MARKERS)])


def blocks_of(
    irreps: Integer[np.ndarray, " neuron"], learned: Sequence[int], names: Sequence[str]
) -> list[Block]:
    """Return the blocks of neurons; their labels count them.

    Args:
        irreps: representation of each neuron, in the order of learning; -1 of dead ones, last.
        learned: representations in the order in which they are learned.
        names: of all representations.
    """
    alive = irreps[irreps >= 0]
    present = [irrep for irrep in learned if irrep in alive]
    own = present if len(present) <= MOST_BLOCKS else present[: MOST_BLOCKS - 1]
    found = [
        (names[irrep], look_of(learned.index(irrep)).color, int((alive == irrep).sum()))
        for irrep in own
    ]
    found.append(("others", OTHERS_COLOR, len(alive) - sum(count for *_, count in found)))
    found.append(("dead", DEAD_COLOR, len(irreps) - len(alive)))
    blocks, start = [], 0
    for name, color, count in found:
        if count:
            blocks.append(Block(f"{name}: {count}", color, start, start + count, name == "dead"))
        start += count
    return blocks


def thinned(blocks: Sequence[Block], most: int) -> tuple[Int64[np.ndarray, " chosen"], list[Block]]:
    """Return which neurons of the order to draw, at most so many, and their blocks.

    Small blocks stay whole; from the others equal numbers are chosen, evenly. Few dead ones are.
    """
    sizes = [min(block.size, MOST_DEAD) if block.is_dead else block.size for block in blocks]
    caps = [cap for cap in range(1, most + 1) if np.minimum(sizes, cap).sum() <= most]
    chosen, kept, start = [], [], 0
    for block, size in zip(blocks, sizes, strict=True):
        chosen.append(block.start + evenly_chosen(block.size, min(size, caps[-1])))
        kept.append(replace(block, start=start, stop=start + len(chosen[-1])))
        start = kept[-1].stop
    return np.concatenate(chosen), kept


def label_blocks(
    panel: Axes,
    blocks: Sequence[Block],
    extents: Float[np.ndarray, "block 2"],
    *,
    size: tuple[float, float],
    labelled: bool = True,
) -> None:
    """Draw each block's strip of colour at the left of a panel, and its label.

    Args:
        extents: where each block begins and ends on the y axis, which points down.
        size: width and height of the panel in inches, about; labels keep a line's distance.
        labelled: False leaves the labels out.
    """
    along_y = panel.get_yaxis_transform()
    left, width, step = -(STRIP + GAP) / size[0], STRIP / size[0], GAP / size[0]
    for block, (low, high) in zip(blocks, extents, strict=True):
        panel.add_artist(
            Rectangle(
                (left, low), width, high - low, transform=along_y, clip_on=False,
                facecolor=block.color, edgecolor="none",
            )
        )  # fmt: skip
    if not labelled:
        return
    bottom, top = panel.get_ylim()
    gap = LINE_HEIGHT / size[1] * (bottom - top)
    middles = extents.mean(1)
    places = apart(middles, gap, (top + gap / 2, bottom - gap / 2))
    for block, middle, place in zip(blocks, middles, places, strict=True):
        panel.add_artist(
            Line2D(
                [left, left - 2 * step, left - 3 * step], [middle, place, place], color="0.5",
                linewidth=0.4, transform=along_y, clip_on=False,
            )
        )  # fmt: skip
        panel.text(
            left - 4 * step, place, block.label, transform=along_y, ha="right", va="center",
            fontsize=LABEL_SIZE,
        )  # fmt: skip


def apart(
    places: Float[np.ndarray, " label"], gap: float, limits: tuple[float, float]
) -> Float64[np.ndarray, " label"]:
    """Return increasing places moved as little as needed (least squares) to be a gap apart.

    They stay within the limits if there is room.
    """
    offsets = gap * np.arange(len(places))
    merged: list[tuple[float, int]] = []  # means of runs of places that push each other, lengths
    for target in (places - offsets).tolist():
        mean, count = target, 1
        while merged and merged[-1][0] >= mean:
            other, length = merged.pop()
            mean, count = (mean * count + other * length) / (count + length), count + length
        merged.append((mean, count))
    moved = np.repeat([mean for mean, _ in merged], [count for _, count in merged])
    return np.clip(moved, limits[0], max(limits[0], limits[1] - offsets[-1])) + offsets
