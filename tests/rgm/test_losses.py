"""The loss: each component against its formula in numpy, what carries gradient, precisions."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from torch import Tensor

from strata.rgm.config import GNN_FILES
from strata.rgm.inputs import matrix_shapes
from strata.rgm.losses import (
    COMPONENTS,
    Pass,
    image_errors,
    loss_components,
    up_and_down,
    update_precisions,
    weighted,
)
from strata.rgm.model import HierarchicalModel
from strata.rgm.network_settings import LossSettings
from strata.rgm.specification import Level, read_specification

SHIPPED = read_specification([Path(__file__).parents[2] / name for name in GNN_FILES])
RULE = SHIPPED.precision
PIXELS, STATES, CLASSES = 16, (7, 5, 3), 4
BELOW = 0.37


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_model() -> HierarchicalModel:
    sizes = (PIXELS, *STATES)
    levels = tuple(
        Level(i, sizes[i], sizes[i + 1], CLASSES, phi)
        for i, phi in enumerate(("tanh", "tanh", "identity"))
    )
    specified = replace(SHIPPED, levels=levels, image_shape=(4, 4), n_classes=CLASSES)
    matrices = {}
    for position, (name, shape) in enumerate(matrix_shapes(specified).items()):
        matrix = normal(*shape, seed=position)
        matrices[name] = matrix.exp() if name.startswith("pi") else matrix / math.sqrt(shape[-1])
    model = HierarchicalModel(specified, matrices).double().eval()
    with torch.no_grad():
        model.class_log_precision.copy_(normal(STATES[-1], seed=50))
        model.class_log_prior.copy_(normal(CLASSES, seed=51))
    return model


@pytest.fixture
def model() -> HierarchicalModel:
    return random_model()


def images(n: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, PIXELS, generator=generator(9), dtype=torch.float64)
    return x, torch.arange(n) % CLASSES


def components(model: HierarchicalModel, outcome: Pass | None = None) -> dict[str, Tensor]:
    x, labels = images()
    return loss_components(model, x, labels, outcome or up_and_down(model, x), BELOW)


def by_numpy(model: HierarchicalModel) -> dict[str, float]:
    """The components by their formulas, from a pass upwards."""
    x, labels = (part.numpy() for part in images())
    with torch.no_grad():
        states = [state.numpy() for state in model.recognize(images()[0])]

    def below(level: int, state: np.ndarray) -> np.ndarray:
        B, b = model.B[level].detach().numpy(), model.b[level].detach().numpy()
        return special.expit(state @ B.T + b) if level == 0 else np.tanh(state @ B.T + b)

    pictures = [
        below(0, states[0]),
        below(0, below(1, states[1])),
        below(0, below(1, below(2, states[2]))),
    ]
    squared = [np.sum((picture - x) ** 2) / (len(x) * PIXELS) for picture in pictures]
    prediction = 0.0
    for level, target in enumerate([x, states[0], states[1]]):
        pi = model.precisions[level].numpy()
        error = target - below(level, states[level])
        prediction += np.mean(pi * error**2 - np.log(pi)) / 2
    from_top = [below(1, below(2, states[2])), below(2, states[2])]
    consistency = sum(
        np.sum((s - t) ** 2) / np.sum(s**2) for s, t in zip(states[:2], from_top, strict=True)
    )
    sparsity = sum(np.mean(np.abs(s)) / np.sqrt(np.mean(s**2)) for s in states[:2])
    M = model.prototypes.detach().numpy()
    Lambda = np.exp(model.class_log_precision.detach().numpy())
    log_prior = special.log_softmax(model.class_log_prior.detach().numpy())
    surprises = []
    for s, y in zip(states[2], labels, strict=True):
        scores = [log_prior[c] - 0.5 * np.sum(Lambda * (s - M[:, c]) ** 2) for c in range(CLASSES)]
        surprises.append(special.logsumexp(scores) - scores[y])
    return {
        "reconstruction": squared[2] + BELOW * (squared[0] + squared[1]),
        "prediction": prediction,
        "consistency": consistency,
        "sparsity": sparsity,
        "class": float(np.mean(surprises)),
    }


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_its_formula(model: HierarchicalModel, name: str) -> None:
    found = components(model)
    assert tuple(found) == COMPONENTS
    assert found[name].item() == pytest.approx(by_numpy(model)[name], rel=1e-9)


def test_a_pass_holds_what_every_level_makes_of_the_images(model: HierarchicalModel) -> None:
    x, _ = images()
    outcome = up_and_down(model, x)
    for level, state in enumerate(outcome.states):
        assert torch.equal(outcome.images[level], model.reconstruct(level, state))
        target = x if level == 0 else outcome.states[level - 1]
        assert torch.equal(outcome.errors[level], target - model.predict(level, state))
    assert len(outcome.from_top) == 2
    assert torch.equal(outcome.from_top[1], model.predict(2, outcome.states[2]))
    assert torch.equal(outcome.from_top[0], model.predict(1, outcome.from_top[1]))
    for error, picture in zip(image_errors(x, outcome), outcome.images, strict=True):
        assert error.item() == pytest.approx(((picture - x) ** 2).sum().item() / x.numel())


def test_a_pass_may_see_other_images_than_it_describes(model: HierarchicalModel) -> None:
    x, _ = images()
    seen = x.flip(0)
    outcome = up_and_down(model, x, seen)
    assert torch.equal(outcome.states[0], model.recognize(seen)[0])
    assert torch.equal(outcome.errors[0], x - model.predict(0, outcome.states[0]))


def test_every_share_has_its_own_weight(model: HierarchicalModel) -> None:
    weights = LossSettings(
        reconstruction=2.0, prediction=3.0, consistency=5.0, sparsity=7.0, classification=11.0
    )
    found = components(model)
    shares = weighted(found, weights)
    factors = dict(zip(COMPONENTS, (2.0, 3.0, 5.0, 7.0, 11.0), strict=True))
    assert {name: share.item() for name, share in shares.items()} == pytest.approx(
        {name: factor * found[name].item() for name, factor in factors.items()}
    )


# --- what carries gradient ----------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPONENTS)
def test_gradients_reach_the_weights_that_a_component_depends_on(
    model: HierarchicalModel, name: str
) -> None:
    components(model)[name].backward()
    reached = {
        key for key, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())
    }
    everything = {f"{letter}.{level}" for letter in "ABDab" for level in range(3)}
    upwards = {key for key in everything if key[0] in "ADa"}
    of_classes = {"prototypes", "class_log_precision", "class_log_prior"}
    expected = {
        "reconstruction": everything,
        "prediction": everything,
        "consistency": everything - {"B.0", "b.0"},
        "sparsity": {key for key in upwards if key[-1] != "2"},
        "class": upwards | of_classes,
    }
    assert reached == expected[name]


def test_precisions_carry_no_gradient_and_may_move_before_it_is_taken(
    model: HierarchicalModel,
) -> None:
    x, _ = images()
    gradients = []
    for moves in (False, True):
        outcome = up_and_down(model, x)
        prediction = components(model, outcome)["prediction"]
        if moves:
            update_precisions(model, outcome.errors, RULE, rate=1.0)
        gradients.append(torch.autograd.grad(prediction, model.B[1])[0])
        assert not any(pi.requires_grad for pi in model.precisions)
    assert torch.equal(*gradients)


def lower_states(outcome: Pass, scale: float) -> Pass:
    """The pass with its lower states, and what the top predicts of them, times a number."""
    return replace(
        outcome,
        states=[*(scale * s for s in outcome.states[:-1]), outcome.states[-1]],
        from_top=[scale * s for s in outcome.from_top],
    )


def test_the_size_that_consistency_is_relative_to_carries_no_gradient(
    model: HierarchicalModel,
) -> None:
    outcome = up_and_down(model, images()[0])
    states = [s.detach().clone().requires_grad_() for s in outcome.states]
    found = components(model, replace(outcome, states=states))["consistency"]
    for state, predicted in zip(states[:-1], outcome.from_top, strict=True):
        (gradient,) = torch.autograd.grad(found, state, retain_graph=True)
        expected = 2 * (state - predicted) / state.square().sum()
        torch.testing.assert_close(gradient, expected)


@given(scale=st.floats(1e-3, 1e3))
def test_consistency_and_sparsity_do_not_depend_on_the_size_of_states(scale: float) -> None:
    model = random_model()
    outcome = up_and_down(model, images()[0])
    one, other = (components(model, lower_states(outcome, factor)) for factor in (1.0, scale))
    for name in ("consistency", "sparsity"):
        assert other[name].item() == pytest.approx(one[name].item(), rel=1e-9)


def test_sparsity_has_no_slope_along_the_size_of_states(model: HierarchicalModel) -> None:
    outcome = up_and_down(model, images()[0])
    states = [s.detach().clone().requires_grad_() for s in outcome.states]
    found = components(model, replace(outcome, states=states))["sparsity"]
    for state in states[:-1]:
        (gradient,) = torch.autograd.grad(found, state, retain_graph=True)
        assert (gradient * state).sum().item() == pytest.approx(0.0, abs=1e-12)
        assert float(gradient.norm()) > 1e-3


def test_sparse_states_have_a_small_sparsity(model: HierarchicalModel) -> None:
    outcome = up_and_down(model, images()[0])
    dense, sparse = ([torch.zeros(6, n, dtype=torch.float64) for n in STATES] for _ in range(2))
    for i in range(2):
        dense[i][:] = 1.0
        sparse[i][:, 0] = 1.0
    found = [
        components(model, replace(outcome, states=states))["sparsity"].item()
        for states in (dense, sparse)
    ]
    assert found == pytest.approx([2.0, 7**-0.5 + 5**-0.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("silent", [(0,), (1,), (0, 1)], ids=str)
def test_states_that_are_all_zero_have_a_finite_loss_and_gradient(
    model: HierarchicalModel, silent: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = model.to(dtype)
    with torch.no_grad():
        for level in silent:
            model.A[level].zero_()
            model.a[level].zero_()
    x, labels = images()
    outcome = up_and_down(model, x.to(dtype))
    assert not any(bool(outcome.states[level].any()) for level in silent)
    found = loss_components(model, x.to(dtype), labels, outcome, BELOW)
    assert all(bool(component.isfinite()) for component in found.values())
    states = [s.detach() for s in outcome.states[:2]]
    expected = [s.abs().mean() / s.square().mean().sqrt() for s in states if s.any()]
    assert found["sparsity"].item() == pytest.approx(float(sum(expected)), rel=1e-5)
    torch.stack(list(found.values())).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


# --- precisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 0.3, 1.0])
def test_precisions_follow_the_errors_by_their_rule(
    model: HierarchicalModel, rate: float | None
) -> None:
    rule = replace(RULE, minimum=0.2, maximum=4.0, update_rate=0.15, regularization=0.02)
    before = [pi.numpy().copy() for pi in model.precisions]
    scales = (0.3, 1.0, 4.0)
    errors = [scales[i] * normal(11, len(pi), seed=i) for i, pi in enumerate(before)]
    update_precisions(model, errors, rule, rate)
    r = 0.15 if rate is None else rate
    for pi, error, found in zip(before, errors, model.precisions, strict=True):
        variance = (1 - r) / pi + r * ((error.numpy() ** 2).mean(0) + 0.02)
        np.testing.assert_allclose(found.numpy(), np.clip(1 / variance, 0.2, 4.0), rtol=1e-12)
    everything = torch.cat(model.precisions)
    assert bool((everything >= 0.2).all() and (everything <= 4.0).all())


def test_precisions_stay_within_bounds_whatever_the_errors(model: HierarchicalModel) -> None:
    for size, bound in ((0.0, RULE.maximum), (1e6, RULE.minimum)):
        errors = [torch.full((3, len(pi)), size, dtype=torch.float64) for pi in model.precisions]
        update_precisions(model, errors, RULE, rate=1.0)
        assert all(bool((pi == bound).all()) for pi in model.precisions)


def test_precisions_of_many_batches_come_to_one_over_the_mean_square(
    model: HierarchicalModel,
) -> None:
    rule = replace(RULE, update_rate=0.05)
    draws = generator(1)
    deviations = [torch.linspace(0.2, 2.0, len(pi), dtype=torch.float64) for pi in model.precisions]
    for _ in range(400):
        errors = [d * torch.randn(64, len(d), generator=draws, dtype=torch.float64)
                  for d in deviations]  # fmt: skip
        update_precisions(model, errors, rule)
    for pi, deviation in zip(model.precisions, deviations, strict=True):
        # 39 batches count, of 64 squares of variance 2 each: a relative error of 0.028
        torch.testing.assert_close(pi.rsqrt(), deviation, rtol=0.07, atol=0)
