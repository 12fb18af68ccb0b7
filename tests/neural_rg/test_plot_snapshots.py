"""The training in pictures: which fields stand where, at every snapshot, on axes that stay."""

from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from strata.history import History
from strata.neural_rg.plot_snapshots import (
    ROWS,
    SECONDS_AT_END,
    SECONDS_PER_SNAPSHOT,
    Snapshots,
    main,
    read_snapshots,
    training_frames,
    two_components,
)
from strata.stages import run_stage

NewRun = Callable[..., Any]

SHAPES = [(2, 2), (4, 4), (8,), (2,)]


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def snapshots(n: int, shape: tuple[int, ...], *, n_fields: int = 20) -> Snapshots:
    """Chains that stay as wide as they are, and proposals that grow as wide."""
    random = np.random.default_rng(n)
    chain = random.normal(0.0, 2.0, (n, n_fields, *shape))
    width = np.linspace(0.2, 2.0, n).reshape(n, 1, *[1] * len(shape))
    proposed = width * random.normal(size=(1, n_fields, *shape))
    steps = 100 * np.arange(n)
    return Snapshots(steps, proposed.astype(np.float32), chain.astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_show_the_snapshots_one_after_the_other(shape: tuple[int, ...]) -> None:
    taken = snapshots(3, shape)
    fixed = set()
    for i, figure in enumerate(training_frames(taken, "a title")):
        scatter, *beside = figure.axes
        chain, proposed = scatter.lines
        assert figure.get_suptitle() == "a title"
        assert scatter.get_title(loc="left") == f"training step {100 * i}"
        flat = (each[i].reshape(20, -1)[:, :2] for each in (taken.chain, taken.proposed))
        for line, expected in zip((chain, proposed), flat, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), expected)
        images = [np.asarray(panel.images[0].get_array()) for panel in beside if panel.images]
        expected_images = {
            2: list(taken.proposed[i, :4]),
            1: [taken.proposed[i, :ROWS]] if shape != (2,) else [],
        }[len(shape)]
        assert len(images) == len(expected_images)
        for image, expected in zip(images, expected_images, strict=True):
            np.testing.assert_array_equal(image, expected)
        fixed.add((scatter.get_xlim(), scatter.get_ylim()))
        fixed.update(panel.images[0].get_clim() for panel in beside if panel.images)
    assert i == 2
    assert len(fixed) == (1 if shape == (2,) else 2), "axes and colours stay"


def test_a_site_and_its_neighbour() -> None:
    fields = np.arange(2 * 3 * 16.0).reshape(2, 3, 4, 4)
    np.testing.assert_array_equal(two_components(fields), fields[:, :, 0, :2])
    np.testing.assert_array_equal(two_components(fields[..., 0]), fields[:, :, :2, 0])


@pytest.mark.parametrize("shape", SHAPES)
def test_axes_hold_nearly_all_points_of_all_snapshots(shape: tuple[int, ...]) -> None:
    taken = snapshots(10, shape)
    figure = next(training_frames(taken, ""))
    scatter = figure.axes[0]
    (left, right), (bottom, top) = scatter.get_xlim(), scatter.get_ylim()
    points = np.concatenate([two_components(taken.chain), two_components(taken.proposed)])
    x, y = points.reshape(-1, 2).T
    inside = (left < x) & (x < right) & (bottom < y) & (y < top)
    assert inside.mean() > 0.97
    assert right - left == pytest.approx(top - bottom)
    assert scatter.get_aspect() == 1.0
    assert right - left < 1.3 * max(np.ptp(x), np.ptp(y))


def test_kinds_of_points_are_told_apart_in_words() -> None:
    figure = next(training_frames(snapshots(2, (4, 4)), ""))
    scatter, first, *_, bar = figure.axes
    chain, proposed = scatter.lines
    assert chain.get_marker() != proposed.get_marker()
    assert chain.get_color() != proposed.get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["chains", "proposals"]
    assert (scatter.get_xlabel(), scatter.get_ylabel()) == ("$x$ at a site", "$x$ at its neighbour")
    assert first.get_title(loc="left") == "proposals"
    assert bar.get_ylabel() == "field $x$"
    low, high = first.images[0].get_clim()
    assert low == -high


def test_points_of_the_plane_stand_alone() -> None:
    (panel,) = next(training_frames(snapshots(2, (2,)), "")).axes
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("$x_1$", "$x_2$")


@pytest.mark.parametrize("n_fields", [1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_few_fields_are_enough(n_fields: int, shape: tuple[int, ...]) -> None:
    figures = list(training_frames(snapshots(1, shape, n_fields=n_fields), ""))
    n_images = sum(len(panel.images) for panel in figures[0].axes)
    assert n_images == {2: 4 if n_fields == 4 else 1, 1: int(shape != (2,))}[len(shape)]


# --- the stage ----------------------------------------------------------------------------------


def with_history(run: Any, taken: Snapshots, *, leave_out: str = "", **changes: Any) -> Any:
    """Put a history with these snapshots into a run's folder."""
    rows = {"step": taken.step, "proposed": taken.proposed, "chain": taken.chain, **changes}
    history = History(run.path("history"), {"proposed": "1", "chain": "1", "loss": "nats"})
    history.append("train", {"step": np.arange(3), "loss": np.zeros(3)})
    rows = {name: column for name, column in rows.items() if name != leave_out}
    if leave_out != "snapshots":
        history.append("snapshots", rows)
    history.finish({})
    return run


def arguments(run: Any) -> list[str]:
    files = {
        "settings": run.path("settings"),
        "history": run.path("history"),
        "animation": run.folder / "animation.gif",
    }
    return [text for name, path in files.items() for text in (f"--{name}", str(path))]


@pytest.mark.parametrize("shape", [(4, 4), (8,), (2,)])
def test_stage_draws_the_animation(new_run: NewRun, shape: tuple[int, ...]) -> None:
    run = with_history(new_run(), snapshots(3, shape))
    main(arguments(run))
    assert run.names() == {"history.h5", "animation.gif"}
    with Image.open(run.folder / "animation.gif") as animation:
        assert animation.n_frames == 3
        durations = []
        for i in range(3):
            animation.seek(i)
            durations.append(animation.info["duration"])
    usual = 1000 * SECONDS_PER_SNAPSHOT
    assert durations == [usual, usual, 1000 * SECONDS_AT_END]
    assert durations[-1] > usual, "the end stays longer"
    assert not plt.get_fignums()
    if shape == (2,):
        content = (run.folder / "animation.gif").read_bytes()
        main(arguments(run))
        assert (run.folder / "animation.gif").read_bytes() == content


def test_what_is_read_is_what_was_stored(new_run: NewRun) -> None:
    taken = snapshots(3, (4, 4))
    read = read_snapshots(with_history(new_run(), taken).path("history"))
    for name in ("step", "proposed", "chain"):
        np.testing.assert_array_equal(getattr(read, name), getattr(taken, name))


TAKEN = snapshots(3, (4, 4))


@pytest.mark.parametrize(("changes", "message"), [
    ({"leave_out": "snapshots"}, "no rows of the phase 'snapshots'"),
    ({"leave_out": "chain"}, "snapshots without chain"),
    ({"leave_out": "proposed"}, "snapshots without proposed"),
    ({"chain": TAKEN.chain[:, :, :2]}, "different shapes"),
    ({"chain": np.full_like(TAKEN.chain, np.inf)}, "not finite"),
])  # fmt: skip
def test_a_history_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any], message: str, new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_history(new_run(), TAKEN, **changes)
    assert status(run) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(run.path("history")) in complaint
    assert complaint.count("\n") == 1
    assert run.names() == {"history.h5"}, "nothing half-written"


def test_a_missing_history_is_named(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    assert status(run) == 2
    assert f"{run.path('history')} does not exist" in capsys.readouterr().err
    assert run.names() == set()


def status(run: Any) -> int:
    """The exit status that the stage's process would have."""
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(run)))
    assert isinstance(left.value.code, int)
    return left.value.code
