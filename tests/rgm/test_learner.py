"""One training step of the family: which images it sees, what it minimises, what it records."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strata.randomness import Generators
from strata.rgm import learner as learner_module
from strata.rgm.config import ACTIVE_STD
from strata.rgm.learner import ImageLearner, LabelledImages, first_of_each_class
from strata.rgm.losses import COMPONENTS
from strata.rgm.model import HierarchicalModel, prediction_errors
from strata.rgm.network_settings import LossSettings, RGMTraining
from strata.rgm.normalization import symmetric_coupling

NewModel = Callable[..., HierarchicalModel]
NewImages = Callable[..., LabelledImages]
CPU = torch.device("cpu")
N_TRAIN, BATCH = 97, 16  # six full batches and one image left over
PER_EPOCH = N_TRAIN // BATCH
WEIGHTS = {
    "reconstruction": 0.7,
    "prediction": 0.011,
    "consistency": 0.13,
    "sparsity": 0.017,
    "classification": 0.19,
}


@pytest.fixture
def new_learner(new_model: NewModel, new_images_of_8: NewImages) -> Callable[..., ImageLearner]:
    """Return a function: settings and parameters that change -> a learner of 8 x 8 pixels."""

    def new(
        training: dict[str, Any] | None = None, *, seed: int = 0, **parameters: Any
    ) -> ImageLearner:
        settings = RGMTraining.model_validate(
            {"batch_size": BATCH, "loss": LossSettings(**WEIGHTS), **(training or {})}
        )
        return ImageLearner(
            new_model(**parameters),
            new_images_of_8(N_TRAIN, seed=1),
            new_images_of_8(60, seed=2),
            settings,
            Generators(seed, CPU),
        )

    return new


def seen_images(learner: ImageLearner, n_steps: int) -> Tensor:
    """Return the indices [step, image] of the training images that the steps see."""
    seen: list[Tensor] = []
    whole = learner.training

    class Watched(LabelledImages):
        def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(index)
            return whole.batch(index)

    learner.training = Watched(whole.images, whole.labels)
    for step in range(n_steps):
        learner.training_step(step)
    return torch.stack(seen)


# --- which images -------------------------------------------------------------------------------


def test_an_epoch_sees_no_image_twice_and_the_next_one_another_order(
    new_learner: Callable[..., ImageLearner],
) -> None:
    epochs = seen_images(new_learner(), 3 * PER_EPOCH).view(3, -1)
    assert epochs.shape == (3, PER_EPOCH * BATCH)
    for epoch in epochs:
        assert len(epoch.unique()) == len(epoch)
    assert not any(torch.equal(epochs[i], epochs[i + 1]) for i in range(2))
    assert len(epochs.unique()) == N_TRAIN, "what is left over differs from epoch to epoch"


def test_the_order_follows_the_seed(new_learner: Callable[..., ImageLearner]) -> None:
    orders = [seen_images(new_learner(seed=seed), PER_EPOCH) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_a_stored_order_goes_on(new_learner: Callable[..., ImageLearner]) -> None:
    plain, first, second = new_learner(), new_learner(), new_learner(seed=5)
    expected = seen_images(plain, PER_EPOCH)
    for step in range(2):
        first.training_step(step)
    second.load_state_dict(first.state_dict())
    seen: list[Tensor] = []
    order = second.order
    for step in range(2, PER_EPOCH):
        seen.append(order[step * BATCH : (step + 1) * BATCH])
        second.training_step(step)
    assert torch.equal(second.order, order), "an epoch that has begun keeps its order"
    assert torch.equal(torch.stack(seen), expected[2:])


def test_pixels_are_numbers_up_to_one(new_images_of_8: NewImages) -> None:
    images = new_images_of_8(20)
    index = torch.tensor([3, 3, 0])
    x, labels = images.batch(index)
    assert x.dtype == torch.float32
    assert torch.equal((x * 255).round().to(torch.uint8), images.images[index])
    assert torch.equal(labels, images.labels[index])
    assert 0.5 < float(x.max()) <= 1.0


# --- what is minimised --------------------------------------------------------------------------


def test_weighted_components_are_recorded_and_add_up_to_the_loss(
    new_learner: Callable[..., ImageLearner],
) -> None:
    learner = new_learner()
    for step in range(4):
        loss, metrics = learner.training_step(step)
        shares = [metrics[f"weighted_{name}"] for name in COMPONENTS]
        assert all(share.abs() > 0 for share in shares)
        assert loss.item() == pytest.approx(float(sum(shares)), rel=1e-6)
        for name, weight in zip(COMPONENTS, WEIGHTS.values(), strict=True):
            expected = weight * float(metrics[name])
            assert float(metrics[f"weighted_{name}"]) == pytest.approx(expected, rel=1e-6)
        assert float(metrics["epoch"]) == pytest.approx((step + 1) / PER_EPOCH)
        assert set(metrics) == {
            "epoch",
            *COMPONENTS,
            *(f"weighted_{name}" for name in COMPONENTS),
            *(f"mse_level{level}" for level in range(3)),
        }
        assert not any(value.requires_grad for value in metrics.values())
        loss.backward()


def test_components_are_those_of_numpy(new_learner: Callable[..., ImageLearner]) -> None:
    learner = new_learner({"loss": LossSettings(reconstruction_below=0.25)})
    model = learner.module
    seen = seen_images(new_learner(), 1)[0]
    x, labels = learner.training.batch(seen)
    with torch.no_grad():
        states = model.recognize(x)
        images = [model.reconstruct(level, state) for level, state in enumerate(states)]
        below = [model.predict(2, states[2])]
        below.insert(0, model.predict(1, below[0]))
        errors = [e.numpy() for e in prediction_errors(model, x, states)]
        logits = model.class_logits(states[2]).double().numpy()
    s, pi = [state.numpy() for state in states], [p.clone().numpy() for p in model.precisions]
    mse = [((image - x) ** 2).mean().item() for image in images]
    peak = logits.max(1, keepdims=True)
    surprise = np.log(np.exp(logits - peak).sum(1)) + peak[:, 0] - logits[range(BATCH), labels]
    expected = {
        "reconstruction": mse[2] + 0.25 * (mse[0] + mse[1]),
        "prediction": sum(
            0.5 * ((p * e**2).mean() - np.log(p).mean()) for p, e in zip(pi, errors, strict=True)
        ),
        "consistency": sum(
            ((s[level] - below[level].numpy()) ** 2).sum() / (s[level] ** 2).sum()
            for level in range(2)
        ),
        "sparsity": sum(
            np.abs(s[level]).mean() / math.sqrt((s[level] ** 2).mean()) for level in range(2)
        ),
        "class": surprise.mean(),
    }
    _, metrics = learner.training_step(0)
    found = {name: float(metrics[name]) for name in COMPONENTS}
    assert found == pytest.approx(expected, rel=1e-4)
    assert [float(metrics[f"mse_level{level}"]) for level in range(3)] == pytest.approx(mse)


def test_only_the_classification_teaches_the_classes(
    new_learner: Callable[..., ImageLearner],
) -> None:
    for weight in (0.0, 0.5):
        learner = new_learner({"loss": LossSettings(classification=weight)})
        learner.training_step(0)[0].backward()
        gradient = learner.module.prototypes.grad
        assert gradient is not None
        assert bool((gradient != 0).any()) == (weight > 0)


# --- precisions ---------------------------------------------------------------------------------

PRECISION = {
    "precision_initial": 2.0, "precision_update_rate": 0.25, "precision_regularization": 0.001,
    "precision_minimum": 0.5, "precision_maximum": 2.5,
}  # fmt: skip


def test_precisions_follow_the_errors_of_the_batch(
    new_learner: Callable[..., ImageLearner],
) -> None:
    """1/pi <- 3/4 1/pi + 1/4 (E[e^2] + 0.001), then into the bounds; nothing else moves them."""
    learner = new_learner(**PRECISION)
    model = learner.module
    batches = seen_images(new_learner(), 3)
    hit, free = 0, 0
    for step, batch in enumerate(batches):
        x, _ = learner.training.batch(batch)
        with torch.no_grad():
            errors = prediction_errors(model, x, model.recognize(x))
        expected = []
        for pi, error in zip(model.precisions, errors, strict=True):
            variance = 0.75 / pi + 0.25 * ((error**2).mean(0) + 0.001)
            expected.append((1 / variance).clamp(0.5, 2.5))
        learner.training_step(step)
        for found, wanted in zip(model.precisions, expected, strict=True):
            torch.testing.assert_close(found, wanted)
            hit += int((found == 2.5).sum() + (found == 0.5).sum())
            free += int(((found < 2.5) & (found > 0.5)).sum())
    assert hit > 0
    assert free > 0
    before = [pi.clone() for pi in model.precisions]
    learner.evaluate()
    learner.snapshot()
    for old, pi in zip(before, model.precisions, strict=True):
        assert torch.equal(old, pi)
        assert not pi.requires_grad
    assert not {"precision_level0"} & {name for name, _ in model.named_parameters()}


# --- what is recorded ---------------------------------------------------------------------------


def test_an_evaluation_is_of_all_validation_images_at_once(
    new_learner: Callable[..., ImageLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = new_learner()
    for step in range(3):
        learner.training_step(step)
    whole = learner.evaluate()
    monkeypatch.setattr(learner_module, "EVALUATION_BATCH", 17)  # 60 images: 17, 17, 17, 9
    parts = learner.evaluate()
    assert set(whole) == set(parts)
    additive = {name for name in whole if name != "loss"}  # sparsity is a ratio of means
    for name in additive:
        assert float(parts[name]) == pytest.approx(float(whole[name]), rel=1e-5)


def test_an_evaluation_is_that_of_numpy(new_learner: Callable[..., ImageLearner]) -> None:
    learner = new_learner()
    model = learner.module
    with torch.no_grad():
        model.A[1][:4] = 0.0  # units that say the same of every image, up to their neighbours
        model.D[1].zero_()
        x, labels = learner.validation.batch(torch.arange(60))
        states = model.recognize(x)
        found = model.class_logits(states[-1]).argmax(1)
    evaluated = learner.evaluate()
    assert not any(value.requires_grad for value in evaluated.values())
    assert float(evaluated["accuracy"]) == pytest.approx(float((found == labels).float().mean()))
    active = [float((state.numpy().std(0) > ACTIVE_STD).mean()) for state in states]
    assert active[1] == pytest.approx(2 / 6)
    assert [float(evaluated[f"active_level{level}"]) for level in range(3)] == pytest.approx(active)
    for level, state in enumerate(states):
        image = model.reconstruct(level, state).detach().numpy()
        error = ((image - x.numpy()) ** 2).mean()
        assert float(evaluated[f"mse_level{level}"]) == pytest.approx(error, rel=1e-5)


def test_the_evaluated_loss_is_the_one_that_is_trained(
    new_learner: Callable[..., ImageLearner],
) -> None:
    learner = new_learner({"batch_size": 60})
    learner.training = learner.validation
    evaluated = learner.evaluate()
    loss, metrics = learner.training_step(0)
    assert float(evaluated["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    for level in range(3):
        name = f"mse_level{level}"
        assert float(evaluated[name]) == pytest.approx(float(metrics[name]), rel=1e-5)


def test_a_snapshot_is_of_one_validation_image_of_each_class(
    new_learner: Callable[..., ImageLearner],
) -> None:
    learner = new_learner()
    labels = learner.validation.labels.tolist()
    assert set(labels) == set(range(10))
    first = [labels.index(c) for c in range(10)]
    x, _ = learner.validation.batch(torch.tensor(first))
    shown = learner.snapshot()
    assert torch.equal(shown["images"], x)
    states = learner.module.recognize(x)
    assert shown["reconstructions"].shape == (3, 10, 64)
    for level, state in enumerate(states):
        torch.testing.assert_close(
            shown["reconstructions"][level], learner.module.reconstruct(level, state).detach()
        )


def test_the_first_image_of_every_class_that_there_is() -> None:
    assert first_of_each_class(torch.tensor([7, 2, 7, 2, 0])).tolist() == [4, 1, 0]


def test_all_that_is_recorded_has_a_unit(new_learner: Callable[..., ImageLearner]) -> None:
    learner = new_learner()
    _, metrics = learner.training_step(0)
    recorded = {*metrics, *learner.evaluate(), *learner.snapshot()}
    assert recorded - {"loss"} == set(learner.units)
    assert learner.units["mse_level2"] == "1/pixel"
    assert learner.units["epoch"] == "epochs"


@pytest.mark.parametrize("look", ["evaluate", "snapshot"])
def test_looking_on_changes_nothing_of_the_training(
    look: str, new_learner: Callable[..., ImageLearner]
) -> None:
    """Couplings above their bound, so that the training depends on its estimate of their norm."""

    def trained(*, looked_on: bool) -> dict[str, Tensor]:
        learner = new_learner(std_lateral=1.0)
        model = learner.module
        for D in model.D:
            assert float(torch.linalg.matrix_norm(symmetric_coupling(D.detach()), 2)) > 0.9
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(PER_EPOCH + 2):
            if looked_on:
                before = {name: value.clone() for name, value in model.state_dict().items()}
                getattr(learner, look)()
                assert model.training
                for name, value in model.state_dict().items():
                    assert torch.equal(value, before[name]), name
            value, _ = learner.training_step(step)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return {name: value.clone() for name, value in model.state_dict().items()}

    plain, looked_on = trained(looked_on=False), trained(looked_on=True)
    assert {"normalizers.0.vector", "D.0", "precision_level0"} <= set(plain)
    for name, value in plain.items():
        assert torch.equal(value, looked_on[name]), name


@pytest.mark.parametrize("look", ["evaluate", "snapshot"])
def test_what_is_looked_at_is_the_network_as_it_is_used(
    look: str, new_learner: Callable[..., ImageLearner]
) -> None:
    """In evaluation mode, whose couplings do not depend on the training before."""
    first, second = (new_learner(std_lateral=1.0) for _ in range(2))
    for normalizer in second.module.normalizers:
        normalizer.vector.copy_(
            normalizer.vector.flip(0) * torch.linspace(-1, 1, len(normalizer.vector))
        )
    found, again = (getattr(learner, look)() for learner in (first, second))
    for name, value in found.items():
        assert torch.equal(value, again[name]), name


def test_a_failed_evaluation_leaves_the_network_in_training_mode(
    new_learner: Callable[..., ImageLearner], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = new_learner()

    def failing(*_: Any) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(learner_module, "up_and_down", failing)
    with pytest.raises(RuntimeError, match="no memory left"):
        learner.evaluate()
    assert learner.module.training
    assert torch.is_grad_enabled()


# --- collapse -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classification", [0.0, 0.03])
def test_no_level_falls_silent_and_reconstructions_differ(
    classification: float, new_learner: Callable[..., ImageLearner]
) -> None:
    """A network that learns the mean image alone would be a local minimum of its loss."""
    loss = LossSettings(classification=classification)
    learner = new_learner({"loss": loss})
    optimizer = torch.optim.Adam(learner.module.parameters(), 2e-2)
    before = learner.evaluate()
    for step in range(20 * PER_EPOCH):
        value, _ = learner.training_step(step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    after = learner.evaluate()
    assert after["loss"] < before["loss"]
    x, _ = learner.validation.batch(torch.arange(60))
    spread = float(x.var(0).mean())  # the error of the mean image
    for level, images in enumerate(learner.snapshot()["reconstructions"]):
        assert float(after[f"active_level{level}"]) > 0.5
        assert float(after[f"mse_level{level}"]) < 0.6 * spread
        assert float(images.var(0).mean()) > 0.3 * spread
