"""The course of a chain in pictures: which field stands where, and what was accepted."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from strata.artifacts import write_h5
from strata.neural_rg.field_pictures import FIELD_COLORS, value_limit
from strata.neural_rg.plot_configurations import (
    ACCEPTED,
    DATASETS,
    REJECTED,
    SECONDS_PER_STEP,
    STEPS_ON_PAGE,
    STEPS_PER_BAND,
    Outcome,
    Trajectory,
    chain_frames,
    configurations_page,
    main,
    read_trajectory,
)
from strata.stages import run_stage

NewRun = Callable[..., Any]

SHAPES = [(2, 2), (4, 4), (8,), (2,)]
PATTERN = (True, False, False, True, True, False, True)  # what was accepted, over and over


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def trajectory(n: int, shape: tuple[int, ...]) -> Trajectory:
    """A chain that started somewhere and moves to what it accepts."""
    random = np.random.default_rng(n)
    start, *proposed = random.normal(0.0, 2.0, (n + 1, *shape)).astype(np.float32)
    accepted = np.resize(PATTERN, n)
    states = []
    for proposal, moves in zip(proposed, accepted, strict=True):
        start = proposal if moves else start
        states.append(start)
    return Trajectory(np.stack(proposed), np.stack(states), accepted)


def drawn(figure: Figure) -> Figure:
    """The figure, rendered once so that every tick and label exists."""
    figure.canvas.draw()
    return figure


def look_of(panel: Axes) -> tuple[str, str]:
    """Colour and line of a panel's frame, the same on all four sides."""
    (look,) = {
        (to_hex(spine.get_edgecolor()), spine.get_linestyle()) for spine in panel.spines.values()
    }
    assert all(spine.get_visible() for spine in panel.spines.values())
    return look


def image_in(panel: Axes) -> np.ndarray:
    (image,) = panel.images
    return np.asarray(image.get_array())


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


# --- the look of proposals ----------------------------------------------------------------------


def test_outcomes_differ_in_more_than_colour() -> None:
    for name in ("word", "sign", "color", "linestyle", "marker"):
        assert getattr(ACCEPTED, name) != getattr(REJECTED, name)
    assert (ACCEPTED.label, REJECTED.label) == ("✓ accepted", "✕ rejected")


def test_zero_has_the_neutral_colour_and_signs_have_their_own() -> None:
    red, green, blue, _ = FIELD_COLORS(0.5)
    assert min(red, green, blue) > 0.9
    below, above = FIELD_COLORS(0.2), FIELD_COLORS(0.8)
    assert below[2] > below[0]
    assert above[0] > above[2]


def test_few_values_exceed_the_scale() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    assert (np.abs(values) > value_limit(values)).mean() == pytest.approx(0.01, abs=2e-4)
    assert value_limit(np.zeros(5)) == 1.0


# --- the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, STEPS_PER_BAND, STEPS_PER_BAND + 1, STEPS_ON_PAGE + 4])
def test_bands_show_proposals_above_and_states_below(n: int) -> None:
    course = trajectory(n, (4, 4))
    figure = configurations_page(course, "a title")
    n_shown = min(n, STEPS_ON_PAGE)
    *panels, bar = figure.axes
    n_bands = -(-n_shown // STEPS_PER_BAND)
    bands = np.array(panels).reshape(n_bands, 2, STEPS_PER_BAND)
    for place in range(n_bands * STEPS_PER_BAND):
        above, below = bands[place // STEPS_PER_BAND, :, place % STEPS_PER_BAND]
        if place >= n_shown:
            assert not above.axison
            assert not below.axison
            continue
        outcome = ACCEPTED if course.accepted[place] else REJECTED
        np.testing.assert_array_equal(image_in(above), course.proposed[place])
        np.testing.assert_array_equal(image_in(below), course.state[place])
        assert look_of(above) == (outcome.color.lower(), outcome.linestyle)
        assert look_of(below) == ("#000000", "-")
        assert above.get_title().removeprefix("step ") == f"{place + 1} {outcome.sign}"
    assert bands[0, 0, 0].get_title().startswith("step 1 ")
    assert {band[0, 0].get_ylabel() for band in bands} == {"proposed"}
    assert {band[1, 0].get_ylabel() for band in bands} == {"state"}
    assert bar.get_xlabel() == "field $x$"
    assert figure.get_suptitle() == "a title"
    assert legend_of(figure) == ["✓ accepted", "✕ rejected"]


def test_all_fields_have_one_scale_about_zero() -> None:
    course = trajectory(3, (4, 4))
    *panels, _ = configurations_page(course, "").axes
    limits = {panel.images[0].get_clim() for panel in panels if panel.images}
    limit = float(np.quantile(np.abs(np.stack([course.proposed, course.state])), 0.99))
    assert limits == {(-limit, limit)}
    assert {panel.images[0].get_cmap().name for panel in panels if panel.images} == {
        FIELD_COLORS.name
    }


def test_fields_on_a_line_are_rows() -> None:
    course = trajectory(12, (8,))
    figure = drawn(configurations_page(course, "a title"))
    left, right, bar = figure.axes
    np.testing.assert_array_equal(image_in(left), course.proposed)
    np.testing.assert_array_equal(image_in(right), course.state)
    for panel in (left, right):
        assert panel.get_xlim() == (0.5, 8.5), "sites 1 to 8"
        assert panel.get_ylim() == (12.5, 0.5), "steps 1 to 12, downwards"
        assert panel.get_xlabel() == "site"
    assert (left.get_title(), right.get_title()) == ("proposed", "state")
    assert left.get_ylabel() == "step"
    assert bar.get_xlabel() == "field $x$"
    assert legend_of(figure) == ["accepted", "rejected"]
    accepted, rejected = right.lines
    assert np.asarray(accepted.get_ydata()).tolist() == [1, 4, 5, 7, 8, 11, 12]
    assert np.asarray(rejected.get_ydata()).tolist() == [2, 3, 6, 9, 10]
    assert (accepted.get_marker(), rejected.get_marker()) == (ACCEPTED.marker, REJECTED.marker)


def test_points_are_marked_by_what_became_of_them() -> None:
    course = trajectory(7, (2,))
    figure = drawn(configurations_page(course, "a title"))
    (panel,) = figure.axes
    way, accepted, rejected = panel.lines
    np.testing.assert_array_equal(way.get_xydata(), course.state)
    np.testing.assert_array_equal(accepted.get_xydata(), course.proposed[[0, 3, 4, 6]])
    np.testing.assert_array_equal(rejected.get_xydata(), course.proposed[[1, 2, 5]])
    assert (accepted.get_marker(), rejected.get_marker()) == (ACCEPTED.marker, REJECTED.marker)
    assert legend_of(figure) == ["chain", "accepted", "rejected"]
    assert panel.get_aspect() == 1.0
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("$x_1$", "$x_2$")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flag", [True, False])
def test_a_chain_that_never_or_always_moves(shape: tuple[int, ...], flag: bool) -> None:
    course = trajectory(2, shape)
    same = Trajectory(course.proposed, 0 * course.state, np.full(2, flag))
    drawn(configurations_page(same, ""))
    assert len(list(chain_frames(same, ""))) == 2


# --- the animation ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_show_the_steps_one_after_the_other(shape: tuple[int, ...]) -> None:
    course = trajectory(5, shape)
    fixed = set()
    for step, figure in enumerate(chain_frames(course, "a title"), start=1):
        left, right = figure.axes[:2]
        outcome: Outcome = ACCEPTED if course.accepted[step - 1] else REJECTED
        assert figure.get_suptitle() == "a title"
        assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("proposed", "state")
        assert left.get_title(loc="right") == f"{outcome.sign} {outcome.word}"
        assert right.get_title(loc="right") == f"step {step}"
        assert look_of(left) == (outcome.color.lower(), outcome.linestyle)
        assert look_of(right) == ("#000000", "-")
        for panel, fields in ((left, course.proposed), (right, course.state)):
            np.testing.assert_array_equal(field_in(panel, shape), fields[step - 1])
        fixed.add((left.get_xlim(), left.get_ylim(), right.get_xlim(), right.get_ylim()))
    assert step == 5
    assert len(fixed) == 1, "the axes stay"


def field_in(panel: Axes, shape: tuple[int, ...]) -> np.ndarray:
    """The field that a frame's panel shows."""
    if len(shape) == 2:
        return image_in(panel)
    last = np.asarray(panel.lines[-1].get_xydata())
    if shape == (2,):
        return last[0]
    assert last[:, 0].tolist() == list(range(1, shape[0] + 1))
    return last[:, 1]


def test_earlier_points_stay_in_sight() -> None:
    course = trajectory(4, (2,))
    *_, figure = chain_frames(course, "")
    earlier, _ = figure.axes[1].lines
    np.testing.assert_array_equal(earlier.get_xydata(), course.state[:3])


def test_a_curve_stays_within_its_axes() -> None:
    course = trajectory(4, (8,))
    *_, figure = chain_frames(course, "")
    low, high = figure.axes[0].get_ylim()
    largest = max(np.abs(course.proposed).max(), np.abs(course.state).max())
    assert low == -high
    assert largest < high < 1.3 * largest


# --- the stage ----------------------------------------------------------------------------------


def with_samples(run: Any, course: Trajectory, **changes: np.ndarray | None) -> Any:
    """Put samples into a run's folder; `changes` replaces datasets, or leaves them out (None)."""
    arrays = {"proposed": course.proposed, "state": course.state, "accepted": course.accepted}
    arrays = {
        f"trajectory/{name}": array
        for name, array in {**arrays, **changes}.items()
        if array is not None
    }
    write_h5(run.path("samples"), arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return run


def arguments(run: Any) -> list[str]:
    files = {
        "settings": run.path("settings"),
        "samples": run.path("samples"),
        "figure": run.folder / "configurations.pdf",
        "image": run.folder / "configurations.png",
        "animation": run.folder / "configurations.gif",
    }
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


OUTPUTS = {"configurations.pdf", "configurations.png", "configurations.gif"}


@pytest.mark.parametrize("shape", [(4, 4), (8,), (2,)])
def test_stage_draws_page_and_animation(new_run: NewRun, shape: tuple[int, ...]) -> None:
    run = with_samples(new_run(), trajectory(3, shape))
    main(arguments(run))
    assert run.names() == {"samples.h5", *OUTPUTS}
    contents = {name: (run.folder / name).read_bytes() for name in OUTPUTS}
    assert contents["configurations.pdf"].startswith(b"%PDF")
    assert contents["configurations.png"].startswith(b"\x89PNG")
    with Image.open(run.folder / "configurations.gif") as animation:
        assert animation.n_frames == 3
        assert animation.info["duration"] == 1000 * SECONDS_PER_STEP
    assert not plt.get_fignums(), "a saved figure is closed"
    if shape == (2,):
        main(arguments(run))
        assert {name: (run.folder / name).read_bytes() for name in OUTPUTS} == contents


def test_stage_names_the_target(new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []

    def note(course: Trajectory, title: str) -> Figure:
        titles.append(title)
        return plt.figure(figsize=(0.5, 0.5))

    def note_and_yield(course: Trajectory, title: str) -> Iterator[Figure]:
        yield note(course, title)

    monkeypatch.setattr("strata.neural_rg.plot_configurations.configurations_page", note)
    monkeypatch.setattr("strata.neural_rg.plot_configurations.chain_frames", note_and_yield)
    main(arguments(with_samples(new_run(target={"L": 4, "T": 3.0}), trajectory(1, (4, 4)))))
    assert titles == ["Ising 4 × 4, periodic, $T$ = 3 $J/k_B$"] * 2


def test_what_is_read_is_what_was_stored(new_run: NewRun) -> None:
    course = trajectory(4, (8,))
    read = read_trajectory(with_samples(new_run(), course).path("samples"))
    for name in ("proposed", "state", "accepted"):
        np.testing.assert_array_equal(getattr(read, name), getattr(course, name))
    assert DATASETS == ("trajectory/proposed", "trajectory/state", "trajectory/accepted")


COURSE = trajectory(4, (4, 4))


@pytest.mark.parametrize(("changes", "message"), [
    ({"state": None}, "holds no trajectory/state"),
    ({"accepted": None}, "holds no trajectory/accepted"),
    ({"state": COURSE.state[:, :2]}, "different shapes ((4, 2, 4) and (4, 4, 4))"),
    ({"state": COURSE.state[:3]}, "different shapes"),
    ({"accepted": COURSE.accepted[:3]}, "holds 4 proposals and says of 3"),
    ({"proposed": COURSE.proposed[:0], "state": COURSE.state[:0]}, "missing"),
    ({"proposed": np.full_like(COURSE.proposed, np.nan)}, "not finite"),
])  # fmt: skip
def test_samples_that_cannot_be_drawn_are_one_sentence(
    changes: dict[str, np.ndarray | None],
    message: str,
    new_run: NewRun,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = with_samples(new_run(), COURSE, **changes)
    assert status(run) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(run.path("samples")) in complaint
    assert complaint.count("\n") == 1
    assert run.names() == {"samples.h5"}, "nothing half-written"


def test_missing_samples_are_named(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    assert status(run) == 2
    assert f"{run.path('samples')} does not exist" in capsys.readouterr().err
    assert run.names() == set()


def status(run: Any) -> int:
    """The exit status that the stage's process would have."""
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(run)))
    assert isinstance(left.value.code, int)
    return left.value.code
