"""Relaxation: the free energy never rises, both moves do what they say, and it comes to rest."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strata.rgm import relaxation
from strata.rgm.activations import ACTIVATIONS
from strata.rgm.config import GNN_FILES
from strata.rgm.factors import Mixture
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.inputs import matrix_shapes
from strata.rgm.model import HierarchicalModel, prediction_errors
from strata.rgm.relaxation import Relaxation, relax
from strata.rgm.specification import Level, MessagePassing, read_specification

SHIPPED = read_specification([Path(__file__).parents[2] / name for name in GNN_FILES])
RULE = SHIPPED.message_passing
PIXELS, STATES = 16, (7, 5, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def random_energy(
    seed: int = 0,
    *,
    activation: str = "silu",
    weights: tuple[float, ...] = (0.0, 0.0, 1.0),
    stiffness: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> FreeEnergy:
    """A network with lateral connections; `stiffness` multiplies the precisions above pixels."""
    sizes = (PIXELS, *STATES)
    levels = tuple(Level(i, sizes[i], sizes[i + 1], 3, activation) for i in range(3))
    specified = replace(SHIPPED, levels=levels, image_shape=(4, 4), n_classes=3)
    matrices = {}
    for position, (name, shape) in enumerate(matrix_shapes(specified).items()):
        matrix = normal(*shape, seed=100 * seed + position).to(dtype)
        is_precision = name.startswith("pi")
        matrices[name] = (0.7 * matrix).exp() if is_precision else matrix / math.sqrt(shape[-1])
        if is_precision and name != "pi_level0":
            matrices[name] *= stiffness
    model = HierarchicalModel(specified, matrices).to(dtype).eval().requires_grad_(False)
    mixtures = []
    for i, n in enumerate(STATES):
        W = normal(3, n, n, seed=seed + i).triu() / math.sqrt(n)
        W.diagonal(dim1=1, dim2=2).abs_().add_(0.5)
        log_weights = torch.log_softmax(normal(3, seed=seed + i + 1), 0)
        means = normal(3, n, seed=seed + i + 2)
        mixtures.append(Mixture(log_weights.to(dtype), means.to(dtype), W.to(dtype)))
    root = normal(STATES[-1], STATES[-1], seed=seed + 9).to(dtype)
    preconditioner = 0.1 * (root @ root.T + torch.eye(len(root), dtype=dtype))
    return FreeEnergy(model, mixtures, weights, preconditioner)


def random_input(
    energy: FreeEnergy, n: int = 4, seed: int = 0, spread: float = 1.0
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Images, precisions of their pixels of which a third is unknown, and states."""
    dtype = energy.precisions[0].dtype
    x = torch.rand(n, PIXELS, generator=generator(seed), dtype=dtype)
    known = torch.rand(n, PIXELS, generator=generator(seed + 1)) > 1 / 3
    states = [spread * normal(n, s, seed=seed + 2 + i).to(dtype) for i, s in enumerate(STATES)]
    return x, energy.precisions[0] * known, states


def largest_rise(found: Relaxation) -> float:
    return float(found.trace.diff(dim=0).max())


# --- the free energy of every image falls -------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@given(
    seed=st.integers(0, 1000),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    weights=st.sampled_from([(0.0, 0.0, 1.0), (0.3, 0.0, 1.0), (1.0, 2.0, 1.0)]),
    spread=st.sampled_from([0.1, 1.0, 10.0]),
    stiffness=st.sampled_from([1.0, 300.0]),
)
def test_it_never_rises(
    dtype: torch.dtype,
    seed: int,
    activation: str,
    weights: tuple[float, ...],
    spread: float,
    stiffness: float,
) -> None:
    energy = random_energy(
        seed, activation=activation, weights=weights, stiffness=stiffness, dtype=dtype
    )
    x, precision, states = random_input(energy, seed=seed, spread=spread)
    free_energies = [energy.evaluate(x, precision, states).free_energy]
    for iterations in (1, 2, 12):
        found = relax(energy, x, precision, states, RULE, iterations=iterations)
        # the trace is believed only where the states that came of it have this free energy
        free_energies.append(energy.evaluate(x, precision, found.states).free_energy)
        assert torch.equal(found.trace[-1], free_energies[-1])
        assert largest_rise(found) <= 0
    assert torch.equal(found.trace[0], free_energies[0])
    assert all(bool((a >= b).all()) for a, b in pairwise(free_energies))
    assert bool((free_energies[-1] < free_energies[0]).all())


def test_every_accepted_move_lowers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    energy = random_energy(3, weights=(0.5, 0.5, 1.0))
    x, precision, states = random_input(energy, spread=5.0)
    seen: list[Tensor] = []

    def watched(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            propose = make(*arguments)

            def proposed(at: list[Tensor], evaluation: Any, scale: Tensor) -> list[Tensor]:
                seen.append(energy.evaluate(x, precision, at).free_energy)
                return propose(at, evaluation, scale)

            return proposed

        return made

    for move in ("_local_move", "_collective_move"):
        monkeypatch.setattr(relaxation, move, watched(getattr(relaxation, move)))
    relax(energy, x, precision, states, replace(RULE, tolerance=1e-15), iterations=30)
    before_moves = torch.stack(seen)
    assert len(before_moves) == 60
    assert float(before_moves.diff(dim=0).max()) <= 0


def test_a_move_is_refused_for_the_image_that_it_would_raise_and_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    energy = random_energy(1)
    x, precision, states = random_input(energy, n=2)
    scales: list[Tensor] = []

    def wrong_for_the_first(energy: FreeEnergy, bounds: list[Tensor]) -> Any:
        def propose(at: list[Tensor], evaluation: Any, scale: Tensor) -> list[Tensor]:
            scales.append(scale)
            steps = zip(at, energy.messages(at, evaluation), strict=True)
            signs = torch.tensor([[-1e-3], [1e-3]])
            return [s + signs * message for s, message in steps]

        return propose

    monkeypatch.setattr(relaxation, "_local_move", wrong_for_the_first)
    monkeypatch.setattr(relaxation, "_collective_move", lambda energy: lambda at, *_: list(at))
    found = relax(energy, x, precision, states, replace(RULE, tolerance=1e-15), iterations=3)
    for before, after in zip(states, found.states, strict=True):
        assert torch.equal(before[0], after[0])
        assert not torch.equal(before[1], after[1])
    first, second = (torch.stack(scales)[:, i, 0].tolist() for i in range(2))
    assert first == pytest.approx([0.9, 0.9 * 0.4, 0.9 * 0.4**2])
    assert second == pytest.approx([0.9, 0.9 * 1.5, 0.9 * 1.5**2])


# --- where it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.5, 0.5, 1.0)], ids=str)
def test_at_rest_all_messages_cancel(weights: tuple[float, ...]) -> None:
    energy = random_energy(2, weights=weights)
    x, precision, states = random_input(energy)
    to_the_end = replace(RULE, tolerance=1e-15, max_iterations=3000)
    found = relax(energy, x, precision, states, to_the_end)
    for start, message in zip(
        energy.messages(states, energy.evaluate(x, precision, states)),
        energy.messages(found.states, found.evaluation),
        strict=True,
    ):
        assert float(message.abs().max()) < 1e-4 * float(start.abs().max())


def test_what_it_returns_belongs_together() -> None:
    energy = random_energy(2, weights=(0.0, 0.7, 1.0))
    x, precision, states = random_input(energy, spread=3.0)
    found = relax(energy, x, precision, states, RULE, iterations=9)
    again = energy.evaluate(x, precision, found.states)
    assert torch.equal(found.evaluation.free_energy, again.free_energy)
    for part in ("weighted_errors", "slopes", "log_joint"):
        for kept, anew in zip(getattr(found.evaluation, part), getattr(again, part), strict=True):
            assert torch.equal(kept, anew)


def test_no_iterations_change_nothing() -> None:
    energy = random_energy()
    x, precision, states = random_input(energy)
    found = relax(energy, x, precision, states, RULE, iterations=0)
    assert all(torch.equal(a, b) for a, b in zip(states, found.states, strict=True))
    assert found.trace.shape == (1, len(x))
    assert found.iterations.tolist() == [0] * len(x)


def test_the_given_states_are_not_changed() -> None:
    energy = random_energy()
    x, precision, states = random_input(energy)
    copies = [state.clone() for state in states]
    relax(energy, x, precision, states, RULE, iterations=3)
    assert all(torch.equal(a, b) for a, b in zip(states, copies, strict=True))


def test_the_number_of_iterations_is_the_rules_unless_it_is_given() -> None:
    energy = random_energy()
    x, precision, states = random_input(energy)
    rule = replace(RULE, tolerance=1e-15, max_iterations=7)
    assert len(relax(energy, x, precision, states, rule).trace) == 8
    assert len(relax(energy, x, precision, states, rule, iterations=4).trace) == 5


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), tolerance=st.sampled_from([1e-2, 1e-3, 1e-4]))
def test_it_ends_when_no_image_falls_by_more_than_the_tolerance(
    seed: int, tolerance: float
) -> None:
    energy = random_energy(seed)
    x, precision, states = random_input(energy, seed=seed)
    rule: MessagePassing = replace(RULE, tolerance=tolerance, max_iterations=500)
    found = relax(energy, x, precision, states, rule)
    falls = -found.trace.diff(dim=0) > tolerance * found.trace[1:].abs()
    assert 1 < len(found.trace) < 501
    assert not falls[-1].any()
    assert bool((found.iterations >= falls.sum(0)).all())
    assert int(found.iterations.max()) == len(found.trace) - 1


def test_the_tolerance_is_relative_to_the_free_energy() -> None:
    energy = random_energy(2)
    x, precision, states = random_input(energy)
    lengths = []
    for offset in (0.0, 1e6):
        energy.log_det_above = energy.log_det_above - offset
        rule = replace(RULE, tolerance=1e-3, max_iterations=200)
        lengths.append(len(relax(energy, x, precision, states, rule).trace))
    assert lengths[1] == 2 < lengths[0]


def test_an_image_by_itself_comes_to_rest() -> None:
    to_the_end = replace(RULE, tolerance=1e-12, max_iterations=1500)
    for seed in range(4):
        energy = random_energy(seed)
        x, precision, states = random_input(energy, n=1, seed=seed)
        found = relax(energy, x, precision, states, to_the_end)
        start = energy.messages(states, energy.evaluate(x, precision, states))
        left = energy.messages(found.states, found.evaluation)
        for before, after in zip(start, left, strict=True):
            assert float(after.norm()) < 1e-3 * float(before.norm())


def test_the_images_of_a_batch_relax_on_their_own() -> None:
    energy = random_energy(4)
    x, precision, states = random_input(energy, spread=3.0)
    together = relax(energy, x, precision, states, RULE, iterations=8)
    for i in range(len(x)):
        one = slice(i, i + 1)
        own = [state[one] for state in states]
        alone = relax(energy, x[one], precision[one], own, RULE, iterations=8)
        n = len(alone.trace)
        torch.testing.assert_close(alone.trace[:, 0], together.trace[:n, i])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3])
def test_where_an_image_rests_does_not_depend_on_the_others_in_its_batch(tolerance: float) -> None:
    energy = random_energy(4, weights=(0.3, 0.0, 1.0))
    x, precision, states = random_input(energy, n=8, spread=2.0)
    rule = replace(RULE, tolerance=tolerance, max_iterations=300)
    together = relax(energy, x, precision, states, rule)
    assert len(together.iterations.unique()) > 2
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = relax(energy, x[one], precision[one], [state[one] for state in states], rule)
        n = int(together.iterations[i])
        assert alone.iterations.tolist() == [n] == [len(alone.trace) - 1]
        torch.testing.assert_close(alone.trace[:, 0], together.trace[: n + 1, i])
        for own, shared in zip(alone.states, together.states, strict=True):
            torch.testing.assert_close(own, shared[one], rtol=1e-7, atol=1e-9)
        for part in ("weighted_errors", "slopes", "log_joint"):
            for own, shared in zip(
                getattr(alone.evaluation, part), getattr(together.evaluation, part), strict=True
            ):
                at_image = shared[one] if shared.ndim == 2 else shared
                torch.testing.assert_close(own, at_image, rtol=1e-7, atol=1e-9)


def test_an_image_at_rest_is_one_whose_moves_were_made_and_whose_fall_is_small() -> None:
    energy = random_energy(4)
    x, precision, states = random_input(energy, n=8, spread=2.0)
    rule = replace(RULE, tolerance=1e-3, max_iterations=300)
    trace = (found := relax(energy, x, precision, states, rule)).trace
    for i, n in enumerate(found.iterations.tolist()):
        assert float(trace[n - 1, i] - trace[n, i]) <= 1e-3 * abs(float(trace[n, i]))
        assert bool((trace[n:, i] == trace[n, i]).all())
    last = torch.arange(len(trace)).unsqueeze(1) == found.iterations
    assert int((last.sum(1) > 0).sum()) > 2  # images rest at different times


def test_a_refused_move_is_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first step that is too long for the second image leaves it where it is, to go on later."""
    energy = random_energy(1)
    x, precision, states = random_input(energy, n=2)

    def too_long_for_the_second(energy: FreeEnergy, bounds: list[Tensor]) -> Any:
        def propose(at: list[Tensor], evaluation: Any, scale: Tensor) -> list[Tensor]:
            steps = zip(at, bounds, energy.messages(at, evaluation), strict=True)
            lengths = scale * torch.tensor([[1.0], [1e4]])
            return [s + lengths * bound * message for s, bound, message in steps]

        return propose

    monkeypatch.setattr(relaxation, "_local_move", too_long_for_the_second)
    monkeypatch.setattr(relaxation, "_collective_move", lambda energy: lambda at, *_: list(at))
    rule = replace(RULE, tolerance=1e-3, max_iterations=200)
    found = relax(energy, x, precision, states, rule)
    assert bool((found.trace[1:5, 1] == found.trace[0, 1]).all())
    assert int(found.iterations[1]) > 5
    assert float(found.trace[-1, 1]) < float(found.trace[0, 1])


# --- the collective move ------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["silu", "tanh", "identity"])
@pytest.mark.parametrize("scale", [1e-3, 0.9])
def test_the_collective_move_leaves_errors_between_levels_as_they_are(
    activation: str, scale: float
) -> None:
    energy = random_energy(5, activation=activation)
    x, precision, states = random_input(energy)
    propose = relaxation._collective_move(energy)
    scales = torch.full((len(x), 1), scale, dtype=x.dtype)
    moved = propose(states, energy.evaluate(x, precision, states), scales)
    before, after = (prediction_errors(energy.model, x, s) for s in (states, moved))
    for level in (1, 2):
        torch.testing.assert_close(after[level], before[level], rtol=1e-12, atol=1e-12)
    assert float((after[0] - before[0]).abs().max()) > 1e-6
    assert all(float((a - b).abs().max()) > 1e-6 for a, b in zip(states, moved, strict=True))


@pytest.mark.parametrize("activation", ["silu", "tanh", "sigmoid"])
@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.4, 0.8, 1.0)], ids=str)
def test_the_collective_move_descends_the_free_energy_along_its_way(
    activation: str, weights: tuple[float, ...]
) -> None:
    energy = random_energy(6, activation=activation, weights=weights)
    x, precision, states = random_input(energy)
    model = energy.model
    step = torch.zeros_like(states[-1]).requires_grad_()
    moved = [states[2] + step]
    for level in (2, 1):
        carried = model.predict(level, moved[0]) - model.predict(level, states[level])
        moved.insert(0, states[level - 1] + carried)
    free_energy = energy.evaluate(x, precision, moved).free_energy
    (gradient,) = torch.autograd.grad(free_energy.sum(), step)
    scales = torch.linspace(0.1, 0.9, len(x), dtype=x.dtype).unsqueeze(1)
    propose = relaxation._collective_move(energy)
    found = propose(states, energy.evaluate(x, precision, states), scales)[-1] - states[-1]
    torch.testing.assert_close(found, -scales * gradient @ energy.preconditioner)


def test_the_collective_move_settles_what_local_moves_change_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    energy = random_energy(7, stiffness=1e4)
    x, precision, _ = random_input(energy, n=20)
    start = energy.model.recognize(x)
    top = start[-1]
    states = [*energy.model.descend(2, top)[:-1][::-1], top]
    both = relax(energy, x, precision, states, RULE, iterations=40).trace
    monkeypatch.setattr(relaxation, "_collective_move", lambda energy: lambda at, *_: list(at))
    alone = relax(energy, x, precision, states, RULE, iterations=40).trace
    fall_of_both, fall_of_local = ((t[0] - t[-1]).mean() for t in (both, alone))
    assert float(fall_of_both) > 2 * float(fall_of_local)
