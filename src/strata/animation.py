"""Animated GIFs, made of figures or arrays.

Conventions: a frame is an RGB array of shape (height, width, 3), 8 bits per channel; all frames
share one palette, so that no colour flickers; the animation loops for ever. Equal frames, equal
bytes. Imports no torch.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import UInt8, UInt32
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from strata.artifacts import written_beside
from strata.errors import UserError
from strata.plotting import STYLE

Frame = Figure | np.ndarray
Colors = UInt8[np.ndarray, "colors 3"]
Codes = UInt32[np.ndarray, "*shape"]  # 65536 red + 256 green + blue

DPI = 160
PALETTE_SIZE = 256  # of a GIF
COLORS_AT_ONCE = 2**14
SHORTEST_FRAME = 0.02  # seconds; browsers show shorter frames for 0.1 s
LONGEST_FRAME = 655.35  # seconds; the format counts hundredths in 16 bits


def save_animation(
    frames: Iterable[Frame],
    path: Path,
    *,
    seconds_per_frame: float,
    seconds_at_end: float | None = None,
) -> None:
    """Write an animated GIF; frames are taken one by one and kept compressed.

    Figures are drawn in the house style and closed. One may come again and again with changed
    artists, which is faster than new figures; it keeps the layout of its first frame. Neighbouring
    frames that are equal become one that lasts as long as both.

    Args:
        frames: figures, or arrays of shape (height, width, 3) and dtype uint8, of one size.
        path: ends in .gif.
        seconds_per_frame: rounded to hundredths, 0.02 or more.
        seconds_at_end: how long the last frame stays, if not as long as the others.

    Raises:
        ValueError: no frames, a frame of another shape or dtype, a duration out of range.
        UserError: another suffix, or a path that cannot be written.
    """
    if path.suffix != ".gif":
        raise UserError(f"{path}: an animation's name ends in .gif.")
    usual = _milliseconds(seconds_per_frame)
    last = usual if seconds_at_end is None else _milliseconds(seconds_at_end)
    canvases: dict[Figure, FigureCanvasAgg] = {}
    try:
        with plt.rc_context(STYLE):
            film = _Film(_pixels(frame, canvases) for frame in frames)
    finally:
        for figure in canvases:
            plt.close(figure)
    palette = film.palette()
    images = film.images(palette)
    with written_beside(path) as beside:
        next(images).save(
            beside,
            format="GIF",
            save_all=True,
            append_images=images,
            palette=palette.tobytes(),
            duration=[usual] * (len(film.frames) - 1) + [last],
            loop=0,
            optimize=False,
            interlace=False,
        )


def _milliseconds(seconds: float) -> int:
    if not SHORTEST_FRAME <= seconds <= LONGEST_FRAME:
        raise ValueError(
            f"A frame lasts {SHORTEST_FRAME} to {LONGEST_FRAME} seconds; got {seconds}. Choose a "
            "duration within this range."
        )
    return 10 * round(100 * seconds)


class _Film:
    """All frames, compressed, and all colours that occur in them."""

    def __init__(self, frames: Iterable[np.ndarray]) -> None:
        self.frames: list[bytes] = []
        self.shape: tuple[int, ...] = ()
        counts: Counter[int] = Counter()
        for pixels in frames:
            self.shape = self.shape or pixels.shape
            if pixels.shape != self.shape or pixels.shape[2:] != (3,) or pixels.dtype != np.uint8:
                raise ValueError(
                    "Frames are arrays of one shape (height, width, 3) and dtype uint8; got "
                    f"{pixels.shape} of {pixels.dtype} after {self.shape}. Draw all at one size."
                )
            codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
            self.frames.append(zlib.compress(codes.tobytes(), 1))
            found, times = np.unique(codes, return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
        if not self.frames:
            raise ValueError("An animation needs at least one frame; got none.")
        self.codes = np.array(sorted(counts), np.uint32)
        self.counts = np.array([counts[code] for code in self.codes.tolist()])

    def palette(self) -> Colors:
        """Return at most 256 colours; each is the most frequent one of those it stands for."""
        colors = _colors(self.codes)
        if len(colors) <= PALETTE_SIZE:
            return colors
        # Roots keep a background from taking boxes of the median cut that others need.
        repeated = np.repeat(colors, np.ceil(np.sqrt(self.counts)).astype(int), axis=0)
        cut = Image.fromarray(repeated[None]).quantize(PALETTE_SIZE, Image.Quantize.MEDIANCUT)
        means = np.array(cut.getpalette(), np.uint8).reshape(-1, 3)
        by_frequency = np.argsort(-self.counts, kind="stable")
        _, most_frequent = np.unique(_nearest(colors[by_frequency], means), return_index=True)
        return colors[by_frequency[most_frequent]]

    def images(self, palette: Colors) -> Iterator[Image.Image]:
        """Yield the frames in the nearest colours of the palette."""
        index = _nearest(_colors(self.codes), palette)
        for frame in self.frames:
            codes = np.frombuffer(zlib.decompress(frame), np.uint32).reshape(self.shape[:2])
            image = Image.fromarray(index[np.searchsorted(self.codes, codes)])
            image.putpalette(palette.tobytes())
            yield image


def _pixels(frame: Frame, canvases: dict[Figure, FigureCanvasAgg]) -> np.ndarray:
    """Return a frame as an array; a figure is drawn on its canvas, made where there is none."""
    if not isinstance(frame, Figure):
        return frame
    if frame not in canvases:
        canvases[frame] = _canvas(frame)
    canvases[frame].draw()
    return np.asarray(canvases[frame].buffer_rgba())[..., :3]


def _canvas(figure: Figure) -> FigureCanvasAgg:
    """Return where to draw the figure, whose layout is settled now and stays."""
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return canvas


def _colors(codes: Codes) -> Colors:
    """Return the colours that the codes stand for."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


def _nearest(
    colors: Colors, palette: UInt8[np.ndarray, "entries 3"]
) -> UInt8[np.ndarray, " colors"]:
    """Return the index of the palette's entry with the smallest squared distance (in RGB)."""
    entries = palette.astype(np.float32)  # exact: squares stay below 2^24
    half_squares = (entries**2).sum(1) / 2
    chunks = np.split(colors, range(COLORS_AT_ONCE, len(colors), COLORS_AT_ONCE))
    return np.concatenate(
        [
            (half_squares - chunk.astype(np.float32) @ entries.T).argmin(1).astype(np.uint8)
            for chunk in chunks
        ]
    )
