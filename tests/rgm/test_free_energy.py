"""The free energy: its definition by distributions, messages by automatic differentiation.

The linear Gaussian case, every activation the identity, has closed forms: the mode of the posterior
solves a block tridiagonal system, and the evidence of an image is the density of one Gaussian.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from strata.rgm.activations import ACTIVATIONS
from strata.rgm.config import GNN_FILES
from strata.rgm.factors import Mixture
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.inputs import matrix_shapes
from strata.rgm.model import HierarchicalModel
from strata.rgm.relaxation import relax
from strata.rgm.specification import Level, read_specification

SHIPPED = read_specification([Path(__file__).parents[2] / name for name in GNN_FILES])
PIXELS, STATES = 16, (7, 5, 3)
RHO = 0.9
TO_THE_END = {"max_iterations": 6000, "tolerance": 1e-15}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_model(seed: int, activations: tuple[str, ...] = ("silu",) * 3) -> HierarchicalModel:
    """A network with strong lateral connections and another precision of every unit."""
    sizes = (PIXELS, *STATES)
    levels = tuple(
        Level(i, sizes[i], sizes[i + 1], 2, activation) for i, activation in enumerate(activations)
    )
    rule = replace(SHIPPED.message_passing, **TO_THE_END)
    specified = replace(
        SHIPPED, levels=levels, image_shape=(4, 4), n_classes=2, message_passing=rule
    )
    matrices = {}
    for position, (name, shape) in enumerate(matrix_shapes(specified).items()):
        matrix = normal(*shape, seed=100 * seed + position)
        is_precision = name.startswith("pi")
        matrices[name] = (0.7 * matrix).exp() if is_precision else matrix / math.sqrt(shape[-1])
    return HierarchicalModel(specified, matrices).double().eval().requires_grad_(False)


def random_mixture(n: int, categories: int, seed: int, *, shared: bool = False) -> Mixture:
    W = normal(1 if shared else categories, n, n, seed=seed).triu() / math.sqrt(n)
    W.diagonal(dim1=1, dim2=2).abs_().add_(0.5)
    weights = torch.log_softmax(normal(categories, seed=seed + 1), 0)
    return Mixture(weights, normal(categories, n, seed=seed + 2), W)


def free_energy_of(
    model: HierarchicalModel,
    weights: tuple[float, ...] = (0.0, 0.0, 1.0),
    *,
    categories: int = 2,
    seed: int = 0,
) -> FreeEnergy:
    mixtures = [random_mixture(n, categories, seed + i, shared=i < 2) for i, n in enumerate(STATES)]
    preconditioner = 0.1 * torch.eye(STATES[-1], dtype=torch.float64)
    return FreeEnergy(model, mixtures, weights, preconditioner)


def random_input(
    energy: FreeEnergy, n: int = 4, seed: int = 0
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Images, precisions of their pixels of which a third is unknown, and states."""
    x = torch.rand(n, PIXELS, generator=generator(seed), dtype=torch.float64)
    known = torch.rand(n, PIXELS, generator=generator(seed + 1)) > 1 / 3
    states = [normal(n, size, seed=seed + 2 + i) for i, size in enumerate(STATES)]
    return x, energy.precisions[0] * known, states


def error_precisions(model: HierarchicalModel) -> list[Tensor]:
    """Pi_1, Pi_2, ... by their definition."""
    found = []
    for level in range(1, len(model.levels)):
        D = model.D[level - 1].numpy()
        S = (D + D.T) / 2 - np.diag(np.diag(D))
        C = np.eye(len(S)) + RHO * S / max(RHO, np.linalg.norm(S, 2))
        root = np.diag(np.sqrt(model.precisions[level].numpy()))
        found.append(torch.from_numpy(root @ C @ root))
    return found


def defined(energy: FreeEnergy, x: Tensor, pixel_precision: Tensor, states: list[Tensor]) -> Tensor:
    """F of each image as the surprise of errors and states, without ln(2 pi) of the errors."""
    model = energy.model
    known = pixel_precision > 0
    of_pixels = Normal(model.predict(0, states[0]), torch.where(known, pixel_precision, 1).rsqrt())
    surprise = of_pixels.log_prob(x) + 0.5 * math.log(2 * math.pi)
    total = -torch.where(known, surprise, 0).sum(1)
    for level, Pi in enumerate(error_precisions(model), start=1):
        prediction = model.predict(level, states[level])
        of_states = MultivariateNormal(prediction, precision_matrix=Pi)
        constant = 0.5 * len(Pi) * math.log(2 * math.pi)
        total = total - of_states.log_prob(states[level - 1]) - constant
    for mixture, weight, state in zip(energy.mixtures, energy.factor_weights, states, strict=True):
        W = mixture.whitening.expand(len(mixture.means), -1, -1)
        of_factor = MixtureSameFamily(
            Categorical(logits=mixture.log_weights),
            MultivariateNormal(mixture.means, precision_matrix=W.mT @ W),
        )
        total = total - weight * of_factor.log_prob(state)
    return total


WEIGHTS = pytest.mark.parametrize(
    "weights", [(0.0, 0.0, 1.0), (0.4, 0.0, 1.0), (1.0, 2.5, 1.0)], ids=str
)
ALL = pytest.mark.parametrize("activation", ACTIVATIONS)


@WEIGHTS
@ALL
def test_it_is_its_definition(activation: str, weights: tuple[float, ...]) -> None:
    energy = free_energy_of(random_model(1, (activation,) * 3), weights)
    x, precision, states = random_input(energy)
    found = energy.evaluate(x, precision, states).free_energy
    torch.testing.assert_close(found, defined(energy, x, precision, states))


@WEIGHTS
@ALL
def test_messages_add_up_to_its_gradient(activation: str, weights: tuple[float, ...]) -> None:
    energy = free_energy_of(random_model(2, (activation,) * 3), weights)
    x, precision, states = random_input(energy)
    leaves = [state.requires_grad_() for state in states]
    gradients = torch.autograd.grad(defined(energy, x, precision, leaves).sum(), leaves)
    with torch.no_grad():
        at = energy.evaluate(x, precision, states)
        for message, gradient in zip(energy.messages(states, at), gradients, strict=True):
            torch.testing.assert_close(message, -gradient)


def test_a_factor_without_weight_sends_no_message() -> None:
    energy = free_energy_of(random_model(2), (0.0, 0.3, 1.0))
    x, precision, states = random_input(energy)
    at = energy.evaluate(x, precision, states)
    sizes = [float(energy.factor_message(i, states, at).abs().max()) for i in range(3)]
    assert sizes[0] == 0
    assert min(sizes[1:]) > 0


def test_precisions_are_those_of_the_model_when_it_was_made() -> None:
    model = random_model(3)
    energy = free_energy_of(model)
    x, precision, states = random_input(energy)
    before = energy.evaluate(x, precision, states).free_energy
    bounds = energy.step_bounds(precision)
    for pi in model.precisions:
        pi.mul_(2)
    assert torch.equal(energy.evaluate(x, precision, states).free_energy, before)
    for bound, again in zip(bounds, energy.step_bounds(precision), strict=True):
        assert torch.equal(bound, again)


def test_an_unknown_pixel_has_no_part_in_it() -> None:
    energy = free_energy_of(random_model(4))
    x, precision, states = random_input(energy)
    other = torch.where(precision > 0, x, 17 - 40 * x)
    one, two = (energy.evaluate(image, precision, states) for image in (x, other))
    assert torch.equal(one.free_energy, two.free_energy)
    for a, b in zip(energy.messages(states, one), energy.messages(states, two), strict=True):
        assert torch.equal(a, b)


def test_an_image_of_which_nothing_is_known_is_explained_by_the_levels_above() -> None:
    energy = free_energy_of(random_model(4))
    x, precision, states = random_input(energy)
    nothing = torch.zeros_like(precision)
    found = energy.evaluate(x, nothing, states).free_energy
    torch.testing.assert_close(found, defined(energy, x, nothing, states))
    assert bool(found.isfinite().all())


@WEIGHTS
@ALL
def test_in_double_precision_it_is_the_same_within_rounding(
    activation: str, weights: tuple[float, ...]
) -> None:
    single = free_energy_of(random_model(1, (activation,) * 3).float(), weights)
    single.mixtures = [
        Mixture(m.log_weights.float(), m.means.float(), m.whitening.float())
        for m in single.mixtures
    ]
    single.preconditioner = single.preconditioner.float()
    x, precision, states = random_input(single)
    in_single = [x.float(), precision.float(), [state.float() for state in states]]
    rounded = [in_single[0].double(), in_single[1].double(), [s.double() for s in in_single[2]]]
    before = single.evaluate(*in_single).free_energy
    double = single.in_double()
    found = double.evaluate(*rounded).free_energy
    assert found.dtype == double.preconditioner.dtype == torch.float64
    # rounded weights of a mixture do not quite sum to one
    torch.testing.assert_close(found, defined(double, *rounded))
    torch.testing.assert_close(found.float(), before, rtol=2e-5, atol=2e-5)
    assert not torch.equal(found, before.double())
    assert double.factor_weights == weights
    torch.testing.assert_close(double.preconditioner.float(), single.preconditioner)
    # what was asked stays as it was
    assert all(p.dtype == torch.float32 for p in single.model.parameters())
    assert torch.equal(single.evaluate(*in_single).free_energy, before)


# --- the linear Gaussian case -------------------------------------------------------------------


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> HierarchicalModel:
    """A network whose activations are all the identity, down to the pixels."""
    monkeypatch.setitem(ACTIVATIONS, "sigmoid", ACTIVATIONS["identity"])
    return random_model(5, ("identity",) * 3)


def quadratic_form(
    energy: FreeEnergy, pixel_precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """H, R, r, W of F = |R s + r + E x|^2_W / 2 + const, one image: H = R^T W R.

    Rows are the errors e_0, e_1, e_2 and the distances of states from the mean of their factor;
    s holds the states of all levels one after the other.
    """
    model = energy.model
    n_all = sum(STATES)
    starts = np.cumsum([0, *STATES])
    R, r, blocks = [], [], []
    precisions = [np.diag(pixel_precision), *(Pi.numpy() for Pi in error_precisions(model))]
    for level, n in enumerate(STATES):
        B, b = model.B[level].numpy(), model.b[level].numpy()
        rows = np.zeros((len(B), n_all))
        rows[:, starts[level] : starts[level + 1]] = -B
        if level > 0:
            rows[:, starts[level - 1] : starts[level]] = np.eye(len(B))
        R.append(rows)
        r.append(-b)
        blocks.append(precisions[level])
        if energy.factor_weights[level] > 0:
            rows = np.zeros((n, n_all))
            rows[:, starts[level] : starts[level + 1]] = np.eye(n)
            W = energy.mixtures[level].whitening[0].numpy()
            R.append(rows)
            r.append(-energy.mixtures[level].means[0].numpy())
            blocks.append(energy.factor_weights[level] * W.T @ W)
    weight = np.zeros((sum(map(len, r)),) * 2)
    position = 0
    for block in blocks:
        weight[position : position + len(block), position : position + len(block)] = block
        position += len(block)
    design = np.concatenate(R)
    return design.T @ weight @ design, design, np.concatenate(r), weight


def posterior_mode(
    energy: FreeEnergy, x: np.ndarray, pixel_precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The states of least F, one after the other, and H."""
    H, R, r, W = quadratic_form(energy, pixel_precision)
    r = r.copy()
    r[:PIXELS] += x
    return np.linalg.solve(H, -R.T @ W @ r), H


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.5, 0.2, 1.0)], ids=str)
def test_states_relax_to_the_mode_of_the_posterior(
    linear: HierarchicalModel, weights: tuple[float, ...]
) -> None:
    energy = free_energy_of(linear, weights, categories=1)
    x, precision, states = random_input(energy)
    found = relax(energy, x, precision, states, linear.specification.message_passing)
    relaxed = torch.cat(found.states, 1).numpy()
    for i in range(len(x)):
        expected, H = posterior_mode(energy, x[i].numpy(), precision[i].numpy())
        n0, n1, _ = STATES
        assert np.all(H[:n0, n0 + n1 :] == 0)  # block tridiagonal: neighbours alone are coupled
        np.testing.assert_allclose(relaxed[i], expected, atol=1e-5)
    at_the_mode = [torch.from_numpy(s) for s in np.split(
        np.stack([posterior_mode(energy, a.numpy(), p.numpy())[0]
                  for a, p in zip(x, precision, strict=True)]),
        np.cumsum(STATES)[:-1], axis=1)]  # fmt: skip
    least = energy.evaluate(x, precision, at_the_mode).free_energy
    torch.testing.assert_close(found.evaluation.free_energy, least, atol=1e-8, rtol=0)
    assert bool((found.evaluation.free_energy >= least - 1e-9).all())


def test_at_the_mode_it_is_the_evidence_up_to_the_volume_of_the_posterior(
    linear: HierarchicalModel,
) -> None:
    energy = free_energy_of(linear, categories=1)
    x, precision, states = random_input(energy)
    found = relax(energy, x, precision, states, linear.specification.message_passing)
    top = energy.mixtures[-1]
    mean, covariance = top.means[0], torch.linalg.inv(top.whitening[0].T @ top.whitening[0])
    precisions = [None, *error_precisions(linear)]
    for level in (2, 1):
        B = linear.B[level]
        mean = B @ mean + linear.b[level]
        covariance = B @ covariance @ B.T + torch.linalg.inv(precisions[level])
    B = linear.B[0]
    mean, covariance = B @ mean + linear.b[0], B @ covariance @ B.T
    for i in range(len(x)):
        seen = precision[i] > 0
        noise = torch.diag(1 / precision[i][seen])
        of_image = MultivariateNormal(mean[seen], covariance[seen][:, seen] + noise)
        H, *_ = quadratic_form(energy, precision[i].numpy())
        # exp(-F) lacks 1 / sqrt(2 pi) per error above the pixels and per known pixel
        n_errors = int(seen.sum()) + STATES[0] + STATES[1]
        log_volume = 0.5 * (sum(STATES) - n_errors) * math.log(2 * math.pi)
        log_volume -= 0.5 * np.linalg.slogdet(H)[1]
        evidence = -float(found.evaluation.free_energy[i]) + log_volume
        assert evidence == pytest.approx(float(of_image.log_prob(x[i][seen])), abs=1e-7)


@pytest.mark.parametrize("eta", [0.5, 0.99])
@given(seed=st.integers(0, 1000), weight=st.sampled_from([0.0, 1.0]))
def test_a_local_step_within_the_bound_lowers_it(eta: float, seed: int, weight: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ACTIVATIONS, "sigmoid", ACTIVATIONS["identity"])
        model = random_model(seed, ("identity",) * 3)
        energy = free_energy_of(model, (weight, weight, 1.0), categories=3, seed=seed)
        x, precision, states = random_input(energy, seed=seed)
        for _ in range(5):
            at = energy.evaluate(x, precision, states)
            steps = zip(
                states, energy.step_bounds(precision), energy.messages(states, at), strict=True
            )
            states = [s + eta * bound * message for s, bound, message in steps]
            after = energy.evaluate(x, precision, states).free_energy
            assert bool((after < at.free_energy).all())


STIFF = ("pixels", "errors 1", "errors 2", "factor 0", "factor 1")


@settings(max_examples=6)
@pytest.mark.parametrize("stiff", [None, *STIFF])
@given(seed=st.integers(0, 1000))
def test_the_bound_of_a_step_is_that_of_the_curvature(stiff: str | None, seed: int) -> None:
    """Whatever part of the curvature is the largest by far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ACTIVATIONS, "sigmoid", ACTIVATIONS["identity"])
        model = random_model(seed, ("identity",) * 3)
        factors = tuple(1000.0 if stiff == f"factor {i}" else 0.3 for i in range(2))
        for level, name in enumerate(STIFF[:3]):
            if stiff == name:
                model.precisions[level].fill_(1000.0)
        energy = free_energy_of(model, (*factors, 1.0), categories=1, seed=seed)
        _, precision, _ = random_input(energy, seed=seed)
        bounds = torch.stack([bound[:, 0] for bound in energy.step_bounds(precision)], 1).numpy()
    starts = np.cumsum([0, *STATES])
    for i in range(len(bounds)):
        H, *_ = quadratic_form(energy, precision[i].numpy())
        root = np.sqrt(np.repeat(bounds[i], STATES))
        assert np.linalg.norm(root[:, None] * H * root, 2) < 2
        for level in range(3):
            own = slice(starts[level], starts[level + 1])
            curvature = np.linalg.norm(H[own, own], 2)
            assert bounds[i, level] * curvature <= 1 + 1e-12
            assert bounds[i, level] * curvature > 0.02  # a bound that leaves room to move


def test_the_bound_counts_the_slope_of_the_activation() -> None:
    """The logistic function is at most 1/4 steep, so that pixels ask for steps 16 times longer."""
    energies = []
    for activation in ("sigmoid", "identity"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ACTIVATIONS, "sigmoid", ACTIVATIONS[activation])
            energy = free_energy_of(random_model(6))
            precision = 1e9 * torch.ones(1, PIXELS, dtype=torch.float64)
            energies.append(float(energy.step_bounds(precision)[0]))
    assert energies[0] == pytest.approx(16 * energies[1], rel=1e-6)
