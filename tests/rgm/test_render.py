"""The rendering stage: matrices that start as specified, and the specification resolved."""

import hashlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from strata.artifacts import read_h5
from strata.datasets import read_images
from strata.rgm.inputs import build_model
from strata.rgm.parameters import INITIALIZATIONS
from strata.rgm.specification import read_specification

NewRun = Callable[..., Any]
NewImages = Callable[..., Path]
Refusal = Callable[..., str]
SIZES = [(784, 12, 5), (12, 6, 3), (6, 4, 10)]  # inputs, states, categories
GAIN, STD = 1.75, 0.3
LETTERS = {"recognition": "A", "generation": "B", "lateral": "D", "factor": "M"}


def rendered(run: Any) -> dict[str, np.ndarray]:
    run.run("render")
    arrays = read_h5(run.path("matrices"))
    for level in range(3):
        assert arrays[f"B_level{level}"].shape == arrays[f"A_level{level}"].shape[::-1]
    return arrays


# --- files --------------------------------------------------------------------------------------


def test_every_matrix_has_its_shape_and_a_unit(finished: Any) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for level, (i, s, f) in enumerate(SIZES):
        shapes = {"A": (s, i), "B": (i, s), "D": (s, s), "M": (s, f), "a": (s,), "b": (i,)}
        shapes["pi"] = (i,)
        expected |= {f"{letter}_level{level}": shape for letter, shape in shapes.items()}
    arrays = read_h5(finished.path("matrices"))
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    assert all(np.isfinite(array).all() for array in arrays.values())
    with h5py.File(finished.path("matrices")) as file:
        assert {item.attrs["unit"] for item in file.values()} == {"1"}
        origin = dict(file.attrs)
    text = finished.settings.sections_of("render")
    assert origin["settings"] == text
    assert origin["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert origin["seed"] == finished.settings.seed
    assert {"commit", "version_strata", "version_torch"} <= set(origin)


def test_the_resolved_specification_is_the_model_of_its_sources(finished: Any) -> None:
    resolved = read_specification([finished.path("specification")])
    assert resolved == read_specification(finished.sources)
    sizes = [(level.n_input, level.n_state, level.n_factor) for level in resolved.levels]
    assert sizes == SIZES


def test_a_resolved_specification_renders_to_the_same_files(new_run: NewRun) -> None:
    first, again = new_run(), new_run("again")
    first.run("render")
    resolved = type(first)(again.folder, again.images, (first.path("specification"),))
    resolved.run("render")
    for name in ("specification", "matrices"):
        assert resolved.path(name).read_bytes() == first.path(name).read_bytes()
    assert first.names() == {"specification.gnn", "matrices.h5"}


def test_one_seed_is_one_file_and_another_seed_another(new_run: NewRun) -> None:
    runs = [new_run("first"), new_run("second"), new_run("third", seed=1)]
    first, _, third = (rendered(run) for run in runs)
    contents = [run.path("matrices").read_bytes() for run in runs]
    assert contents[0] == contents[1]
    for level in range(3):
        for letter in "ADM":
            name = f"{letter}_level{level}"
            assert not np.isclose(first[name], third[name]).all()
    specifications = {run.path("specification").read_bytes() for run in runs}
    assert len(specifications) == 1


def test_a_parameter_that_changes_nothing_is_told(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    new_run(parameters={"gain_generation": 2.0}).run("render")
    assert "warning: " in (told := capsys.readouterr().out)
    assert "gain_generation changes nothing" in told


# --- how matrices start -------------------------------------------------------------------------


@pytest.mark.parametrize("pixel_bias", [-2.0, 0.75])
def test_precisions_and_biases_start_as_specified(pixel_bias: float, new_run: NewRun) -> None:
    arrays = rendered(new_run(parameters={"precision_initial": 2.5, "pixel_bias": pixel_bias}))
    assert (arrays["b_level0"] == pixel_bias).all()
    for level in range(3):
        assert (arrays[f"pi_level{level}"] == 2.5).all()
        assert (arrays[f"a_level{level}"] == 0.0).all()
        assert level == 0 or (arrays[f"b_level{level}"] == 0.0).all()


def test_generation_starts_as_the_transposed_recognition(finished: Any) -> None:
    arrays = read_h5(finished.path("matrices"))
    for level in range(3):
        np.testing.assert_array_equal(arrays[f"B_level{level}"], arrays[f"A_level{level}"].T)


def check_random(method: str, matrix: np.ndarray) -> None:
    """Check a matrix [outputs, inputs] against what its method says of it."""
    matrix = matrix.astype(np.float64)
    fan_out, fan_in = matrix.shape
    if method == "orthogonal":
        tall = matrix if fan_out >= fan_in else matrix.T
        np.testing.assert_allclose(
            tall.T @ tall, GAIN**2 * np.eye(tall.shape[1]), atol=1e-5 * GAIN**2
        )
        return
    variance = {
        "xavier": GAIN**2 * 2 / (fan_in + fan_out),
        "kaiming": 2 / fan_in,
        "normal": STD**2,
        "identity": STD**2,
    }[method.partition("_")[0]]
    rest = matrix - np.eye(*matrix.shape) if method == "identity" else matrix
    error = math.sqrt(2 / rest.size)  # of a variance, relative; smaller for uniform numbers
    assert rest.var() / variance == pytest.approx(1.0, abs=4.5 * error)
    assert abs(rest.mean()) < 4.5 * math.sqrt(variance / rest.size)
    bound = math.sqrt(3 * variance)
    assert (np.abs(rest).max() <= bound * (1 + 1e-6)) == method.endswith("uniform")


CASES = [
    (kind, method)
    for kind, methods in INITIALIZATIONS.items()
    for method in methods
    if method not in ("svd", "transpose")
]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_every_initialization_is_the_one_specified(kind: str, method: str, new_run: NewRun) -> None:
    parameters = {
        f"initialization_{kind}": method, f"gain_{kind}": GAIN, f"std_{kind}": STD,
        "n_state0": 40, "n_state1": 30, "n_state2": 20, "n_factor0": 50,
    }  # fmt: skip
    arrays = rendered(new_run(parameters=parameters))
    for level in range(3):
        check_random(method, arrays[f"{LETTERS[kind]}_level{level}"])


def test_matrices_of_different_levels_and_kinds_are_independent(new_run: NewRun) -> None:
    methods = {f"initialization_{kind}": "normal" for kind in INITIALIZATIONS}
    methods |= {f"std_{kind}": "1.0" for kind in INITIALIZATIONS}
    sizes = {"n_state0": 40, "n_state1": 40, "n_state2": 40, "n_factor0": 40, "n_factor1": 20}
    arrays = rendered(new_run(parameters={**methods, **sizes}))
    first = [arrays[name].flatten()[:400] for name in sorted(arrays) if name[0] in "ABDM"]
    correlations = np.corrcoef(np.array(first)) - np.eye(len(first))
    assert np.abs(correlations).max() < 5 / math.sqrt(400)


def logistic(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def couplings(D: np.ndarray) -> np.ndarray:
    """C of a lateral matrix by its definition."""
    S = (D + D.T) / 2
    np.fill_diagonal(S, 0)
    return np.eye(len(S)) + 0.9 * S / max(0.9, np.linalg.norm(S, 2))


@pytest.mark.parametrize("normalization", ["none", "frobenius"])
def test_svd_is_made_of_the_images_of_the_run(
    normalization: str, new_run: NewRun, new_images: NewImages, images: Path
) -> None:
    """Principal components of the training images, then of what the level below makes of them.

    That is what the network itself makes of them: by A as normalized, C and the activation.
    """
    parameters = {
        "initialization_recognition": "svd", "activation_level0": "tanh", "std_lateral": 0.2,
        "normalization_recognition": normalization,
    }  # fmt: skip
    run = new_run(parameters=parameters)
    arrays = rendered(run)
    pixels, _ = read_images(images).part("train")
    inputs = pixels[: run.settings.data.n_train].reshape(-1, 784) / 255.0
    assert len(inputs) < len(pixels), "not all of them are the run's"
    for level in range(2):
        A, a = arrays[f"A_level{level}"], arrays[f"a_level{level}"]
        B, b = arrays[f"B_level{level}"], arrays[f"b_level{level}"]
        mean = inputs.mean(0)
        _, _, V = np.linalg.svd(inputs - mean, full_matrices=False)
        overlap = np.abs(A @ V[: len(A)].T)
        np.testing.assert_allclose(overlap, np.eye(len(A)), atol=0.02)
        np.testing.assert_allclose(a, -A @ mean, atol=1e-4)
        if level == 0:  # a sigmoid of eight times as steep an argument is nearly linear
            np.testing.assert_allclose(B, 8 * A.T, atol=1e-5)
            np.testing.assert_allclose(b, 8 * (mean - 0.5), atol=1e-4)
            linear = (inputs - mean) @ A.T @ A + mean
            decoded = logistic((inputs @ A.T + a) @ B.T + b)
            assert ((decoded - inputs) ** 2).mean() < 2 * ((linear - inputs) ** 2).mean()
        else:
            np.testing.assert_allclose(B, A.T, atol=1e-6)
            np.testing.assert_allclose(b, mean, atol=1e-4)
        used = A / np.linalg.norm(A) if normalization == "frobenius" else A
        inputs = np.tanh((inputs @ used.T + a) @ couplings(arrays[f"D_level{level}"]))

    held = read_images(images)
    of_run = np.flatnonzero(held.split == 0)[: run.settings.data.n_train]
    changed = 255 - held.images
    changed[of_run] = held.images[of_run]
    again = new_run("again", parameters=parameters)
    again.run("render", images=new_images(images=changed))
    assert again.path("matrices").read_bytes() == run.path("matrices").read_bytes()
    elsewhere = new_run("elsewhere", parameters=parameters)
    elsewhere.run("render", images=new_images("shifted", images=np.roll(held.images, 2, axis=1)))
    assert elsewhere.path("matrices").read_bytes() != run.path("matrices").read_bytes()


def test_generation_by_its_own_method_goes_with_svd(new_run: NewRun) -> None:
    parameters = {
        "initialization_recognition": "svd", "initialization_generation": "orthogonal",
        "gain_generation": GAIN,
    }  # fmt: skip
    arrays = rendered(new_run(parameters=parameters))
    for level in range(3):
        check_random("orthogonal", arrays[f"B_level{level}"])


# --- initial values that the specification states -----------------------------------------------


def stating(run: Any, **values: np.ndarray) -> Any:
    """Add initial values to the last source of a run, and return the run."""
    path = run.sources[-1]
    lines = []
    for name, value in values.items():
        rows = [",".join(map(str, row)) for row in np.atleast_2d(value).tolist()]
        inside = rows[0] if np.ndim(value) == 1 else ",".join(f"({row})" for row in rows)
        lines.append(f"{name}={{{inside}}}\n")
    header = "## InitialParameterization\n"
    text = path.read_text(encoding="utf-8")
    assert text.count(header) == 1
    path.write_text(text.replace(header, header + "".join(lines)), encoding="utf-8")
    return run


def stated_level() -> dict[str, np.ndarray]:
    """Return everything of level 1, as no method would give it."""
    inputs, states, categories = SIZES[1]
    draws = np.random.default_rng(3)
    shapes = {
        "A": (states, inputs), "B": (inputs, states), "D": (states, states),
        "M": (states, categories), "a": (states,), "b": (inputs,), "pi": (inputs,),
    }  # fmt: skip
    values = {f"{letter}_level1": draws.uniform(0.1, 9, shape) for letter, shape in shapes.items()}
    return {name: value.astype(np.float32) for name, value in values.items()}


@pytest.mark.parametrize("method", ["orthogonal", "svd"])
def test_stated_values_stand_in_the_place_of_what_a_method_gives(
    method: str, new_run: NewRun
) -> None:
    parameters = {"initialization_recognition": method}
    plain = rendered(new_run(parameters=parameters))
    run = stating(new_run("stating", parameters=parameters), **stated_level())
    arrays = rendered(run)
    for name, value in stated_level().items():
        np.testing.assert_array_equal(arrays[name], value)
    changed = {name for name in plain if not np.array_equal(plain[name], arrays[name])}
    above = {f"{letter}_level2" for letter in "ABab"}  # what is made of the states of level 1
    assert changed == {*stated_level(), *(above if method == "svd" else ())}
    resolved = type(run)(
        new_run("again", parameters=parameters).folder, run.images, (run.path("specification"),)
    )
    resolved.run("render")
    assert resolved.path("matrices").read_bytes() == run.path("matrices").read_bytes()


@pytest.mark.parametrize("name", stated_level())
def test_one_stated_value_leaves_the_others_alone(name: str, new_run: NewRun) -> None:
    plain = rendered(new_run())
    arrays = rendered(stating(new_run("stating"), **{name: stated_level()[name]}))
    changed = {name for name in plain if not np.array_equal(plain[name], arrays[name])}
    assert changed == ({name, "B_level1"} if name == "A_level1" else {name})
    np.testing.assert_array_equal(arrays[name], stated_level()[name])
    if name == "A_level1":
        np.testing.assert_array_equal(arrays["B_level1"], arrays["A_level1"].T)


def test_a_stated_recognition_has_no_part_of_the_svd_that_it_replaces(new_run: NewRun) -> None:
    run = new_run(parameters={"initialization_recognition": "svd"})
    arrays = rendered(stating(run, A_level1=stated_level()["A_level1"]))
    np.testing.assert_array_equal(arrays["B_level1"], arrays["A_level1"].T)
    assert not arrays["a_level1"].any()
    assert not arrays["b_level1"].any()


def test_the_network_starts_from_stated_values(new_run: NewRun) -> None:
    run = stating(new_run(), **stated_level())
    run.run("render")
    model = build_model(run.path("specification"), run.path("matrices"))
    for letter in "ABDab":
        found = getattr(model, letter)[1].detach().numpy()
        np.testing.assert_array_equal(found, stated_level()[f"{letter}_level1"])
    np.testing.assert_array_equal(model.precisions[1].numpy(), stated_level()["pi_level1"])


def test_free_energy_and_time_start_as_the_format_wants_and_nowhere_else(new_run: NewRun) -> None:
    run = stating(new_run(), F=np.array([3.0]), t=np.array([2]))
    assert rendered(run)["A_level0"].any()
    plain = new_run("plain")
    plain.run("render")
    assert run.path("matrices").read_bytes() == plain.path("matrices").read_bytes()


@pytest.mark.parametrize(("name", "n"), [
    ("x", 784), ("s_level2", 4), ("f_level2", 10), ("e_level1", 12), ("q_level1", 1),
])  # fmt: skip
def test_an_initial_value_of_anything_else_is_refused_where_it_stands(
    name: str, n: int, new_run: NewRun, refusal: Refusal
) -> None:
    run = stating(new_run(), **{name: np.full(n, 0.5)})
    sentence = refusal(run, "render")
    text = run.sources[-1].read_text(encoding="utf-8")
    line = text[: text.index(f"\n{name}={{")].count("\n") + 2
    assert f"{run.sources[-1]}, line {line}: {name} starts from nothing" in sentence
    assert "A, B, D, M, a, b and pi of a level" in sentence


def test_a_stated_precision_lies_within_its_bounds(new_run: NewRun, refusal: Refusal) -> None:
    bounds = {"precision_minimum": 0.1, "precision_maximum": 7.3, "precision_initial": 1.0}
    pi = np.array([0.1, 7.3, 1.0, 2.0, 3.0, 4.0], np.float32)
    run = stating(new_run(parameters=bounds), pi_level2=pi)
    np.testing.assert_array_equal(rendered(run)["pi_level2"], pi)
    for outside in (0.0999, 7.31):
        other = new_run(f"run {outside}", parameters=bounds)
        sentence = refusal(stating(other, pi_level2=np.array([outside, *pi[1:]])), "render")
        assert f"{other.sources[-1]}, line " in sentence
        assert "pi_level2 must lie between precision_minimum = 0.1 and " in sentence
        assert "precision_maximum = 7.3." in sentence


# --- what is said -------------------------------------------------------------------------------


def test_every_matrix_is_reported_with_its_statistics(
    new_run: NewRun, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = rendered(new_run())
    number = r"([-+.e0-9]+)"
    form = re.compile(
        rf"(\w+): (\d+) x (\d+), mean {number}, std {number}, rank (\d+), "
        rf"largest singular value {number}, condition {number}"
    )
    found = [form.fullmatch(line) for line in capsys.readouterr().out.splitlines()]
    reported = {match[1]: [float(part) for part in match.groups()[1:]] for match in found if match}
    assert set(reported) == {name for name in arrays if name[0] in "ABDM"}
    for name, numbers in reported.items():
        matrix = arrays[name].astype(np.float64)
        values = np.linalg.svd(matrix, compute_uv=False)
        expected = [
            *matrix.shape, matrix.mean(), matrix.std(), len(values), values[0],
            values[0] / values[-1],
        ]  # fmt: skip
        assert numbers == pytest.approx(expected, rel=0.006)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(("parameters", "words"), [
    ({"image_width": 27, "n_input": 756}, "28 x 27 pixels and 10 classes"),
    ({"num_classes": 9, "n_factor2": 9}, "28 x 28 pixels and 9 classes"),
])  # fmt: skip
def test_a_specification_of_other_images_is_one_sentence(
    parameters: dict[str, int], words: str, new_run: NewRun, refusal: Refusal
) -> None:
    run = new_run(parameters=parameters)
    files = " and ".join(map(str, run.sources))
    sentence = refusal(run, "render")
    assert f"{files}: the specification is of {words}; {run.images} has 28 x 28 and 10." in sentence


def test_a_class_without_an_image_is_still_a_class(
    new_run: NewRun, new_images: NewImages, images: Path
) -> None:
    labels = read_images(images).labels.clip(max=8)
    plain, run = new_run("plain"), new_run()
    plain.run("render")
    run.run("render", images=new_images(labels=labels))
    assert run.path("matrices").read_bytes() == plain.path("matrices").read_bytes()


@pytest.mark.parametrize(("parameters", "words"), [
    ({"initialization_recognition": "svd", "n_state1": 20}, ["svd", "20", "12"]),
    ({"initialization_generation": "svd"}, ["initialization_generation", "svd"]),
    ({"activation_level0": "cube"}, ["activation_level0", "'cube'"]),
    ({"n_state0": 0}, ["n_state0", "0"]),
])  # fmt: skip
def test_a_specification_that_cannot_be_built_is_one_sentence(
    parameters: dict[str, Any], words: list[str], new_run: NewRun, refusal: Refusal
) -> None:
    sentence = refusal(new_run(parameters=parameters), "render")
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("missing", ["images", "settings"])
def test_a_missing_input_is_named(
    missing: str, new_run: NewRun, refusal: Refusal, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere.h5"
    assert str(nowhere) in refusal(new_run(), "render", **{missing: nowhere})
