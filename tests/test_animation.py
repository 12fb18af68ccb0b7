"""Animated GIFs: the frames that were given, as long as asked, in colours that do not flicker."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import strata.animation
from strata.animation import DPI, save_animation
from strata.errors import UserError
from strata.plotting import COLORS, STYLE, styled

HEIGHT, WIDTH = 20, 30
STILL = np.s_[:10]  # rows that are the same in every frame


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def few_colors(n: int) -> list[np.ndarray]:
    """A red square that moves over white, one pixel per frame."""
    frames = np.full((n, HEIGHT, WIDTH, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        frame[5:9, i : i + 4] = [213, 94, 0]
    return list(frames)


def many_colors(n: int) -> list[np.ndarray]:
    """White and 200 colours that stay, above noise in colours that change with every frame."""
    random = np.random.default_rng(0)
    frames = np.empty((n, HEIGHT, WIDTH, 3), np.uint8)
    frames[:, STILL] = 255
    frames[:, :10, :20] = random.integers(0, 256, (10, 20, 3))
    for i, frame in enumerate(frames):
        frame[10:] = random.integers(30 * i, 30 * i + 60, (10, WIDTH, 3))
    return list(frames)


def shown(path: Path) -> tuple[np.ndarray, list[int]]:
    """The frames of the file as a player shows them, and how many milliseconds each stays."""
    with Image.open(path) as image:
        frames, durations = [], []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames), durations


# --- frames that are arrays ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7])
def test_frames_are_the_data(tmp_path: Path, n: int) -> None:
    path = tmp_path / "moving.gif"
    save_animation(few_colors(n), path, seconds_per_frame=0.3)
    frames, durations = shown(path)
    np.testing.assert_array_equal(frames, few_colors(n))
    assert durations == [300] * n
    assert [file.name for file in tmp_path.iterdir()] == ["moving.gif"]


def test_it_loops_for_ever_and_the_end_may_stay(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    save_animation(few_colors(4), path, seconds_per_frame=0.05, seconds_at_end=2.5)
    assert shown(path)[1] == [50, 50, 50, 2500]
    with Image.open(path) as image:
        assert image.info["loop"] == 0, "0 is for ever"


def test_equal_neighbours_stay_as_long_as_both(tmp_path: Path) -> None:
    first, second = few_colors(2)
    path = tmp_path / "halting.gif"
    save_animation([first, first, second, second, second, first], path, seconds_per_frame=0.1)
    frames, durations = shown(path)
    np.testing.assert_array_equal(frames, [first, second, first])
    assert durations == [200, 300, 100]
    save_animation([first] * 3, path, seconds_per_frame=0.1)
    assert shown(path)[1] == [300]


def test_equal_frames_are_equal_bytes(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.gif" for name in ("one", "same", "other")]
    for path, frames in zip(files, (many_colors(5), many_colors(5), many_colors(6)), strict=True):
        save_animation(frames, path, seconds_per_frame=0.1)
    one, same, other = (path.read_bytes() for path in files)
    assert one == same != other


# --- colours ------------------------------------------------------------------------------------


def test_what_stays_keeps_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "noise.gif"
    save_animation(many_colors(6), path, seconds_per_frame=0.1)
    frames, _ = shown(path)
    assert (frames[:, STILL] == frames[0, STILL]).all()
    assert (frames[:, :10, 20:] == 255).all(), "the background is exact"


def test_many_colours_become_the_nearest_of_the_palette(tmp_path: Path) -> None:
    """By brute force over the palette of the file; no pixel is far from what it was."""
    path = tmp_path / "noise.gif"
    given = np.stack(many_colors(6)).astype(int)
    save_animation(many_colors(6), path, seconds_per_frame=0.1)
    found = shown(path)[0].astype(int)
    palette = np.unique(found.reshape(-1, 3), axis=0)
    assert 200 < len(palette) <= 256
    squares = ((given[..., None, :] - palette) ** 2).sum(-1)
    np.testing.assert_array_equal(((given - found) ** 2).sum(-1), squares.min(-1))
    assert np.sqrt(squares.min(-1)).mean() < 20
    occurring = np.unique(given.reshape(-1, 3), axis=0)
    assert set(map(tuple, palette)) <= set(map(tuple, occurring)), "no colour is invented"


def test_a_rare_colour_is_not_lost(tmp_path: Path) -> None:
    """One red pixel in one frame, among a thousand hues of blue that are much more frequent."""
    random = np.random.default_rng(0)
    frames = np.zeros((3, 100, 100, 3), np.uint8)
    frames[..., 2] = random.integers(100, 256, (3, 100, 100))
    frames[..., 1] = random.integers(0, 7, (3, 100, 100))
    frames[1, 50, 50] = [213, 94, 0]
    save_animation(list(frames), tmp_path / "a.gif", seconds_per_frame=0.1)
    assert shown(tmp_path / "a.gif")[0][1, 50, 50].tolist() == [213, 94, 0]


def test_colours_are_matched_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pieces = tmp_path / "whole.gif", tmp_path / "pieces.gif"
    save_animation(many_colors(3), whole, seconds_per_frame=0.1)
    monkeypatch.setattr(strata.animation, "COLORS_AT_ONCE", 100)
    save_animation(many_colors(3), pieces, seconds_per_frame=0.1)
    assert whole.read_bytes() == pieces.read_bytes()


def test_the_palette_is_written_once(tmp_path: Path) -> None:
    """One more frame takes less room than the 256 colours of a palette, 768 bytes."""
    sizes = []
    for n in (3, 4):
        frames = np.repeat(many_colors(1), n, axis=0)
        frames[np.arange(n), 0, np.arange(n)] = 0
        save_animation(list(frames), tmp_path / "a.gif", seconds_per_frame=0.1)
        sizes.append((tmp_path / "a.gif").stat().st_size)
    assert sizes[1] - sizes[0] < 100


# --- frames that are figures --------------------------------------------------------------------


@styled
def empty_panel() -> Figure:
    figure, panel = plt.subplots(figsize=(2.0, 1.5))
    panel.plot([0, 1], [0, 1], color=COLORS["blue"])
    return figure


def growing(n: int, noted: list[Any]) -> Iterator[Figure]:
    """One figure again and again, whose labels grow; note where its panel stands."""
    figure = empty_panel()
    (panel,) = figure.axes
    for i in range(n):
        panel.lines[0].set_ydata([0, 10.0 ** (2 * i)])
        panel.set_ylim(0, 10.0 ** (2 * i))
        yield figure
        noted.append(panel.get_position().bounds)


def test_one_figure_is_drawn_again_in_the_same_layout(tmp_path: Path) -> None:
    path, noted = tmp_path / "growing.gif", []
    save_animation(growing(4, noted), path, seconds_per_frame=0.1)
    frames, _ = shown(path)
    assert frames.shape == (4, 1.5 * DPI, 2 * DPI, 3)
    assert len(noted) == 4
    assert len(set(noted)) == 1
    left, bottom, width, height = noted[0]
    assert left > 0.1, "the layout leaves room for the labels"
    rows = slice(int((1 - bottom - height) * 240) + 3, int((1 - bottom) * 240) - 3)
    inside = frames[:, rows, int(left * 320) + 3 : int((left + width) * 320) - 3]
    assert (inside == inside[0]).all(), "the panel does not move; only its labels change"
    assert (inside == np.array([0x00, 0x72, 0xB2])).all(-1).any(), "the line has its colour"


def test_figures_are_closed_and_the_style_is_put_back(tmp_path: Path) -> None:
    before = mpl.rcParams.copy()
    seen = []

    def figures() -> Iterator[Figure]:
        for _ in range(3):
            figure, _ = plt.subplots(figsize=(1, 1))
            seen.append(mpl.rcParams["font.size"])
            yield figure

    save_animation(figures(), tmp_path / "still.gif", seconds_per_frame=0.1)
    assert plt.get_fignums() == []
    assert seen == [STYLE["font.size"]] * 3
    assert mpl.rcParams == before


def test_figures_and_arrays_may_be_mixed(tmp_path: Path) -> None:
    black = np.zeros((int(1.5 * DPI), 2 * DPI, 3), np.uint8)
    save_animation([black, empty_panel(), black], tmp_path / "a.gif", seconds_per_frame=0.1)
    frames, _ = shown(tmp_path / "a.gif")
    assert len(frames) == 3
    assert frames[1].mean() > 200


def test_frames_are_not_kept(tmp_path: Path) -> None:
    """Memory: when a frame is asked for, the ones before are gone but for the last."""
    references: list[weakref.ref[np.ndarray]] = []
    alive = []

    def frames() -> Iterator[np.ndarray]:
        for i in range(6):
            gc.collect()
            alive.append(sum(reference() is not None for reference in references))
            frame = few_colors(i + 1)[i].copy()
            references.append(weakref.ref(frame))
            yield frame

    save_animation(frames(), tmp_path / "moving.gif", seconds_per_frame=0.1)
    assert max(alive) <= 2


# --- mistakes -----------------------------------------------------------------------------------

WHITE = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


@pytest.mark.parametrize(("frames", "message"), [
    ([], "at least one frame"),
    ([WHITE, WHITE[:-1]], r"one shape .* \(19, 30, 3\)"),
    ([WHITE[..., 0]], r"\(20, 30\)"),
    ([np.dstack([WHITE, WHITE])], r"\(20, 30, 6\)"),
    ([WHITE / 255], "float64"),
])  # fmt: skip
def test_frames_that_are_none(tmp_path: Path, frames: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_animation(frames, tmp_path / "a.gif", seconds_per_frame=0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.01, 656.0, float("nan")])
def test_durations_that_no_player_shows(tmp_path: Path, seconds: float) -> None:
    for durations in (
        {"seconds_per_frame": seconds},
        {"seconds_per_frame": 0.1, "seconds_at_end": seconds},
    ):
        with pytest.raises(ValueError, match=r"lasts 0\.02 to 655\.35 seconds; got"):
            save_animation([WHITE], tmp_path / "a.gif", **durations)
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.mp4: .* \.gif"):
        save_animation([WHITE], tmp_path / "a.mp4", seconds_per_frame=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with pytest.raises(UserError, match=r"a\.gif cannot be written"):
        save_animation([WHITE], tmp_path / "file" / "a.gif", seconds_per_frame=0.1)


def test_a_drawing_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(b"old")

    def frames() -> Iterator[Figure]:
        yield empty_panel()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_animation(frames(), path, seconds_per_frame=0.1)
    assert plt.get_fignums() == []
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
