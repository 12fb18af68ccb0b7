"""The discrete model's comparison: simple methods see preprocessed pixels of training images alone.

The preprocessing is replaced by a simple one, so that its numbers can be computed beside it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from strata.artifacts import read_h5, write_h5
from strata.rgm.baselines import Digits, classification_baselines
from strata.rgm.config import RunSettings
from strata.rgm.judge import Judge, judge_digits
from strata.rgm.spm import compare
from strata.stages import run_stage

N_TRAIN, N_OTHER, N_TEST, CLASSES = 1000, 50, 200, 10
N_PIXELS, SPECIFICATION = 100, "a specification"
INPUTS = ("settings", "specification", "structure", "images", "digits")
Arrays = dict[str, Any]


def preprocess(images: np.ndarray, specification: Any) -> np.ndarray:
    """Square roots of the central pixels."""
    assert specification == SPECIFICATION
    assert images.dtype == np.uint8
    central = images[:, 9:19, 9:19].reshape(len(images), N_PIXELS)
    return np.sqrt(central.astype(np.float32) / 255.0)


def drawn() -> Arrays:
    """Noisy copies of a picture per class; training, then validation, then test images."""
    random = np.random.default_rng(0)
    pictures = random.uniform(60, 195, (CLASSES, 28, 28))
    labels = random.integers(0, CLASSES, N_TRAIN + 2 * N_OTHER + N_TEST).astype(np.uint8)
    noisy = pictures[labels] + random.normal(0.0, 120.0, (len(labels), 28, 28))
    parts = [N_TRAIN, N_OTHER, N_OTHER, N_TEST]
    return {
        "images": noisy.clip(0, 255).astype(np.uint8),
        "labels": labels,
        "split": np.repeat([0, 0, 1, 2], parts).astype(np.uint8),
    }


def structure() -> Arrays:
    chosen = np.arange(20, 60)
    return {"exemplars/index": chosen, "exemplars/labels": drawn()["labels"][chosen]}


def digits() -> Arrays:
    """Two of three generated digits look like a training image of their class."""
    arrays = drawn()
    pixels = preprocess(arrays["images"][:60], SPECIFICATION)
    asked = arrays["labels"][:60].copy()
    asked[::3] = (asked[::3] + 1) % CLASSES
    return {"generated": pixels, "generated_class": asked}


MADE = {"structure": structure, "images": drawn, "digits": digits}


@dataclass(frozen=True)
class Folder:
    """A folder with all files that the stage reads."""

    path: Path

    def put(self, name: str, arrays: Arrays) -> None:
        held = {key: array for key, array in arrays.items() if array is not None}
        write_h5(self.path / f"{name}.h5", held, units=dict.fromkeys(held, "1"), attributes={})

    @property
    def settings(self) -> RunSettings:
        return RunSettings.model_validate_json((self.path / "settings.json").read_text())

    def arguments(self) -> list[str]:
        files = {name: f"{name}.h5" for name in (*INPUTS, "baselines")}
        files |= {"settings": "settings.json", "specification": "specification.gnn"}
        return [
            text for name, file in files.items() for text in (f"--{name}", str(self.path / file))
        ]


def write_all(path: Path) -> Folder:
    made = Folder(path)
    for name, make in MADE.items():
        made.put(name, make())
    blocks = {"seed": 3, "data": {"n_train": N_TRAIN}, "active": {"n_pool": 500}}
    settings = RunSettings.model_validate(blocks)
    (path / "settings.json").write_text(settings.canonical_json())
    return made


def replace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compare, "preprocess", preprocess)
    patch.setattr(compare, "read_discrete_specification", lambda paths: SPECIFICATION)
    patch.setattr(compare, "N_TEST", N_TEST)


@pytest.fixture(autouse=True)
def _simple_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return write_all(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made = write_all(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        replace(patch)
        compare.main(made.arguments())
    return made


@pytest.fixture(scope="module")
def found(finished: Folder) -> dict[str, np.ndarray]:
    return read_h5(finished.path / "baselines.h5")


def part(begin: int, end: int) -> Digits:
    arrays = drawn()
    pixels = preprocess(arrays["images"][begin:end], SPECIFICATION)
    return Digits(pixels, arrays["labels"][begin:end])


@pytest.fixture(scope="module")
def train() -> Digits:
    return part(0, N_TRAIN)


@pytest.fixture(scope="module")
def test() -> Digits:
    return part(N_TRAIN + 2 * N_OTHER, N_TRAIN + 2 * N_OTHER + N_TEST)


def test_every_method_has_its_numbers(finished: Folder, found: dict[str, np.ndarray]) -> None:
    errors = {"black", "mean_image", "pca_16", "pca_64"}
    accuracies = {
        "logistic_raw", "logistic_pca_16", "logistic_pca_64", "5_neighbours_pca_16",
        "nearest_exemplar",
    }  # fmt: skip
    assert set(found) == {
        *(f"{what}/{name}" for name in errors for what in ("mse", "mse_clipped")),
        *(f"accuracy/{name}" for name in accuracies),
        *(f"generated/{name}" for name in (
            "judged", "judge_accuracy", "consistency", "diversity",
        )),
    }  # fmt: skip
    assert all(np.isfinite(array).all() for array in found.values())
    with h5py.File(finished.path / "baselines.h5") as file:
        assert file.attrs["settings"] == finished.settings.sections_of("spm_compare")
        assert file.attrs["seed"] == 3
        units = {name: file[name].attrs["unit"] for name in found}
    assert units == {name: "1/pixel" if name.startswith("mse") else "1" for name in found}


def test_errors_are_those_of_preprocessed_pixels(
    found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    mean = train.images.mean(0)
    assert found["mse/black"] == pytest.approx((test.images**2).mean(), rel=1e-5)
    assert found["mse/mean_image"] == pytest.approx(((test.images - mean) ** 2).mean(), rel=1e-5)
    _, _, V = np.linalg.svd(train.images - mean, full_matrices=False)
    for n in (16, 64):
        decoded = (test.images - mean) @ V[:n].T @ V[:n] + mean
        error = ((decoded - test.images) ** 2).mean()
        assert found[f"mse/pca_{n}"] == pytest.approx(error, rel=1e-4)


def test_accuracies_are_those_of_the_baselines(
    found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    expected = classification_baselines(
        train, test, logistic_components=(16, 64), neighbour_components=(16,), n_neighbours=5
    )
    for name, classification in expected.items():
        assert found[f"accuracy/{name}"] == classification.accuracy
        assert 0.3 < classification.accuracy < 1.0


def test_the_nearest_exemplar_is_that_of_all_distances(
    found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    """It knows the exemplars alone: with all training images as many neighbours find more."""
    differences = test.images[:, None] - train.images[None, 20:60]
    nearest = np.square(differences.astype(float)).sum(axis=2).argmin(axis=1)
    share = np.mean(train.labels[20:60][nearest] == test.labels)
    assert found["accuracy/nearest_exemplar"] == share
    assert 0.2 < share < found["accuracy/5_neighbours_pca_16"]


def test_generated_digits_are_judged_by_real_ones(
    found: dict[str, np.ndarray], train: Digits, test: Digits
) -> None:
    judge = Judge(train)
    generated = Digits(digits()["generated"], digits()["generated_class"].astype(np.int64))
    verdict = judge_digits(judge, generated, test, CLASSES)
    np.testing.assert_array_equal(found["generated/judged"], judge.classify(generated.images))
    np.testing.assert_array_equal(found["generated/consistency"], verdict.consistency)
    np.testing.assert_array_equal(found["generated/diversity"], verdict.diversity)
    assert found["generated/judge_accuracy"] == judge.accuracy(test)
    assert 0.4 < verdict.mean_consistency < 0.7


def test_only_the_training_images_of_the_run_are_fitted_to(
    folder: Folder, found: dict[str, np.ndarray]
) -> None:
    arrays = drawn()
    others = slice(N_TRAIN, N_TRAIN + 2 * N_OTHER)
    arrays["images"][others] = 255 - arrays["images"][others]
    arrays["labels"][others] = 9 - arrays["labels"][others]
    folder.put("images", arrays)
    compare.main(folder.arguments())
    for name, array in read_h5(folder.path / "baselines.h5").items():
        np.testing.assert_array_equal(array, found[name], err_msg=name)


def exemplars_with(index: int, label: int) -> Arrays:
    """The first exemplar is another one."""
    arrays = {key: array.copy() for key, array in structure().items()}
    arrays["exemplars/index"][0], arrays["exemplars/labels"][0] = index, label
    return arrays


NOT_AMONG = "exemplars that are not among the 1000 training images"
LABELS = drawn()["labels"]


@pytest.mark.parametrize(("name", "arrays", "message"), [
    ("structure", {"exemplars/index": np.arange(2)}, "structure.h5 holds no exemplars/labels"),
    ("structure", exemplars_with(20, LABELS[20] + 1), NOT_AMONG),
    ("structure", exemplars_with(N_TRAIN, LABELS[N_TRAIN]), NOT_AMONG),
    ("structure", exemplars_with(-1, LABELS[N_TRAIN - 1]), NOT_AMONG),
    ("digits", {"generated": np.zeros((2, N_PIXELS))}, "digits.h5 holds no generated_class"),
    (
        "digits",
        {"generated": np.zeros((2, 784)), "generated_class": np.arange(2)},
        "expected digits of 100 pixels in a row; found the shape (2, 784)",
    ),
    (
        "images",
        {key: array[:-1] for key, array in drawn().items()},
        "images.h5 holds 199 test images; 200 were asked for",
    ),
    (
        "images",
        {key: array[N_OTHER + 1 :] for key, array in drawn().items()},
        "images.h5 holds 999 training images; 1000 were asked for",
    ),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_one_sentence(
    name: str,
    arrays: Arrays,
    message: str,
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder.put(name, arrays)
    with pytest.raises(SystemExit) as left:
        run_stage(partial(compare.main, folder.arguments()))
    assert left.value.code == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert str(folder.path / f"{name}.h5") in complaint
    assert complaint.count("\n") == 1
    assert not (folder.path / "baselines.h5").exists()
