"""The figure of fields: one panel per scale and draw, one colour range, texts that stay apart."""

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from strata.artifacts import provenance, write_h5
from strata.neural_rg.plot_renormalization import main, renormalized_fields
from strata.neural_rg.wiring import latent_scales
from strata.stages import run_stage

NewRun = Callable[..., Any]


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def some_fields(length: int, d: int = 2, n: int = 4) -> list[np.ndarray]:
    """Fields of every scale, the finest first, with the scale in their size."""
    random = np.random.default_rng(length)
    return [
        ((scale + 1) * random.normal(size=(n, *[length // 2**scale] * d))).astype(np.float32)
        for scale in range(length.bit_length() - 1)
    ]


def figure_of(fields: list[np.ndarray]) -> Figure:
    return renormalized_fields(fields, "Ising 8 × 8, periodic, $T$ = 2.2692 $J/k_B$")


def images(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.get_images()]


@pytest.mark.parametrize("length", [2, 8, 32])
def test_a_row_per_draw_and_a_column_per_scale_from_coarse_to_fine(length: int) -> None:
    fields = some_fields(length)
    figure = figure_of(fields)
    expected = [of_scale[draw] for draw in range(4) for of_scale in reversed(fields)]
    for found, field in zip(images(figure), expected, strict=True):
        np.testing.assert_array_equal(found, field)
    top = [axes for axes in figure.axes if axes.get_title()]
    sizes = [2 ** (power + 1) for power in range(len(fields))]
    assert [axes.get_title() for axes in top] == [
        f"({letter}) {size} × {size}" for letter, size in zip("abcde", sizes, strict=False)
    ]
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == [f"draw {number}" for number in (1, 2, 3, 4)]
    assert figure.get_suptitle() == "Ising 8 × 8, periodic, $T$ = 2.2692 $J/k_B$"


def test_a_line_is_drawn_as_strips() -> None:
    fields = some_fields(8, d=1)
    figure = figure_of(fields)
    for found, field in zip(images(figure), reversed(fields), strict=True):
        np.testing.assert_array_equal(found, field)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["(a) 2 sites", "(b) 4 sites", "(c) 8 sites"]
    draws = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert draws == ["1", "2", "3", "4"]


@pytest.mark.parametrize("d", [1, 2])
def test_all_panels_share_a_colour_range_symmetric_about_zero(d: int) -> None:
    fields = some_fields(16, d)
    figure = figure_of(fields)
    ranges = {image.get_clim() for axes in figure.axes for image in axes.get_images()}
    largest = max(float(np.abs(of_scale).max()) for of_scale in fields)
    assert ranges == {(-largest, largest)}
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel() == "field $x$"]
    assert bar.get_xlim() == (-largest, largest)
    ticks = np.array(bar.get_xticks())
    np.testing.assert_allclose(ticks, -ticks[::-1])
    assert 0 in ticks
    assert np.abs(ticks).max() <= largest


def test_up_to_six_draws_are_shown() -> None:
    fields = some_fields(4, n=9)
    assert len(images(figure_of(fields))) == 2 * 6
    assert len(images(figure_of([of_scale[:1] for of_scale in fields]))) == 2


@pytest.mark.parametrize("value", [0.0, 1e-9, 1.0, 0.05, 1e3, np.nextafter(1e3, 0)])
def test_any_size_of_values_has_a_colour_bar(value: float) -> None:
    fields = [np.full((1, size, size), value) for size in (4, 2)]
    bar = next(axes for axes in figure_of(fields).axes if axes.get_xlabel() == "field $x$")
    labels = [text.get_text() for text in bar.get_xticklabels()]
    assert len(set(labels)) == 5
    assert labels[2] == "0"


def visible_texts(figure: Figure) -> list[Text]:
    return [
        text
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text.get_window_extent().width > 0
    ]


@pytest.mark.parametrize(
    ("length", "d"), [(2, 2), (4, 2), (8, 2), (16, 2), (32, 2), (64, 2), (16, 1)]
)
def test_texts_stay_apart_and_inside(length: int, d: int) -> None:
    figure = figure_of(some_fields(length, d))
    figure.canvas.draw()  # gives every text its place
    extents = [text.get_window_extent() for text in visible_texts(figure)]
    assert len(extents) > 7
    for one, other in itertools.combinations(extents, 2):
        assert not one.overlaps(other)
    width, height = figure.canvas.get_width_height()
    for extent in extents:
        assert extent.x0 >= -1
        assert extent.y0 >= -1
        assert extent.x1 <= width + 1
        assert extent.y1 <= height + 1


# --- the stage ----------------------------------------------------------------------------------


def renormalized_run(new_run: NewRun, fields: list[np.ndarray], **changes: Any) -> Any:
    """A folder with settings and what `strata.neural_rg.renormalize` would have left for them."""
    run = new_run(**changes)
    settings = run.settings
    arrays = {f"fields/scale{scale}": field for scale, field in enumerate(fields)}
    arrays["latent_scales"] = latent_scales(settings.target.L, settings.target.d)
    write_h5(
        source(run),
        arrays,
        units=dict.fromkeys(arrays, "1"),
        attributes=provenance(settings.canonical_json()),
    )
    return run


def source(run: Any) -> Path:
    return run.folder / "renormalization.h5"


def pictures(run: Any) -> list[Path]:
    return [run.folder / f"renormalized_fields.{suffix}" for suffix in ("pdf", "png")]


def command(run: Any) -> list[str]:
    figure, image = pictures(run)
    return [
        *("--settings", str(run.path("settings"))),
        *("--renormalization", str(source(run))),
        *("--figure", str(figure)),
        *("--image", str(image)),
    ]


def complaint_of(run: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a stage that refuses its input and leaves nothing."""
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, command(run)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("strata: ")
    assert complaint.count("\n") == 1
    assert not any(path.exists() for path in pictures(run))
    return complaint


def test_stage_draws_the_same_bytes_again(new_run: NewRun) -> None:
    run = renormalized_run(new_run, some_fields(4))
    main(command(run))
    first = [path.read_bytes() for path in pictures(run)]
    assert first[0].startswith(b"%PDF")
    assert first[1].startswith(b"\x89PNG")
    main(command(run))
    assert [path.read_bytes() for path in pictures(run)] == first
    assert not plt.get_fignums(), "a saved figure is closed"


def test_settings_that_a_plot_reads_are_enough(new_run: NewRun) -> None:
    run = renormalized_run(new_run, some_fields(4))
    run.path("settings").write_text(run.settings.sections_of("plot"))
    main(command(run))
    assert all(path.exists() for path in pictures(run))


def test_a_missing_file_is_named(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{source(run := new_run())} does not exist" in complaint_of(run, capsys)


def test_a_file_without_a_scale_is_named(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = renormalized_run(new_run, some_fields(4)[:1])
    assert f"{source(run)} holds no fields/scale1" in complaint_of(run, capsys)


@pytest.mark.parametrize(("block", "change"), [
    ("target", {"T": 2.0}), ("flow", {"n_disentanglers": 2}),
])  # fmt: skip
def test_a_file_of_another_run_is_refused(
    block: str, change: dict[str, Any], new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = renormalized_run(new_run, some_fields(4))
    settings = json.loads(run.settings.canonical_json())
    settings[block] = {**settings[block], **change}
    run.path("settings").write_text(json.dumps(settings))
    assert f"{source(run)} was made with another {block}" in complaint_of(run, capsys)


def test_numbers_that_are_not_finite_are_named(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = some_fields(4)
    fields[1][0, 0, 0] = np.nan
    run = renormalized_run(new_run, fields)
    complaint = complaint_of(run, capsys)
    assert f"{source(run)}: not all numbers in fields/scale1 are finite" in complaint
