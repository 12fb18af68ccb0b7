"""Figures: one style, lettered panels, equal data in equal bytes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from strata.errors import UserError
from strata.plotting import (
    COLORS,
    DECIMALS_OF_PLACES,
    EXACT_LINE,
    STYLE,
    plain_log_axis,
    save_figure,
    settled,
    stacked_panels,
    styled,
)

FORMATS = (".pdf", ".png")


@styled
def example_figure(slope: float = 1.0) -> Figure:
    """Use what figures use: text, mathematics, colours, a legend, rasterized and vector lines."""
    figure, (upper, lower) = stacked_panels([1.0, 1.5], title="Ising, $T$ = 2.269 $J/k_B$")
    steps = np.arange(1, 50)
    upper.plot(steps, slope * steps, color=COLORS["blue"], label="flow", rasterized=True)
    upper.axhline(20.0, label="exact \N{MINUS SIGN}ln $Z_x$", **EXACT_LINE)
    upper.legend()
    lower.plot(steps, 1.0 / steps, color=COLORS["vermilion"])
    plain_log_axis(lower)
    lower.set_xlabel("training step")
    return figure


def saved(folder: Path, slope: float = 1.0) -> list[bytes]:
    paths = [folder / f"figure{suffix}" for suffix in FORMATS]
    save_figure(example_figure(slope), paths)
    return [path.read_bytes() for path in paths]


def test_equal_data_are_equal_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    first = saved(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert saved(tmp_path) == first
    for one, other in zip(first, saved(tmp_path, slope=2.0), strict=True):
        assert one != other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.pdf", "figure.png"]


def test_equal_data_are_equal_bytes_in_any_process(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    digests = [hashlib.sha256(content).hexdigest() for content in saved(tmp_path)]
    assert done.stdout.split() == digests


def test_formats_are_what_their_suffix_says(tmp_path: Path) -> None:
    pdf, png = saved(tmp_path)
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf, "text should stay text (TrueType)"
    assert png.startswith(b"\x89PNG")
    assert plt.get_fignums() == [], "closed after saving"


def test_a_format_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"figure\.xyz: .* \.pdf, \.png"):
        save_figure(example_figure(), [tmp_path / "figure.xyz"])
    assert list(tmp_path.iterdir()) == []
    assert plt.get_fignums() == [], "closed nevertheless"


@pytest.mark.parametrize("n_panels", [1, 3, 8, 9])
def test_panels_share_an_axis_and_are_lettered(n_panels: int) -> None:
    heights = [1.0 + 0.1 * panel for panel in range(n_panels)]
    figure, panels = stacked_panels(heights, title="all", width=5.0)
    try:
        letters = [panel.get_title(loc="left") for panel in panels]
        assert letters == [f"({letter})" for letter in "abcdefghi"[:n_panels]]
        assert figure.get_size_inches().tolist() == pytest.approx([5.0, sum(heights)])
        assert figure.get_suptitle() == "all"
        panels[0].set_xlim(0, 7)
        assert panels[-1].get_xlim() == (0, 7)
    finally:
        plt.close(figure)


def test_style_holds_while_drawing_and_not_after() -> None:
    before = mpl.rcParams.copy()
    with plt.rc_context(STYLE):
        expected = {key: mpl.rcParams[key] for key in STYLE}
    seen: dict[str, object] = {}

    @styled
    def look() -> Figure:
        """Note the style."""
        seen.update({key: mpl.rcParams[key] for key in STYLE})
        return Figure()

    look()
    assert seen == expected != {key: before[key] for key in STYLE}
    assert mpl.rcParams == before
    assert look.__doc__ == "Note the style."


@pytest.mark.parametrize(("low", "high", "expected"), [
    (0.08, 6.0, ["0.1", "0.2", "0.5", "1", "2", "5"]),
    (9.0, 300.0, ["10", "20", "50", "100", "200"]),
])  # fmt: skip
def test_logarithmic_axis_in_plain_numbers(low: float, high: float, expected: list[str]) -> None:
    figure, (panel,) = stacked_panels([2.0], title="")
    plain_log_axis(panel)
    panel.set_ylim(low, high)
    figure.canvas.draw()
    labels = {tick.get_text() for tick in panel.get_yticklabels()}
    minor = {tick.get_text() for tick in panel.get_yticklabels(minor=True)}
    plt.close(figure)
    assert set(expected) <= labels
    assert minor <= {""}


def test_colours_are_told_apart() -> None:
    rgb = np.array([mpl.colors.to_rgb(color) for color in COLORS.values()])
    distances = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1)
    assert distances[~np.eye(len(rgb), dtype=bool)].min() > 0.2


if __name__ == "__main__":  # the other process of the test above
    for content in saved(Path(sys.argv[1])):
        print(hashlib.sha256(content).hexdigest())


def test_figures_within_a_figure_are_settled_too() -> None:
    """Their places have the solver's noise as well, and all that is in them moves with it."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(5, 3))
        outer = figure.subfigures(1, 2, width_ratios=[1.0, 1.37])
        inner = outer[1].subfigures(2, 1, height_ratios=[1.0, 2.3])
        for part in (outer[0], *inner):
            part.subplots().set_title("a title")
    settled(figure)
    for part in (*outer, *inner):
        places = part.bbox_relative.get_points()
        np.testing.assert_array_equal(places, places.round(DECIMALS_OF_PLACES))
    plt.close(figure)
