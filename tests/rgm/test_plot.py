"""Figures of the training: curves are the file's, the reference is dashed, bad files are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from strata.artifacts import write_h5
from strata.history import read_history
from strata.rgm import plot, plot_snapshots
from strata.rgm.plot import (
    PARTS,
    in_pieces,
    learning_rate_and_gradient,
    loss_and_accuracy,
    spread,
)
from strata.rgm.plot_snapshots import evenly_chosen, training_reconstructions
from strata.stages import run_stage

Arrays = dict[str, np.ndarray]
NewHistory = Callable[..., Path]

STEPS_PER_EPOCH = 50
N_STEPS = 500
SIDE = 6
N_SNAPSHOTS = 9


@pytest.fixture(autouse=True)
def _closed_figures() -> Any:
    yield
    plt.close("all")


def history(*, prediction: float = 0.01) -> Arrays:
    """Rows of a training that goes well; `prediction` is where that part of the loss ends."""
    random = np.random.default_rng(0)
    step = np.arange(1, N_STEPS + 1)
    ends = {"reconstruction": 0.03, "consistency": 4e-3, "sparsity": 1e-4, "class": 2e-3}
    decay = np.exp(-step / 100.0)
    parts = {
        f"weighted_{name}": (end + 0.1 * decay) * np.exp(0.1 * random.normal(size=N_STEPS))
        for name, end in ends.items()
    }
    parts["weighted_prediction"] = prediction + 0.05 * decay
    train = {
        "step": step,
        "epoch": step / STEPS_PER_EPOCH,
        **parts,
        "loss": np.sum(list(parts.values()), axis=0),
        "learning_rate": np.where(step < 300, 1e-3, 5e-4),
        "gradient_norm": np.exp(random.normal(size=N_STEPS)),
    }
    evaluated_at = np.arange(0, N_STEPS + 1, STEPS_PER_EPOCH)
    left = np.exp(-evaluated_at / 100.0)
    evaluated = {
        "step": evaluated_at,
        "epoch": evaluated_at / STEPS_PER_EPOCH,
        "accuracy": 0.97 - 0.87 * left,
        **{f"mse_level{level}": 0.004 * (level + 1) + 0.06 * left for level in range(3)},
    }
    images = np.broadcast_to(random.random((10, SIDE**2)), (N_SNAPSHOTS, 10, SIDE**2))
    snapshots = {
        "step": np.linspace(0, N_STEPS, N_SNAPSHOTS).astype(int),
        "images": images,
        "reconstructions": random.random((N_SNAPSHOTS, 3, 10, SIDE**2)),
    }
    phases = {"train": train, "eval": evaluated, "snapshots": snapshots}
    return {f"{phase}/{name}": x for phase, table in phases.items() for name, x in table.items()}


def phase(arrays: Arrays, name: str) -> Arrays:
    return {key.split("/")[1]: x for key, x in arrays.items() if key.startswith(name)}


@pytest.fixture
def new_history(tmp_path: Path) -> NewHistory:
    """Return a function that writes a history, without the datasets that are named."""

    def new(*without: str, **changes: float) -> Path:
        arrays = {name: x for name, x in history(**changes).items() if name not in without}
        path = tmp_path / "history.h5"
        write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
        return path

    return new


def arguments(path: Path, names: list[str], folder: Path) -> list[str]:
    texts = ["--history", str(path)]
    for name in names:
        image = "image" if name == "figure" else f"{name}-image"
        texts += [f"--{name}", str(folder / f"{name}.pdf"), f"--{image}"]
        texts.append(str(folder / f"{name}.png"))
    return texts


STAGES = [(plot, ["loss", "learning-rate"]), (plot_snapshots, ["figure"])]


PCA_16 = plot.Components(16, 0.0269)


def curves(panel: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in panel.get_lines()}


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def drawn(*, pca: plot.Components | None = PCA_16, **changes: float) -> Figure:
    arrays = history(**changes)
    figure = loss_and_accuracy(phase(arrays, "train"), phase(arrays, "eval"), pca)
    figure.canvas.draw()
    return figure


def test_the_loss_and_its_parts_are_drawn_with_names_at_their_ends() -> None:
    loss = drawn().axes[0]
    train = phase(history(), "train")
    shown = curves(loss)
    np.testing.assert_allclose(shown["loss"], in_pieces(train["loss"]))
    for name in PARTS:
        np.testing.assert_allclose(shown[name], in_pieces(train[f"weighted_{name}"]))
    assert set(texts(loss)) == {"loss", *PARTS}
    assert loss.get_yscale() == "log"
    assert "(1)" in loss.get_ylabel()


def test_parts_differ_in_colour_and_in_line() -> None:
    lines = [line for line in drawn().axes[0].get_lines() if line.get_label() in {"loss", *PARTS}]
    assert len(lines) == len(PARTS) + 1
    assert len({line.get_color() for line in lines}) == len(lines)
    patterns = {str(getattr(line, "_unscaled_dash_pattern", "?")) for line in lines}
    assert len(patterns) == len(lines)


def test_a_negative_part_stays_in_the_figure() -> None:
    loss = drawn(prediction=-0.02).axes[0]
    assert loss.get_yscale() == "symlog"
    assert loss.get_ylim()[0] < -0.02
    assert curves(loss)["prediction"].min() < -0.01


def test_errors_of_each_level_stand_against_the_dashed_line_of_principal_components() -> None:
    errors = drawn().axes[1]
    evaluated = phase(history(), "eval")
    shown = curves(errors)
    for level in range(3):
        np.testing.assert_array_equal(shown[f"level {level}"], evaluated[f"mse_level{level}"])
    assert set(shown["PCA-16"]) == {0.0269}
    (line,) = (line for line in errors.get_lines() if line.get_label() == "PCA-16")
    assert (line.get_linestyle(), line.get_color()) == ("--", "black")
    last = evaluated["mse_level2"][-1]
    assert {"PCA-16: 0.0269", f"level 2: {last:.4f}"} <= set(texts(errors))
    assert errors.get_ylabel() == "mean squared error\n(per pixel)"


def test_without_baselines_there_is_no_dashed_line() -> None:
    errors = drawn(pca=None).axes[1]
    assert list(curves(errors)) == ["level 0", "level 1", "level 2"]


def test_accuracy_is_drawn_against_epochs() -> None:
    accuracy = drawn().axes[2]
    (line,) = accuracy.get_lines()
    evaluated = phase(history(), "eval")
    np.testing.assert_array_equal(np.asarray(line.get_ydata()), evaluated["accuracy"])
    np.testing.assert_array_equal(np.asarray(line.get_xdata()), evaluated["epoch"])
    assert accuracy.get_xlabel() == "epoch"
    assert accuracy.get_xlim() == (0, N_STEPS / STEPS_PER_EPOCH)
    assert accuracy.get_ylim()[1] == 1.0
    assert accuracy.get_ylabel() == "accuracy\n(fraction)"


def test_learning_rate_and_gradient_are_drawn_on_logarithmic_axes() -> None:
    train = phase(history(), "train")
    rate, gradient = learning_rate_and_gradient(train).axes
    np.testing.assert_array_equal(np.asarray(rate.lines[0].get_ydata()), train["learning_rate"])
    np.testing.assert_array_equal(np.asarray(gradient.lines[0].get_ydata()), train["gradient_norm"])
    assert rate.get_yscale() == gradient.get_yscale() == "log"
    assert gradient.get_xlabel() == "epoch"


@pytest.mark.parametrize("n", [1, 7, 100, 1200])
def test_means_of_pieces_keep_the_mean_and_the_order(n: int) -> None:
    values = np.arange(n, dtype=float)
    pieces = in_pieces(values)
    assert len(pieces) == min(n, 100)
    assert pieces.mean() == pytest.approx(values.mean())
    assert (np.diff(pieces) > 0).all()


def test_labels_that_would_collide_move_apart_and_others_stay() -> None:
    heights = np.array([0.1, 0.50, 0.52, 0.9])
    moved = spread(heights, 0.1)
    np.testing.assert_allclose(moved, [0.1, 0.46, 0.56, 0.9])
    crowd = spread(np.full(5, 0.3), 0.1)
    np.testing.assert_allclose(crowd, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_snapshots_are_the_first_the_last_and_some_between() -> None:
    np.testing.assert_array_equal(evenly_chosen(11, 6), [0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(evenly_chosen(3, 6), [0, 1, 2])
    np.testing.assert_array_equal(evenly_chosen(1, 6), [0])


def test_rows_are_images_and_reconstructions_of_the_highest_level(
    new_history: NewHistory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, ...]] = []

    def spied(*given: np.ndarray) -> Figure:
        seen.append(given)
        return training_reconstructions(*given)

    monkeypatch.setattr(plot_snapshots, "training_reconstructions", spied)
    path = new_history()
    plot_snapshots.main(arguments(path, ["figure"], tmp_path))
    ((images, rebuilt, epochs),) = seen
    stored = read_history(path, "snapshots")
    chosen = evenly_chosen(N_SNAPSHOTS, 6)
    np.testing.assert_array_equal(images.reshape(10, -1), stored["images"][0])
    np.testing.assert_array_equal(rebuilt.reshape(6, 10, -1), stored["reconstructions"][chosen, -1])
    np.testing.assert_allclose(epochs, stored["step"][chosen] / STEPS_PER_EPOCH)


def test_rows_carry_their_epoch_and_their_error() -> None:
    images = np.zeros((10, SIDE, SIDE))
    rebuilt = np.stack([np.full_like(images, 0.5), np.full_like(images, 0.1)])
    panel = training_reconstructions(images, rebuilt, np.array([0.0, 12.5])).axes[0]
    assert {"image", "first step", "epoch 12.5", "0.2500", "0.0100"} <= set(texts(panel))
    tiles = np.asarray(panel.images[0].get_array()).reshape(3, SIDE + 2, 10, SIDE + 2)
    np.testing.assert_array_equal(tiles[1:, 1:-1, :, 1:-1].transpose(0, 2, 1, 3), rebuilt)


@pytest.mark.parametrize(("stage", "names"), STAGES)
def test_equal_files_are_equal_bytes(
    stage: Any, names: list[str], new_history: NewHistory, tmp_path: Path
) -> None:
    path = new_history()
    for folder in ("one", "other"):
        stage.main(arguments(path, names, tmp_path / folder))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{name}.{suffix}" for name in names for suffix in ("pdf", "png"))
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert not plt.get_fignums(), "a saved figure is closed"


@pytest.mark.parametrize(
    ("stage", "names", "missing"),
    [
        (plot, STAGES[0][1], "train/weighted_class"),
        (plot, STAGES[0][1], "train/learning_rate"),
        (plot, STAGES[0][1], "eval/mse_level0"),
        (plot_snapshots, STAGES[1][1], "snapshots/reconstructions"),
    ],
)
def test_a_history_without_a_quantity_is_refused_by_name(
    stage: Any,
    names: list[str],
    missing: str,
    new_history: NewHistory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder = new_history(missing), tmp_path / "figures"
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: stage.main(arguments(path, names, folder)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert f"{path} holds no {missing};" in complaint
    assert complaint.count("\n") == 1
    assert not folder.exists()


def test_baselines_give_the_dashed_line_and_are_checked(
    new_history: NewHistory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, baselines = new_history(), tmp_path / "baselines.h5"
    errors = {"mse/pca_64": 0.009, "mse/pca_16": 0.025}
    write_h5(baselines, errors, units=dict.fromkeys(errors, "1"), attributes={})
    assert plot.read_pca(baselines) == plot.Components(16, 0.025)
    assert plot.read_pca(None) is None
    write_h5(baselines, {"mse/black": 0.1}, units={"mse/black": "1"}, attributes={})
    given = [*arguments(path, STAGES[0][1], tmp_path), "--baselines", str(baselines)]
    with pytest.raises(SystemExit) as left:
        run_stage(lambda: plot.main(given))
    assert left.value.code == 2
    assert f"{baselines} holds no mse/pca_<number>;" in capsys.readouterr().err
    assert not (tmp_path / "loss.pdf").exists()
