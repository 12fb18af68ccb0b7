"""The figure of responses: which latents it shows, where it marks them, what it says."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from strata.artifacts import provenance, write_h5
from strata.neural_rg.plot_responses import (
    Group,
    colors_of,
    evenly_chosen,
    groups_of,
    main,
    note_on,
    response_figure,
)
from strata.neural_rg.wiring import latent_scales
from strata.stages import run_stage

NewRun = Callable[..., Any]
KINDS = ("flipped", "difference", "gradient")


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def own_site_only(length: int, d: int, field_scale: int) -> np.ndarray:
    """Responses of 1 at the latent's own site where it has one in the field, else 0."""
    n_field = length // 2**field_scale
    sites = np.arange(length**d).reshape((length,) * d)
    active = sites[(slice(None, None, 2**field_scale),) * d]
    responses = active[None] == sites.reshape(-1, *[1] * d)
    assert responses.shape == (length**d, *[n_field] * d)
    return responses.astype(np.float32)


def some_groups(length: int, d: int = 2, field_scale: int = 0) -> list[Group]:
    return groups_of(latent_scales(length, d), field_scale, own_site_only(length, d, field_scale))


def figure_of(groups: list[Group], kind: str = "difference", scale: int = 0) -> Figure:
    return response_figure(
        groups,
        colors_of(kind, groups),
        title="Ising 16 × 16, periodic, $T$ = 2.2692 $J/k_B$\nchange of the field of scale 0 (16 × "
        "16) when the sign of one latent is flipped",
        note=note_on(kind, scale),
        color_label="change of the field $x$",
    )


def panels_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_images()]


def headings(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in panels_of(figure)]


@pytest.mark.parametrize(("length", "scale", "expected"), [
    (2, 0, ["(a) latents of scale 0: 4 of 4"]),
    (8, 0, ["(a) latents of scale 2 (coarsest): 4 of 4", "(b) latents of scale 1: 12 of 12",
            "(c) latents of scale 0 (finest): 48 of 48"]),
    (8, 1, ["(a) latents of scale 2 (coarsest): 4 of 4", "(b) latents of scale 1: 12 of 12"]),
    (8, 2, ["(a) latents of scale 2 (coarsest): 4 of 4"]),
    (16, 0, ["(a) latents of scale 3 (coarsest): 4 of 4", "(b) latents of scale 2: 12 of 12",
             "(c) latents of scale 1: 48 of 48", "(d) latents of scale 0 (finest): 48 of 192"]),
    (32, 1, ["(a) latents of scale 4 (coarsest): 4 of 4", "(b) latents of scale 3: 12 of 12",
             "(c) latents of scale 2: 24 of 48", "(d) latents of scale 1: 24 of 192"]),
])  # fmt: skip
def test_a_heading_per_scale_and_a_panel_per_latent(
    length: int, scale: int, expected: list[str]
) -> None:
    figure = figure_of(some_groups(length, field_scale=scale), scale=scale)
    assert headings(figure) == expected
    shown = [int(text.split(" of ")[1].split(": ")[1]) for text in expected]
    assert [len(axes.get_images()) for axes in panels_of(figure)] == shown
    frames = [
        sum(isinstance(patch, Rectangle) for patch in axes.patches) for axes in panels_of(figure)
    ]
    assert frames == shown


def test_a_line_has_a_strip_per_latent() -> None:
    figure = figure_of(some_groups(8, d=1))
    assert [len(axes.get_images()) for axes in panels_of(figure)] == [2, 2, 4]
    shapes = {np.shape(image.get_array()) for image in panels_of(figure)[0].get_images()}
    assert shapes == {(1, 8)}


@pytest.mark.parametrize(("length", "d", "scale"), [
    (8, 2, 0), (8, 2, 1), (8, 2, 2), (32, 2, 0), (16, 1, 0), (16, 1, 2),
])  # fmt: skip
def test_the_mark_stands_on_the_latents_own_site(length: int, d: int, scale: int) -> None:
    """Where the response, here one at the own site, is one."""
    for axes in panels_of(figure_of(some_groups(length, d, scale), scale=scale)):
        (marks,) = axes.get_lines()
        places = np.column_stack([np.asarray(marks.get_xdata()), np.asarray(marks.get_ydata())])
        assert len(places) == len(axes.get_images())
        for (x, y), image in zip(places, axes.get_images(), strict=True):
            left, right, bottom, top = image.get_extent()
            field = np.asarray(image.get_array())
            row = int((y - top) / (bottom - top) * field.shape[0])
            column = int((x - left) / (right - left) * field.shape[1])
            assert field[row, column] == field.sum() == 1


@pytest.mark.parametrize(("length", "d", "scale", "count"), [
    (8, 2, 0, 48), (16, 2, 0, 48), (16, 2, 1, 48), (32, 2, 0, 24), (32, 2, 1, 24), (32, 2, 2, 24),
    (64, 2, 0, 24), (64, 2, 4, 12), (64, 2, 5, 4), (16, 1, 0, 8), (64, 1, 0, 16), (128, 1, 0, 16),
])  # fmt: skip
def test_a_subset_is_spread_evenly(length: int, d: int, scale: int, count: int) -> None:
    """Equally many of each kind (place in its cell), in rows and columns of equal distance."""
    scales = latent_scales(length, d)
    latents = evenly_chosen(scales, scale)
    assert len(set(latents.tolist())) == count
    assert (np.diff(latents) > 0).all()
    sites = np.stack(np.unravel_index(latents, scales.shape), axis=1)
    assert (scales[tuple(sites.T)] == scale).all()
    _, kinds = np.unique(sites // 2**scale % 2, axis=0, return_counts=True)
    assert len(set(kinds.tolist())) == 1
    for along_axis in (sites // 2 ** (scale + 1)).T:
        distances = np.diff(np.unique([*along_axis, length // 2 ** (scale + 1)]))
        assert len(set(distances.tolist())) == 1


def test_panels_hold_the_responses_of_the_chosen_latents() -> None:
    scales = latent_scales(16, 2)
    responses = np.random.default_rng(0).normal(size=(256, 16, 16))
    figure = figure_of(groups_of(scales, 0, responses))
    for scale, axes in zip((3, 2, 1, 0), panels_of(figure), strict=True):
        found = np.array([np.asarray(image.get_array()) for image in axes.get_images()])
        np.testing.assert_array_equal(found, responses[evenly_chosen(scales, scale)])


@pytest.mark.parametrize("kind", KINDS)
def test_all_panels_share_one_range_symmetric_about_zero(kind: str) -> None:
    groups = groups_of(latent_scales(8, 2), 0, np.random.default_rng(0).normal(size=(64, 8, 8)))
    figure = figure_of(groups, kind)
    figure.canvas.draw()
    largest = max(float(np.abs(group.responses).max()) for group in groups)
    norms = {image.norm for axes in panels_of(figure) for image in axes.get_images()}
    assert len(norms) == 1
    (norm,) = norms
    assert (norm.vmin, norm.vmax) == (-largest, largest)
    assert norm(0.0) == pytest.approx(0.5)
    assert norm(0.1) + norm(-0.1) == pytest.approx(1.0)
    (bar,) = [axes for axes in figure.axes if axes.get_xlabel()]
    assert bar.get_xlabel() == "change of the field $x$"
    labels = [text.get_text() for text in bar.get_xticklabels()]
    assert labels[2] == "0"
    assert [label.replace("\N{MINUS SIGN}", "") for label in labels[:2]] == labels[:2:-1]


@pytest.mark.parametrize("kind", ["difference", "gradient"])
def test_small_responses_are_seen_beside_large_ones(kind: str) -> None:
    """A tenth of the largest value takes a quarter of the colours or more."""
    largest = np.zeros((4, 2, 2))
    largest[0, 0, 0] = 7.0
    colors = colors_of(kind, groups_of(latent_scales(2, 2), 0, largest))
    assert colors(0.7) - 0.5 > 0.5 / 4


@pytest.mark.parametrize(("kind", "scale", "words"), [
    ("flipped", 0, "Circle: the latent's own site."),
    ("flipped", 1, "Circle: the latent's own site. Latents of scales below 1 (finer) do not reach "
                   "this field."),
    ("gradient", 0, "Circle: the latent's own site. Colours grow linearly near 0 and "
                    "logarithmically further out."),
])  # fmt: skip
def test_the_note_says_what_is_marked_and_left_out(kind: str, scale: int, words: str) -> None:
    assert note_on(kind, scale) == words
    figure = figure_of(some_groups(8, field_scale=scale), kind, scale)
    shown = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert words in shown


@pytest.mark.parametrize(("length", "d", "scale"), [
    (2, 2, 0), (8, 2, 0), (8, 2, 1), (16, 2, 3), (32, 2, 1), (16, 1, 0), (16, 1, 3),
])  # fmt: skip
def test_texts_stay_apart_and_inside(length: int, d: int, scale: int) -> None:
    figure = figure_of(some_groups(length, d, scale), "gradient", scale)
    figure.canvas.draw()  # gives every text its place
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    hidden = {text for axes in panels_of(figure) for text in axis_texts(axes)}
    extents = [text.get_window_extent() for text in texts if text not in hidden]
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert len(extents) > 7
    for one, other in itertools.combinations(extents, 2):
        assert not one.overlaps(other)
    for extent, box in itertools.product(extents, boxes):
        assert not extent.overlaps(box)
    width, height = figure.canvas.get_width_height()
    for extent in (*extents, *boxes):
        assert extent.x0 >= -1
        assert extent.y0 >= -1
        assert extent.x1 <= width + 1
        assert extent.y1 <= height + 1


def axis_texts(axes: Axes) -> list[Text]:
    """The tick labels of axes that are switched off."""
    return [*axes.xaxis.findobj(Text), *axes.yaxis.findobj(Text)]


# --- the stage ----------------------------------------------------------------------------------


def renormalized_run(new_run: NewRun, length: int = 4, d: int = 2, **changes: Any) -> Any:
    """A folder with settings and what `strata.neural_rg.renormalize` would have left for them."""
    run = new_run(target={"L": length, "d": d, "T": 2.0}, **changes)
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {"latent_scales": latent_scales(length, d)}
    for scale in range(length.bit_length() - 1):
        field = [length // 2**scale] * d
        arrays[f"fields/scale{scale}"] = random.normal(size=(4, *field)).astype(np.float32)
        for kind in KINDS:
            arrays[f"{kind}/scale{scale}"] = random.normal(size=(length**d, *field))
    write_h5(
        source(run),
        arrays,
        units=dict.fromkeys(arrays, "1"),
        attributes=provenance(run.settings.canonical_json()),
    )
    return run


def source(run: Any) -> Path:
    return run.folder / "renormalization.h5"


def pictures(run: Any) -> list[Path]:
    return [run.folder / f"responses.{suffix}" for suffix in ("pdf", "png")]


def command(run: Any, scale: str = "0", kind: str = "difference") -> list[str]:
    figure, image = pictures(run)
    return [
        *("--settings", str(run.path("settings"))),
        *("--renormalization", str(source(run))),
        *("--scale", scale),
        *("--kind", kind),
        *("--figure", str(figure)),
        *("--image", str(image)),
    ]


def complaint_of(arguments: list[str], run: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What a stage says that refuses its input and leaves nothing."""
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments))
    assert left.value.code == 2
    assert not any(path.exists() for path in pictures(run))
    return capsys.readouterr().err


def test_stage_draws_the_same_bytes_again(new_run: NewRun) -> None:
    run = renormalized_run(new_run)
    main(command(run))
    first = [path.read_bytes() for path in pictures(run)]
    assert first[0].startswith(b"%PDF")
    assert first[1].startswith(b"\x89PNG")
    main(command(run))
    assert [path.read_bytes() for path in pictures(run)] == first
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize(("kind", "first", "title", "label"), [
    ("flipped", "(a) no latent flipped",
     "draw 1: field of scale 0 (4 × 4) when the sign of one latent is flipped", "field $x$"),
    ("difference", "(a) latents of scale 1 (coarsest): 4 of 4",
     "draw 1: change of the field of scale 0 (4 × 4) when the sign of one latent is flipped",
     "change of the field $x$"),
    ("gradient", "(a) latents of scale 1 (coarsest): 4 of 4",
     "gradient of the field of scale 0 (4 × 4) with respect to one latent, averaged over draws",
     r"mean of $\partial x / \partial z$"),
])  # fmt: skip
def test_stage_says_what_it_shows(
    kind: str, first: str, title: str, label: str, new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = renormalized_run(new_run)
    figures: list[Figure] = []
    monkeypatch.setattr(
        "strata.neural_rg.plot_responses.save_figure", lambda figure, paths: figures.append(figure)
    )
    main(command(run, kind=kind))
    (figure,) = figures
    assert headings(figure)[0] == first
    assert f"Ising 4 × 4, periodic, $T$ = 2 $J/k_B$\n{title}" in [
        text.get_text() for text in figure.texts
    ]
    assert figure.axes[-1].get_xlabel() == label


def test_the_flipped_fields_stand_beside_the_unflipped_one(
    new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = renormalized_run(new_run, 8, d=1)
    figures: list[Figure] = []
    monkeypatch.setattr(
        "strata.neural_rg.plot_responses.save_figure", lambda figure, paths: figures.append(figure)
    )
    main(command(run, scale="1", kind="flipped"))
    plain, *others = panels_of(figures[0])
    assert [len(axes.get_images()) for axes in (plain, *others)] == [1, 2, 2]
    assert not plain.get_lines(), "nothing to mark"
    assert np.shape(plain.get_images()[0].get_array()) == (1, 4)


@pytest.mark.parametrize("scale", ["-1", "2", "7"])
def test_a_scale_that_is_not_there_is_one_sentence(
    scale: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = renormalized_run(new_run)
    complaint = complaint_of(command(run, scale=scale), run, capsys)
    assert complaint == (
        f"strata: --scale {scale}: {source(run)} holds the scales 0 (finest) to 1 (coarsest); name "
        "one of them.\n"
    )


@pytest.mark.parametrize("changes", [{"scale": "fine"}, {"kind": "jacobian"}])
def test_a_bad_option_is_refused(
    changes: dict[str, str], new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = renormalized_run(new_run)
    complaint = complaint_of(command(run, **changes), run, capsys)
    (value,) = changes.values()
    assert value in complaint


def test_a_file_of_another_run_is_refused(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = renormalized_run(new_run)
    other = new_run("other", target={"L": 8})
    arguments = command(run)
    arguments[1] = str(other.path("settings"))
    complaint = complaint_of(arguments, run, capsys)
    assert f"{source(run)} was made with another target" in complaint
    assert complaint.count("\n") == 1


def test_a_missing_file_is_named(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    assert f"{source(run)} does not exist" in complaint_of(command(run), run, capsys)
