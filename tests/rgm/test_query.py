"""Few labels: equal starts and equal numbers of labels for all strategies, and honest splits."""

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from strata.artifacts import read_h5
from strata.datasets import read_images
from strata.randomness import Generators
from strata.rgm import query
from strata.rgm.acquisition import ACQUISITIONS
from strata.rgm.config import ActiveSettings
from strata.rgm.learner import LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.rgm.network_settings import RGMTraining
from strata.rgm.query import STRATEGIES, Codes, accuracy_by_labels, first_labels

NewRun = Callable[..., Any]
NewImages = Callable[..., Path]
NewModel = Callable[..., HierarchicalModel]
CPU = torch.device("cpu")
CURVES = [f"accuracy/{name}" for name in (*ACQUISITIONS, "diversity")]


@pytest.fixture(scope="module")
def active(finished: Any) -> dict[str, np.ndarray]:
    return read_h5(finished.path("active"))


# --- files --------------------------------------------------------------------------------------


def test_curves_have_a_point_for_every_number_of_labels(
    finished: Any, active: dict[str, np.ndarray]
) -> None:
    """From 10 first labels to 23 by 4 at a time, which leaves 1 for the last."""
    assert active["labels_given"].tolist() == [10, 14, 18, 22, 23]
    assert set(active) == {*CURVES, "labels_given", "all_labels_accuracy"}
    for name in CURVES:
        assert active[name].shape == (2, 5)
        assert ((active[name] >= 0) & (active[name] <= 1)).all()
    text = finished.settings.sections_of("query")
    with h5py.File(finished.path("active")) as file:
        assert file.attrs["settings"] == text
        assert file.attrs["settings_sha256"] == hashlib.sha256(text.encode()).hexdigest()
        assert file.attrs["seed"] == 0
        units = {name: file[name].attrs["unit"] for name in active}
    assert units == {name: "labels" if name == "labels_given" else "1" for name in active}


def test_all_strategies_start_from_the_same_labels(active: dict[str, np.ndarray]) -> None:
    starts = np.stack([active[name][:, 0] for name in CURVES])
    assert (starts == starts[0]).all()
    assert starts[0, 0] != starts[0, 1], "repetitions start from others"
    ends = np.stack([active[name][:, -1] for name in CURVES])
    assert len(np.unique(ends)) > len(CURVES) / 2, "and go different ways"


def test_labels_teach(active: dict[str, np.ndarray]) -> None:
    for name in CURVES:
        assert active[name][:, -1].mean() > active[name][:, 0].mean() > 0.3
        assert active["all_labels_accuracy"] > active[name][:, -1].mean() - 0.05


def test_the_same_seed_is_the_same_file_and_another_seed_another(
    finished: Any, reseeded: Any, active: dict[str, np.ndarray], tmp_path: Path
) -> None:
    finished.run("query", active=tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == finished.path("active").read_bytes()
    reseeded.run("query")
    other = read_h5(reseeded.path("active"))
    assert other["labels_given"].tolist() == active["labels_given"].tolist()
    assert not any(np.array_equal(other[name], active[name]) for name in CURVES)


@pytest.mark.parametrize(("changes", "given"), [
    ({"n_query": 5, "n_labels": 20}, [10, 15, 20]),
    ({"n_query": 30, "n_labels": 25}, [10, 25]),
    ({"n_initial": 2, "n_query": 1, "n_labels": 22}, [20, 21, 22]),
])  # fmt: skip
def test_the_numbers_of_labels_are_those_of_the_curves(
    changes: dict[str, int], given: list[int], new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "N_TEST", 300)
    run = new_run(active=changes)
    seen: list[int] = []
    fit = query.fit_few

    def watched(codes: Tensor, labels: Tensor, *others: Any) -> Any:
        seen.append(len(labels))
        return fit(codes, labels, *others)

    monkeypatch.setattr(query, "fit_few", watched)
    run.run("render", "query")
    found = read_h5(run.path("active"))
    assert found["labels_given"].tolist() == given
    assert seen == [*given * (2 * len(CURVES)), 500]
    assert all(found[name].shape == (2, len(given)) for name in CURVES)


# --- honest splits ------------------------------------------------------------------------------


def codes_of(run: Any, monkeypatch: pytest.MonkeyPatch, **inputs: Path) -> list[Codes]:
    """Return the codes of the pool and of the test images that a run finds."""
    found: list[Codes] = []
    plain = query._codes

    def watched(*arguments: Any) -> Codes:
        found.append(plain(*arguments))
        return found[-1]

    with monkeypatch.context() as patch:
        patch.setattr(query, "_codes", watched)
        run.run("query", **inputs)
    assert [len(codes.states) for codes in found] == [500, 10000]
    return found


def test_the_network_never_sees_a_label_nor_a_test_image(
    finished: Any,
    new_run: NewRun,
    new_images: NewImages,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = read_images(images)
    monkeypatch.setattr(query, "STRATEGIES", {"margin": STRATEGIES["margin"]})
    run = new_run(active={"n_labels": 20, "n_query": 10})
    run.run("render")
    pool, test = codes_of(run, monkeypatch)
    expected = held.part("train")[1][:500]
    np.testing.assert_array_equal(pool.labels, expected)

    permuted = np.random.default_rng(1).permutation(held.labels)
    pool_again, test_again = codes_of(run, monkeypatch, images=new_images(labels=permuted))
    assert not torch.equal(pool_again.labels, pool.labels)
    assert torch.equal(pool_again.states, pool.states)
    assert torch.equal(test_again.states, test.states)

    of_pool = np.flatnonzero(held.split == 0)[:500]
    inverted = 255 - held.images
    inverted[of_pool] = held.images[of_pool]
    pool_again, test_again = codes_of(run, monkeypatch, images=new_images(images=inverted))
    assert torch.equal(pool_again.states, pool.states)
    assert not torch.equal(test_again.states, test.states)


# --- how the network learns -----------------------------------------------------------------------

LEARNING = ActiveSettings(n_pool=500, n_labels=30, n_epochs=3, learning_rate=0.02)
OF_THE_RUN = {"batch_size": 30, "n_epochs": 50, "learning_rate": 0.5}


def learned(
    model: HierarchicalModel,
    pool: LabelledImages,
    changes: Mapping[str, Any],
    active: ActiveSettings = LEARNING,
) -> dict[str, Tensor]:
    """Return the network after it was trained without labels; `changes` are those of the run."""
    training = RGMTraining.model_validate({**OF_THE_RUN, **changes})
    query.learn_without_labels(model, pool, training, active, Generators(0, CPU))
    return model.state_dict()


@pytest.mark.parametrize(("changes", "alike"), [
    ({"n_epochs": 7, "learning_rate": 0.3, "loss": {"classification": 5.0}}, True),
    ({"log_interval": 7, "scheduler": {"type": "constant"}}, True),
    ({"batch_size": 25}, False),
    ({"loss": {"sparsity": 0.5}}, False),
    ({"loss": {"reconstruction_below": 0.0}}, False),
    ({"optimizer": {"weight_decay": 0.1}}, False),
    ({"optimizer": {"betas": [0.5, 0.9]}}, False),
    ({"gradient_clip": 1e-4}, False),
    ({"gradient_clip": None}, False),
])  # fmt: skip
def test_the_network_learns_as_the_run_does_but_without_classes(
    changes: dict[str, Any], alike: bool, new_model: NewModel, new_images_of_8: Any
) -> None:
    """Epochs, rate and schedule are its own; a weight of the classes has no part in it."""
    pool = new_images_of_8(100)
    plain = learned(new_model(), pool, {"gradient_clip": 1e-3})
    other = learned(new_model(), pool, {"gradient_clip": 1e-3, **changes})
    assert torch.equal(plain["A.0"], other["A.0"]) == alike
    if alike:
        assert all(torch.equal(value, other[name]) for name, value in plain.items())


def test_nothing_teaches_it_the_classes(new_model: NewModel, new_images_of_8: Any) -> None:
    start = new_model().state_dict()
    settings = {"loss": {"classification": 5.0}, "optimizer": {"weight_decay": 0.0}}
    found = learned(new_model(), new_images_of_8(100), settings)
    for name in ("prototypes", "class_log_precision", "class_log_prior"):
        assert torch.equal(found[name], start[name]), name
    for name in ("A.0", "B.2", "D.1", "precision_level0"):
        assert not torch.equal(found[name], start[name]), name


def test_its_learning_rate_falls_to_zero_as_a_cosine(
    new_model: NewModel, new_images_of_8: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    class Watched(torch.optim.Adam):
        def step(self, *arguments: Any) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    learned(new_model(), new_images_of_8(100), {})
    n = 3 * (100 // 30)
    expected = [0.02 * (1 + math.cos(math.pi * step / n)) / 2 for step in range(n)]
    assert rates == pytest.approx(expected, rel=1e-6)


# --- labels -------------------------------------------------------------------------------------


def clusters(n: int, seed: int) -> Codes:
    """Return codes of four overlapping classes in the plane."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], dtype=torch.float64)
    noise = torch.randn((n, 2), generator=generator, dtype=torch.float64)
    return Codes(centres[labels] + 0.7 * noise, labels)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_label_counts_only_once_it_was_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked for once; other labels of the rest of the pool change nothing."""
    pool, test = clusters(120, 0), clusters(200, 1)
    settings = ActiveSettings(n_initial=1, n_query=3, n_labels=21, n_repeats=2)
    first = first_labels(pool.labels, 1, torch.Generator().manual_seed(2))
    asked: list[Tensor] = []
    fit = query.fit_few

    def watched(codes: Tensor, labels: Tensor, *others: Any) -> Any:
        index = (pool.states.unsqueeze(0) == codes.unsqueeze(1)).all(2).double().argmax(1)
        asked.append(index)
        return fit(codes, labels, *others)

    monkeypatch.setattr(query, "fit_few", watched)

    def curve(pool: Codes) -> list[float]:
        generator = torch.Generator().manual_seed(3)
        return accuracy_by_labels(STRATEGIES[name], first, pool, test, settings, generator)

    plain = curve(pool)
    assert [len(index) for index in asked] == [4, 7, 10, 13, 16, 19, 21]
    for before, after in itertools.pairwise(asked):
        assert torch.equal(after[: len(before)], before)
    assert len(asked[-1].unique()) == 21
    assert torch.equal(asked[0], first)
    others = torch.full_like(pool.labels, 3)
    others[asked[-1]] = pool.labels[asked[-1]]
    assert not torch.equal(others, pool.labels)
    assert curve(Codes(pool.states, others)) == plain


def test_only_the_strategy_that_explores_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: dict[str, list[float]] = {}
    chosen = query.select

    def watched(scores: Tensor, codes: Tensor, epsilon: Any, *others: Any, **options: Any) -> Any:
        rates[name].extend(epsilon)
        weights[name] = options["diversity"]
        return chosen(scores, codes, epsilon, *others, **options)

    monkeypatch.setattr(query, "select", watched)
    pool, test = clusters(120, 0), clusters(50, 1)
    settings = ActiveSettings(n_initial=1, n_query=5, n_labels=21, n_repeats=2)
    weights: dict[str, float] = {}
    for name, strategy in STRATEGIES.items():
        rates[name] = []
        generator = torch.Generator().manual_seed(0)
        accuracy_by_labels(strategy, torch.arange(4), pool, test, settings, generator)
    expected = [0.1 * 0.995**pick for pick in range(17)]
    assert rates.pop("diversity") == pytest.approx(expected)
    assert weights.pop("diversity") > 0
    assert {rate for all_of_one in rates.values() for rate in all_of_one} == {0.0}
    assert set(weights.values()) == {0.0}


def test_first_labels_are_of_every_class_and_follow_the_generator() -> None:
    labels = torch.arange(60) % 5
    for n in (1, 3):
        found = first_labels(labels, n, Generators(0, CPU).on_cpu("first 0"))
        assert torch.bincount(labels[found]).tolist() == [n] * 5
        assert len(found.unique()) == 5 * n
        again = first_labels(labels, n, Generators(0, CPU).on_cpu("first 0"))
        other = first_labels(labels, n, Generators(0, CPU).on_cpu("first 1"))
        assert torch.equal(found, again)
        assert not torch.equal(found, other)


def test_a_pool_that_the_file_does_not_hold_is_one_sentence(
    new_run: NewRun, new_images: NewImages, images: Path, refusal: Callable[..., str]
) -> None:
    run = new_run()
    run.run("render")
    split = read_images(images).split.copy()
    split[np.flatnonzero(split == 0)[499:]] = 1
    path = new_images(split=split)
    sentence = refusal(run, "query", images=path)
    assert f"{path} holds 499 train images; 500 were asked for." in sentence
