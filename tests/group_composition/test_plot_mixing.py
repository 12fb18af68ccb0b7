"""The figure of a recurrent network's mixing matrix: blocks, shares, poor data, bad input."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from strata.artifacts import write_h5
from strata.group_composition import predict
from strata.group_composition.config import RunSettings
from strata.group_composition.neurons import Parts, read_parts
from strata.group_composition.plot_mixing import main, mixing
from strata.plotting import save_figure
from strata.stages import run_stage

IRREPS = np.array([1, 3, -1, 2, 2, 1, 3, 2])
ORDER = np.array([5, 0, 3, 7, 4, 6, 1, 2])


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    content = {"group": {"name": "cyclic", "n": 7}, "template": {"name": "fourier", "n_freqs": 3}}
    settings = RunSettings.model_validate(content)
    (tmp_path / "settings.json").write_text(settings.canonical_json(), encoding="utf-8")
    names = ("settings.json", "task.h5", "theory.md")
    predict.main([w for name in names for w in (f"--{Path(name).stem}", str(tmp_path / name))])
    return tmp_path / "task.h5"


@pytest.fixture
def parts(task: Path) -> Parts:
    return read_parts(task)


def arrays_of(parts: Parts, k: int = 3) -> dict[str, Any]:
    """Neurons whose representations are numbered by the order of learning."""
    learned = np.array([*parts.learned, -1])
    return {
        "checkpoints/step": np.array([0, 100, 200]),
        "examples/elements": np.zeros((3, k), np.int64),
        "mixing/weights": np.random.default_rng(8).normal(size=(8, 8)),
        "mixing/order": ORDER,
        "mixing/irrep": np.where(IRREPS > 0, learned[IRREPS - 1], -1),
        "mixing/within": np.array([0.2, 0.5, 0.9]),
    }


def panels(figure: Any) -> tuple[Axes, Axes]:
    matrix, share = figure.axes[:2]
    return matrix, share


def test_rows_and_columns_are_sorted_into_labelled_blocks(parts: Parts) -> None:
    arrays = arrays_of(parts)
    matrix, _ = panels(mixing(parts, arrays))
    drawn = np.asarray(matrix.images[0].get_array())
    expected = [[arrays["mixing/weights"][row, column] for column in ORDER] for row in ORDER]
    np.testing.assert_array_equal(drawn, expected)
    names = [parts.names[irrep] for irrep in parts.learned]
    labels = [f"{name}: {count}" for name, count in zip(names, (2, 3, 2), strict=True)]
    assert [text.get_text() for text in matrix.texts] == [*labels, "dead: 1"]
    ends = [line.get_xydata() for line in matrix.lines]
    across = [end[0, 1] for end in ends if end[:, 0].tolist() == [0.0, 1.0]]
    down = [end[0, 0] for end in ends if end[:, 1].tolist() == [0.0, 1.0]]
    assert across == down == [1.5, 4.5, 6.5]
    assert matrix.get_title("left") == "(a) W_mix after 200 steps"


def test_colours_are_signed_around_zero_and_few_entries_exceed_them(parts: Parts) -> None:
    arrays = arrays_of(parts)
    low, high = panels(mixing(parts, arrays))[0].images[0].get_clim()
    assert low == -high
    assert (np.abs(arrays["mixing/weights"]) > high).sum() == 1
    sparse = np.zeros((20, 20))
    sparse[0, 1] = -8.0
    sorted_ones = {"mixing/order": np.arange(20), "mixing/irrep": np.full(20, parts.learned[0])}
    figure = mixing(parts, arrays | sorted_ones | {"mixing/weights": sparse})
    assert panels(figure)[0].images[0].get_clim() == (-2.0, 2.0)


def test_the_share_is_drawn_over_steps_beside_the_one_at_random(parts: Parts) -> None:
    arrays = arrays_of(parts)
    _, share = panels(mixing(parts, arrays))
    curve, level = share.lines
    np.testing.assert_array_equal(curve.get_xdata(), arrays["checkpoints/step"])
    np.testing.assert_array_equal(curve.get_ydata(), arrays["mixing/within"])
    assert level.get_linestyle() == "--"
    assert level.get_ydata()[0] == pytest.approx((2**2 + 3**2 + 2**2) / 8**2)
    assert not share.texts


def test_sequences_of_two_do_not_use_the_matrix(parts: Parts) -> None:
    _, share = panels(mixing(parts, arrays_of(parts, k=2)))
    assert [text.get_text() for text in share.texts] == ["sequences of two do not use W_mix"]


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_constant_matrix_of_dead_neurons_is_drawn(fill: float, parts: Parts) -> None:
    arrays = arrays_of(parts) | {"mixing/irrep": np.full(8, -1)}
    figure = mixing(parts, arrays | {"mixing/weights": np.full((8, 8), fill)})
    figure.canvas.draw()
    assert [text.get_text() for text in figure.axes[0].texts] == ["dead: 8"]


def arguments(folder: Path, task: Path, source: Path) -> list[str]:
    words = ["--task", str(task), "--neurons", str(source), "--mixing", str(folder / "mixing.pdf")]
    return [*words, "--mixing-image", str(folder / "mixing.png")]


def written(path: Path, arrays: dict[str, Any]) -> Path:
    write_h5(path, arrays, units=dict.fromkeys(arrays, "1"), attributes={})
    return path


def test_equal_files_are_equal_bytes(task: Path, parts: Parts, tmp_path: Path) -> None:
    source = written(tmp_path / "neurons.h5", arrays_of(parts))
    main(arguments(tmp_path / "a", task, source))
    assert (tmp_path / "a" / "mixing.png").exists()
    save_figure(mixing(parts, arrays_of(parts)), [tmp_path / "b.pdf"])
    assert (tmp_path / "a" / "mixing.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert not plt.get_fignums()


@pytest.mark.parametrize(("changes", "message"), [
    ({"mixing/weights": None}, "holds no mixing/weights"),
    ({"mixing/weights": np.zeros((8, 7))}, "mixing/weights to have the axes [neuron, neuron]"),
    ({"mixing/within": np.zeros(2)}, "mixing/within to have the axes [checkpoint]"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_is_one_sentence(
    changes: dict[str, Any],
    message: str,
    task: Path,
    parts: Parts,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = {name: each for name, each in (arrays_of(parts) | changes).items() if each is not None}
    source = written(tmp_path / "neurons.h5", arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(main, arguments(tmp_path / "out", task, source)))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(source) in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()
