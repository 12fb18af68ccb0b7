"""The training step against the method as the source writes it, one proposal at a time.

`plain_step` follows Li and Wang, arXiv:1802.02840, to the letter where the learner takes short
cuts: every proposal is evaluated by the inferring pass, and every log-density is computed anew.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strata.neural_rg import learner as learner_module
from strata.neural_rg.config import NeuralRGTraining, RunSettings
from strata.neural_rg.exact import kernel_eigenvalues, kernel_offset, log_partition_field
from strata.neural_rg.exact_data import ExactFields
from strata.neural_rg.flow_settings import (
    FlowSettings,
    MeraSettings,
    RealNVPSettings,
    TebdSettings,
)
from strata.neural_rg.flows import build_flow, gaussian_part
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.learner import FORWARD_UNITS, UNITS, FlowLearner, effective_sample_fraction
from strata.neural_rg.metropolis import ChainState, decided
from strata.neural_rg.target_settings import (
    IsingSettings,
    RingSettings,
    ScalarFieldSettings,
    TargetSettings,
    WaveSettings,
)
from strata.neural_rg.targets import build_target
from strata.randomness import Generators

CPU = torch.device("cpu")
SIZES = {"n_layers": 2, "hidden_scale": 4, "hidden_shift": 5}
CRITICAL = IsingSettings(L=4)
BEYOND_THE_ISING_MERA: dict[str, tuple[TargetSettings, FlowSettings]] = {
    "brick wall": (CRITICAL, TebdSettings(depth=2, **SIZES)),
    "checkerboard": (CRITICAL, RealNVPSettings(**SIZES)),
    "phi4": (ScalarFieldSettings(L=4), MeraSettings(**SIZES)),
    "ring": (RingSettings(), RealNVPSettings(**SIZES)),
    "wave": (WaveSettings(), RealNVPSettings(symmetrize=True, **SIZES)),
}


def new_learner(
    *,
    target: TargetSettings = CRITICAL,
    flow: FlowSettings | None = None,
    symmetrize: bool = False,
    std: float | None = 0.2,
    seed: int = 3,
    spins: Tensor | None = None,
    held_out: Tensor | None = None,
    **training: Any,
) -> FlowLearner:
    """A learner in float64; weights of the given spread, or as a run starts for None.

    With spins, the data term is over exact fields of them; those held out are evaluated with.
    """
    settings = RunSettings(
        target=target,
        flow=flow or MeraSettings(symmetrize=symmetrize, **SIZES),
        training=NeuralRGTraining(**{"batch": 8, "steps": 8, "evaluation_batch": 50, **training}),
    )
    generators = Generators(seed, CPU)
    module = build_flow(settings, generators.on_cpu("init")).double()
    if std is not None:
        spread_weights(module, std)
    density = build_target(settings.target, dtype=torch.float64, device=CPU)
    exact = []
    for some in (spins, held_out):
        assert some is None or isinstance(density, IsingField)
        exact.append(None if some is None else ExactFields(density, some))
    return FlowLearner(module, density, settings.training, generators, *exact)


def spread_weights(flow: nn.Module, std: float) -> None:
    gen = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(0.0, std, generator=gen)


def gradient(loss: Tensor, module: nn.Module) -> Tensor:
    """All gradients in one vector; zero where the loss does not depend on a weight."""
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def plain_step(
    learner: FlowLearner, buffer: Tensor, beta: float
) -> tuple[dict[str, Tensor], Tensor]:
    """One step of the source's section on training, with the learner's settings and generators.

    Returns the terms (with graphs) and the buffer after it. The one thing that is not the source's:
    present states carry no graph.
    """
    s, flow, target, random = learner.settings, learner.module, learner.target, learner.generators
    shape = target.event_shape

    def rows(source: Tensor, n: int, name: str) -> Tensor:
        return source[torch.randperm(len(source), generator=random[name])[:n]]

    def log_pi(x: Tensor) -> Tensor:
        return target.log_density(x, beta)

    if len(buffer) > s.batch:
        z = rows(buffer, s.batch, "chain")
    else:
        z = torch.randn(s.batch, *shape, generator=random["chain"], dtype=torch.float64)

    def silent(z: Tensor, n: int) -> Tensor:
        for _ in range(n):
            z, _, _ = move(z, next(unmeasured))
        return z

    def move(z: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ratio = log_pi(x) - log_pi(z) - flow.log_prob(x) + flow.log_prob(z)
        uniform = torch.rand(s.batch, generator=random["chain"], dtype=torch.float64)
        accepted = ratio.exp() >= uniform
        moved = torch.where(accepted.view(-1, *[1] * len(shape)), x, z).detach()
        return moved, torch.minimum(ratio, torch.zeros_like(ratio)), accepted

    n_silent = (s.n_therm + s.n_steps * s.n_skip + s.n_therm * s.n_skip) * s.batch
    n_measured = s.n_steps * s.batch
    proposals = flow.sample(n_silent + n_measured, random["proposal"])[0]
    unmeasured = iter(proposals[:n_silent].detach().split(s.batch) if n_silent else ())
    measured = iter(proposals[n_silent:].split(s.batch))
    z = silent(z, s.n_therm * (1 + s.n_skip))
    visited, log_a, accepted, kld, squares = [], [], [], [], []
    for _ in range(s.n_steps):
        z = silent(z, s.n_skip)
        x = next(measured)
        z, step_log_a, step_accepted = move(z, x)
        visited.append(z)
        log_a.append(step_log_a)
        accepted.append(step_accepted.double())
        kld.append(flow.log_prob(x) - log_pi(x))
        squares.append(target.observable(z))
    fields = torch.cat(visited)
    buffer = torch.cat([buffer, fields, -fields])
    if len(buffer) > s.buffer_batches * s.batch:
        buffer = rows(buffer, s.buffer_batches * s.batch, "buffer")
    terms = {
        "variational": torch.cat(kld).mean(),
        "log_acceptance": torch.cat(log_a).mean(),
        "acceptance": torch.cat(accepted).mean(),
        "observable": torch.cat(squares).mean(),
    }
    if s.delta > 0:
        terms["data"] = -flow.log_prob(rows(buffer, s.batch, "data")).mean()
    return terms, buffer


@pytest.mark.parametrize("settings", [
    {"n_therm": 2, "n_skip": 0, "n_steps": 1, "delta": 1.0, "omega": 0.5},
    {"n_therm": 0, "n_skip": 0, "n_steps": 1, "delta": 0.0, "omega": 1.0},
    {"n_therm": 0, "n_skip": 2, "n_steps": 3, "delta": 0.7, "omega": 0.0},
    {"n_therm": 1, "n_skip": 1, "n_steps": 2, "delta": 1.0, "omega": 0.3, "beta": 0.3},
    {"n_therm": 1, "n_skip": 0, "n_steps": 1, "delta": 1.0, "omega": 0.0, "epsilon": 1.0},
    {"n_therm": 1, "n_steps": 2, "delta": 0.0, "omega": 0.4, "epsilon": 2.0, "beta": 0.5},
    {"n_therm": 1, "n_steps": 1, "delta": 0.0, "omega": 0.0, "epsilon": 1.0},
    {"n_therm": 1, "n_steps": 1, "delta": 1.0, "omega": 0.5, "symmetrize": True},
    *(
        {"target": target, "flow": flow, "n_therm": 1, "epsilon": 0.3, "beta": 0.4}
        for target, flow in BEYOND_THE_ISING_MERA.values()
    ),
])  # fmt: skip
def test_training_steps_are_the_sources(settings: Mapping[str, Any]) -> None:
    """Loss, its parts, its gradient and the buffer, over steps that start from a full buffer."""
    settings = {"buffer_batches": 3, **settings}
    learner, plain = new_learner(**settings), new_learner(**settings)
    weights = learner.settings
    buffer, rates = plain.buffer.fields, []
    for step in range(4):
        beta = weights.beta + (1 - weights.beta) * min(1.0, step / 4)
        loss, metrics = learner.training_step(step)
        terms, buffer = plain_step(plain, buffer, beta)
        expected = (
            weights.delta * terms.get("data", torch.zeros(()))
            + weights.omega * terms["variational"]
            - weights.epsilon * terms["log_acceptance"]
        )
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        assert set(metrics) == {*terms, "beta"}
        assert metrics["beta"].item() == pytest.approx(beta)
        for name, term in terms.items():
            torch.testing.assert_close(metrics[name], term.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            gradient(loss, learner.module), gradient(expected, plain.module), rtol=1e-8, atol=1e-8
        )
        torch.testing.assert_close(learner.buffer.fields, buffer, rtol=1e-10, atol=1e-10)
        rates.append(metrics["acceptance"].item())
    assert len(buffer) == 24, "the buffer should be full and thinned"
    assert 0 < np.mean(rates) < 1


@pytest.mark.parametrize("weights", [{"omega": 1.0, "delta": 0.0}, {"omega": 0.0, "delta": 1.0}])
def test_gradients_are_finite_differences(
    weights: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of <ln p - ln pi~> with frozen latents, and of <-ln p> with a frozen buffer."""
    learner = new_learner(**weights, n_therm=0)
    learner.training_step(0)
    states = learner.generators.state_dict()
    monkeypatch.setattr(learner_module, "pushed", lambda held, new, kept: held)
    monkeypatch.setattr(
        learner.buffer, "rows_kept", lambda n_new, generator: torch.arange(len(learner.buffer))
    )
    parameters = list(learner.module.parameters())
    start = nn.utils.parameters_to_vector(parameters).detach()
    direction = torch.randn(start.shape, generator=torch.Generator().manual_seed(2)).double()

    def loss_at(shift: float) -> Tensor:
        learner.generators.load_state_dict(states)
        nn.utils.vector_to_parameters(start + shift * direction, parameters)
        return learner.training_step(1)[0]

    slope = (gradient(loss_at(0.0), learner.module) @ direction).item()
    h = 1e-5
    difference = (loss_at(h) - loss_at(-h)).item() / (2 * h)
    assert slope == pytest.approx(difference, rel=1e-6)
    assert abs(difference) > 0.1


class Replayed:
    """What a CUDA graph does: one function, called again on storage that it was made with."""

    def __init__(self, function: Any, parameters: list[nn.Parameter], inputs: Any) -> None:
        self.inputs, self.function, self.n_calls = list(inputs), function, 0
        for _ in range(3):
            torch.autograd.grad(function(*self.inputs)[0], parameters)

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        self.n_calls += 1
        loss, metrics = self.function(*self.inputs)
        return loss, {name: metric.clone() for name, metric in metrics.items()}


@pytest.mark.parametrize("settings", [
    {},
    {"symmetrize": True, "estimator": "path", "n_therm": 0},
    {"epsilon": 0.5, "n_steps": 2, "n_skip": 1},
    {"beta": 0.5},
    {"delta": 0.0},
    {"omega": 0.0, "spins": torch.ones(3, 4, 4, dtype=torch.int8)},
])  # fmt: skip
def test_steps_that_are_replayed_are_the_plain_ones(
    settings: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a full buffer and the end of the annealing on; the same numbers, bit by bit."""
    monkeypatch.setattr(learner_module, "CapturedLoss", Replayed)
    replayed, plain = (new_learner(buffer_batches=3, **settings) for _ in range(2))
    replayed.replays, begins = True, 4 if "beta" in settings else 3 - replayed.settings.n_steps
    for step in range(7):
        found = [learner.training_step(step) for learner in (replayed, plain)]
        assert (replayed._captured is not None) == (step >= begins)
        (loss, metrics), (other_loss, others) = found
        assert torch.equal(loss, other_loss)
        assert metrics == others
        for learner in (replayed, plain):
            assert not learner.chain.requires_grad
        assert torch.equal(replayed.buffer.fields, plain.buffer.fields)
        slopes = [
            gradient(part, learner.module)
            for part, learner in ((loss, replayed), (other_loss, plain))
        ]
        assert torch.equal(*slopes)
        with torch.no_grad():
            for learner in (replayed, plain):
                for parameter in learner.module.parameters():
                    parameter.mul_(0.9)
    assert isinstance(replayed._captured, Replayed)
    assert replayed._captured.n_calls == 7 - begins
    assert plain._captured is None


def test_without_data_term_no_data_are_drawn() -> None:
    learner = new_learner(delta=0.0)
    _, metrics = learner.training_step(0)
    assert "data" not in metrics
    assert "data" not in learner.generators.state_dict()


def test_terms_that_carry_no_weight_cost_no_gradient() -> None:
    """With omega = epsilon = 0 the loss depends on the weights through buffer samples alone."""
    learner = new_learner(omega=0.0, delta=2.0, n_therm=0)
    loss, _ = learner.training_step(0)
    x = learner.buffer.draw(8, Generators(3, CPU)["data"])
    expected = -2.0 * learner.module.log_prob(x).mean()
    torch.testing.assert_close(
        gradient(loss, learner.module), gradient(expected, learner.module), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("steps", [8, 400])
def test_annealing_rises_linearly_over_the_first_half(steps: int) -> None:
    learner = new_learner(steps=steps, beta=0.2, n_therm=0, batch=2)
    found = [
        learner.training_step(step)[1]["beta"].item()
        for step in (0, steps // 4, steps // 2, 3 * steps // 4, steps - 1)
    ]
    assert found == pytest.approx([0.2, 0.6, 1.0, 1.0, 1.0])


@pytest.mark.parametrize(("n_therm", "n_skip", "n_steps"), [
    (5, 0, 1), (10, 10, 10), (0, 0, 1), (0, 3, 2), (2, 1, 1),
])  # fmt: skip
def test_as_many_proposals_are_made_as_in_the_source(
    n_therm: int, n_skip: int, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of the Ntherm + Nsteps steps come Nskips further ones; half a step is none."""
    learner = new_learner(
        target=IsingSettings(L=2),
        n_therm=n_therm,
        n_skip=n_skip,
        n_steps=n_steps,
        batch=4,
        buffer_batches=20,
    )
    proposed: list[int] = []
    moves: list[ChainState] = []
    from_noise = learner.module.from_noise

    def counted_sample(noise: tuple[Tensor, ...], **how: bool) -> tuple[Tensor, Tensor]:
        proposed.append(len(noise[0]))
        return from_noise(noise, **how)

    def counted_step(*arguments: Any) -> Any:
        moved, accepted = decided(*arguments)
        moves.append(moved)
        return moved, accepted

    monkeypatch.setattr(learner.module, "from_noise", counted_sample)
    monkeypatch.setattr(learner_module, "decided", counted_step)
    learner.training_step(0)
    n_moves = (n_therm + n_steps) * (1 + n_skip)
    assert sum(proposed) == 4 * n_moves
    assert len(moves) == n_moves
    measured = moves[n_therm * (1 + n_skip) :][n_skip :: 1 + n_skip]
    fields = torch.cat([state.fields for state in measured])
    assert torch.equal(learner.buffer.fields, torch.cat([fields, -fields]))
    for state in moves:
        assert not state.fields.requires_grad
        assert not state.log_weight.requires_grad


def test_chains_start_from_the_buffer_once_it_holds_more_than_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = new_learner(n_therm=0)
    starts: list[Tensor] = []

    def spied_step(state: ChainState, *arguments: Any) -> Any:
        starts.append(state.fields)
        return decided(state, *arguments)

    monkeypatch.setattr(learner_module, "decided", spied_step)
    learner.training_step(0)
    held = learner.buffer.fields.clone()
    learner.training_step(1)
    normal = torch.randn(8, 4, 4, generator=Generators(3, CPU)["chain"], dtype=torch.float64)
    assert torch.equal(starts[0], normal)
    assert (starts[1][:, None] == held[None]).all(dim=(2, 3)).any(dim=1).all()


def identity_free_energy(learner: FlowLearner) -> float:
    """E_N(0,1)[ln N - ln pi~] = -N/2 ln(2 pi e) + tr Kt^-1 / 2 - N E[ln cosh z], in nats."""
    target = learner.target
    assert isinstance(target, IsingField)
    n_sites = target.lattice.n_sites
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    log_cosh = (weights * (np.logaddexp(points, -points) - math.log(2))).sum() / weights.sum()
    trace = (1 / kernel_eigenvalues(target.lattice, target.coupling)).sum()
    entropy = n_sites / 2 * math.log(2 * math.pi * math.e)
    return float(-entropy + trace / 2 - n_sites * log_cosh)


def test_training_starts_from_the_free_energy_of_independent_normals() -> None:
    learner = new_learner(std=None, batch=4096, n_therm=0, evaluation_batch=20_000)
    exact = identity_free_energy(learner)
    assert exact == pytest.approx(-18.8, abs=0.5)  # what the original prints at L = 4, one batch
    x = torch.randn(20_000, 4, 4, generator=Generators(0, CPU)["check"], dtype=torch.float64)
    normal = -(x.square().flatten(1).sum(1) + 16 * math.log(2 * math.pi)) / 2
    values = normal - learner.target.log_density(x)
    spread = values.std().item()
    assert abs(values.mean().item() - exact) < 5 * spread / math.sqrt(20_000)
    _, metrics = learner.training_step(0)
    assert abs(metrics["variational"].item() - exact) < 5 * spread / math.sqrt(4096)
    evaluated = learner.evaluate()
    assert abs(evaluated["variational"].item() - exact) < 5 * spread / math.sqrt(20_000)
    assert evaluated["variational_error"].item() == pytest.approx(
        spread / math.sqrt(20_000), rel=0.05
    )


def test_every_metric_has_a_unit_and_no_graph() -> None:
    learner = new_learner(epsilon=1.0)
    metrics = {**learner.training_step(0)[1], **learner.evaluate()}
    snapshot = learner.snapshot()
    recorded = {*metrics, *snapshot, "loss", "gradient_norm"}
    assert recorded == set(UNITS) == set(learner.units)
    for value in metrics.values():
        assert not value.requires_grad
        assert value.shape == ()
    assert not any(fields.requires_grad for fields in snapshot.values())


def test_evaluation_touches_nothing_but_its_own_generator() -> None:
    learner = new_learner(beta=0.2)
    learner.training_step(0)
    before = learner.generators.state_dict()
    weights = {name: tensor.clone() for name, tensor in learner.module.state_dict().items()}
    held = learner.buffer.fields.clone()
    learner.evaluate()
    after = learner.generators.state_dict()
    assert set(after) == {*before, "eval"}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(torch.equal(learner.module.state_dict()[name], weights[name]) for name in weights)
    assert torch.equal(learner.buffer.fields, held)
    assert all(parameter.grad is None for parameter in learner.module.parameters())


HALVES = {  # a number whose sign tells the mirror halves apart
    "ising": lambda x: np.tanh(x).mean(axis=(1, 2)),
    "phi4": lambda x: x.mean(axis=(1, 2)),
    "ring2d": lambda x: x[:, 0],
    "wave": lambda x: x[:, 0],
}


@pytest.mark.parametrize(("target", "flow"), [
    (CRITICAL, MeraSettings(**SIZES)),
    (CRITICAL, MeraSettings(symmetrize=True, **SIZES)),
    *BEYOND_THE_ISING_MERA.values(),
])  # fmt: skip
def test_evaluation_is_that_of_fresh_samples_of_the_target_itself(
    target: TargetSettings, flow: FlowSettings
) -> None:
    """At beta = 1, whatever the annealing; importance weights and Kish's formula written out."""
    learner = new_learner(target=target, flow=flow, beta=0.2)
    found = learner.evaluate()
    with torch.no_grad():
        x, _ = learner.module.sample(50, Generators(3, CPU)["eval"])
        log_weight = (learner.target.log_density(x) - learner.module.log_prob(x)).numpy()
    weight = np.exp(log_weight - log_weight.max())
    expected = {
        "variational": -log_weight.mean(),
        "variational_error": log_weight.std(ddof=1) / math.sqrt(50),
        "effective_sample_fraction": weight.sum() ** 2 / (50 * (weight**2).sum()),
        "observable": learner.target.observable(x).mean().item(),
        "positive_fraction": (HALVES[target.name](x.numpy()) > 0).mean(),
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_effective_sample_fraction_depends_on_ratios_of_weights_alone(shift: float) -> None:
    weights = torch.tensor([1.0, 1.0, 2.0, 4.0], dtype=torch.float64)
    fraction = effective_sample_fraction(weights.log() + shift).item()
    assert fraction == pytest.approx(64 / (4 * 22), abs=1e-10)
    assert effective_sample_fraction(torch.full((7,), shift)).item() == pytest.approx(1.0, abs=1e-2)


def test_a_learner_goes_on_where_another_stopped() -> None:
    first, second = new_learner(), new_learner(seed=8)
    for step in range(2):
        first.training_step(step)
    second.load_state_dict(first.state_dict())
    second.generators.load_state_dict(first.generators.state_dict())
    assert torch.equal(first.training_step(2)[0], second.training_step(2)[0])
    assert torch.equal(first.buffer.fields, second.buffer.fields)


# --- exact data ---------------------------------------------------------------------------------


def exact_spins(target: IsingField, n: int) -> Tensor:
    """n spin states with their exact frequencies, by enumeration."""
    lattice = target.lattice
    states = np.array(list(itertools.product((-1, 1), repeat=lattice.n_sites)), dtype=np.int8)
    energies = ((states @ lattice.adjacency()) * states).sum(axis=1) / 2
    weights = torch.from_numpy(np.exp(target.coupling * (energies - energies.max())))
    rows = torch.multinomial(weights, n, True, generator=torch.Generator().manual_seed(6))
    return torch.from_numpy(states)[rows].reshape(n, *lattice.shape)


def test_exact_data_give_the_cross_entropy_of_the_target() -> None:
    """With weights of 0 the flow is the normal prior: <-ln p> = N/2 ln(2 pi) + <x . x> / 2.

    x = Kt s + Kt^(1/2) eta, so that <x . x> = <|Kt s|^2> + tr Kt.
    """
    settings, n = IsingSettings(L=2, T=2.5), 20_000
    target = build_target(settings, dtype=torch.float64, device=CPU)
    assert isinstance(target, IsingField)
    spins = exact_spins(target, 5 * n)
    learner = new_learner(target=settings, spins=spins, std=0.0, batch=n, n_therm=0, omega=0.0)
    _, metrics = learner.training_step(0)

    states = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    adjacency = torch.from_numpy(target.lattice.adjacency()).double()
    log_weights = 0.4 * ((states @ adjacency) * states).sum(1) / 2
    kernel = 0.4 * adjacency + kernel_offset(target.lattice, 0.4) * torch.eye(4)
    square = torch.softmax(log_weights, 0) @ (states @ kernel).square().sum(1) + kernel.trace()
    expected = (4 * math.log(2 * math.pi) + square.item()) / 2
    x = target.sample_field(spins.double(), torch.Generator().manual_seed(7))
    error = x.square().flatten(1).sum(1).std().item() / 2 / math.sqrt(n)
    assert error < 0.01 * expected
    assert abs(metrics["data"].item() - expected) < 4 * error


def test_exact_data_take_the_place_of_the_buffer_in_the_data_term_alone() -> None:
    target = new_learner().target
    assert isinstance(target, IsingField)
    spins = exact_spins(target, 50)
    learner, replaying = new_learner(spins=spins), new_learner()
    for step in range(3):
        loss, metrics = learner.training_step(step)
        _, replayed = replaying.training_step(step)
        for name in ("variational", "log_acceptance", "acceptance", "observable"):
            assert torch.equal(metrics[name], replayed[name])
        assert torch.equal(learner.buffer.fields, replaying.buffer.fields)
        assert metrics["data"] != replayed["data"]
    drawn = Generators(3, CPU)["data"]
    for _ in range(3):
        x = ExactFields(target, spins).draw(8, drawn)
    assert metrics["data"].item() == pytest.approx(-learner.module.log_prob(x).mean().item())
    assert loss.item() == pytest.approx(
        0.5 * metrics["variational"].item() + metrics["data"].item(), rel=1e-12
    )


def test_exact_data_without_weight_are_not_drawn() -> None:
    learner = new_learner(spins=torch.ones(3, 4, 4, dtype=torch.int8), delta=0.0)
    _, metrics = learner.training_step(0)
    assert "data" not in metrics
    assert "data" not in learner.generators.state_dict()


def test_exact_samples_held_out_show_the_other_divergence() -> None:
    """Where the flow is the normal prior: <ln pi~ - ln N> over exact fields.

    Its average by spins with their exact frequencies; less ln Z_x it is KL(pi || N).
    """
    settings, n = IsingSettings(L=2, T=2.5), 20_000
    target = new_learner(target=settings).target
    assert isinstance(target, IsingField)
    spins = exact_spins(target, 5 * n)
    learner = new_learner(target=settings, held_out=spins, std=0.0, evaluation_batch=n)
    plain = new_learner(target=settings, std=0.0, evaluation_batch=n)
    found = learner.evaluate()
    x = target.sample_field(spins.double(), torch.Generator().manual_seed(7))
    log_normal = -x.square().flatten(1).sum(1) / 2 - 2 * math.log(2 * math.pi)
    log_weight = target.log_density(x) - log_normal
    error = log_weight.std().item() / math.sqrt(n)
    assert found["forward_error"].item() == pytest.approx(error, rel=0.1)
    assert abs(found["forward"].item() - log_weight.mean().item()) < 4 * error
    exact = log_partition_field(target.lattice, target.coupling)
    divergence = found["forward"].item() - exact
    assert divergence > 10 * error
    assert {*found} - {*plain.evaluate()} == {"forward", "forward_error"} == {*FORWARD_UNITS}
    assert dict(learner.units) == {**plain.units, **FORWARD_UNITS}
    del found["forward"], found["forward_error"]
    learner.generators.load_state_dict({})
    plain.generators.load_state_dict({})
    again = learner.evaluate()
    assert all(again[name] == value for name, value in plain.evaluate().items())


# --- snapshots ----------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetrize", [False, True])
def test_snapshots_show_the_same_latents_under_other_weights(symmetrize: bool) -> None:
    learner = new_learner(symmetrize=symmetrize, n_snapshot=5)
    learner.training_step(0)
    network = gaussian_part(learner.module).network
    seen = []
    for std in (0.2, 0.3):
        spread_weights(learner.module, std)
        fields = learner.snapshot()["proposed"]
        assert torch.equal(learner.snapshot()["proposed"], fields)
        with torch.no_grad():
            latents = torch.stack([network.infer(sign * fields)[0] for sign in (1, -1)])
            expected, _ = learner.module.sample(5, Generators(3, CPU)["snapshot"])
        assert torch.equal(fields, expected)
        seen.append((fields, latents))
    (fields, latents), (other_fields, other_latents) = seen
    assert ((fields - other_fields).abs().amax(dim=(1, 2)) > 0.1).all()
    first_draw = torch.randn(5, 4, 4, generator=Generators(3, CPU)["snapshot"], dtype=torch.float64)
    for found in (latents, other_latents):
        distance = (found - first_draw).abs().amax(dim=(2, 3))  # (sign, field)
        assert (distance.amin(0) < 1e-10).all()
    assert (distance[0] < 1e-10).all() != symmetrize, "some fields should be mirrored"


def test_snapshots_show_where_the_chains_are() -> None:
    learner = new_learner(n_snapshot=5, n_steps=2, n_skip=1)
    learner.training_step(0)
    visited = learner.buffer.fields[:16]  # the chains after the first measured step, then the last
    assert torch.equal(learner.snapshot()["chain"], visited[8:13])


def test_of_fewer_chains_all_are_shown_beside_as_many_proposals() -> None:
    learner = new_learner(n_snapshot=20)
    learner.training_step(0)
    shapes = {name: fields.shape for name, fields in learner.snapshot().items()}
    assert shapes == {"proposed": (8, 4, 4), "chain": (8, 4, 4)}


def test_snapshots_touch_no_stream_of_random_numbers() -> None:
    learner = new_learner()
    learner.training_step(0)
    before = learner.generators.state_dict()
    learner.snapshot()
    after = learner.generators.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in learner.module.parameters())
