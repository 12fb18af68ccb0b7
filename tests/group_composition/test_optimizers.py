"""Optimizers of replicas against loops over replicas and neurons, and against torch's own.

Gradients here are random numbers: what a step does with them does not depend on where they came
from.
"""

import copy
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from strata.group_composition.model_settings import ModelKind, ModelSettings
from strata.group_composition.networks import Network, build_network
from strata.group_composition.optimizers import (
    Hybrid,
    NeuronScaledSGD,
    build_optimizer,
    clip,
    replica_norms,
)
from strata.group_composition.training_settings import GroupTraining

RNN: ModelKind = "QuadraticRNN"
KINDS = pytest.mark.parametrize("kind", [RNN, "SequentialMLP", "TwoLayerNet", "TreeMLP"])
ELEMENTS, WIDTH, REPLICAS, STEPS = 5, 4, 3, 6
LR = 0.03
Named = Mapping[str, Tensor]


def network_of(kind: ModelKind, *, init_scale: float = 0.5, n_replicas: int = REPLICAS) -> Network:
    settings = ModelSettings(kind=kind, hidden_dim=WIDTH, init_scale=init_scale)
    length = 2 if kind == "TwoLayerNet" else 5
    generators = [torch.Generator().manual_seed(seed) for seed in range(n_replicas)]
    network = build_network(settings, n_elements=ELEMENTS, length=length, generators=generators)
    return network.double()


def set_gradients(network: Network, step: int) -> None:
    """Random ones, of another size in each replica: some above any limit here, some below."""
    for number, weight in enumerate(network.parameters()):
        generator = torch.Generator().manual_seed(100 * step + number)
        size = 0.03 * 10.0 ** torch.arange(len(weight), dtype=weight.dtype)
        normal = torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight)
        weight.grad = normal * size.view(-1, *[1] * (weight.ndim - 1))


def values_of(network: Network) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


def run(network: Network, optimizer: torch.optim.Optimizer, steps: range = range(STEPS)) -> Named:
    for step in steps:
        set_gradients(network, step)
        optimizer.step()
    return values_of(network)


def neuron(weights: Named, i: int) -> list[Tensor]:
    """Views of what belongs to hidden unit i of one network: rows, and a column of the readout."""
    return [w[:, i] if name == "W_out" else w[..., i, :] for name, w in weights.items()]


def plain_step(
    weights: Named, gradients: Named, *, exponent: float, lr: float, clip_norm: float | None
) -> None:
    """One step of one network, in place, neuron by neuron."""
    steps = {name: gradient.clone() for name, gradient in gradients.items()}
    for i in range(WIDTH):
        squares = [float((part**2).sum()) for part in neuron(weights, i)]
        rate = math.sqrt(sum(squares)) ** exponent
        for part in neuron(steps, i):
            part *= rate
    norm = math.sqrt(sum(float((step**2).sum()) for step in steps.values()))
    shrink = 1.0 if clip_norm is None or norm <= clip_norm else clip_norm / norm
    for name, weight in weights.items():
        weight -= lr * shrink * steps[name]


def plain_run(kind: ModelKind, **how: float | None) -> Named:
    network = network_of(kind)
    replicas = [{n: v[r].clone() for n, v in values_of(network).items()} for r in range(REPLICAS)]
    for step in range(STEPS):
        set_gradients(network, step)
        for r, weights in enumerate(replicas):
            gradients = {n: w.grad[r] for n, w in network.named_parameters() if w.grad is not None}
            plain_step(weights, gradients, **how)  # type: ignore[arg-type]
    return {name: torch.stack([weights[name] for weights in replicas]) for name in replicas[0]}


def assert_same(found: Named, expected: Named, rtol: float = 1e-12) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=1e-15)


def settings(**changes: object) -> GroupTraining:
    return GroupTraining(lr=LR, neuron_lr=0.02).model_copy(update=changes)


# --- neurons with rates of their own ------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("degree", [2, 3, 6])
def test_neurons_step_by_the_definition(
    kind: ModelKind, degree: int, clip_norm: float | None
) -> None:
    network = network_of(kind)
    training = settings(clip_norm=clip_norm)
    found = run(network, build_optimizer(network, training, kind="per_neuron", degree=degree))
    expected = plain_run(kind, exponent=2.0 - degree, lr=LR, clip_norm=clip_norm)
    assert_same(found, expected)


@KINDS
@pytest.mark.parametrize(("optimizer", "degree"), [("per_neuron", 2), ("sgd", 5)])
def test_degree_two_is_plain_gradient_descent(kind: ModelKind, optimizer: str, degree: int) -> None:
    ours, theirs = network_of(kind), network_of(kind)
    found = run(ours, build_optimizer(ours, settings(), kind=optimizer, degree=degree))
    expected = run(theirs, torch.optim.SGD(theirs.parameters(), lr=LR))
    for name, value in expected.items():
        assert torch.equal(found[name], value)


def test_steps_are_clipped_after_they_were_scaled_and_each_replica_by_itself() -> None:
    """A replica whose gradient is short, but whose scaled step is not, is clipped all the same."""
    limit = 0.5
    network = network_of("SequentialMLP", init_scale=0.1)
    before = values_of(network)
    set_gradients(network, 0)
    norms = replica_norms([w.grad for w in network.parameters() if w.grad is not None])
    training = settings(clip_norm=limit)
    build_optimizer(network, training, kind="per_neuron", degree=4).step()
    steps = [before[name] - w.detach() for name, w in network.named_parameters()]
    assert norms[0] < limit < norms[1]
    torch.testing.assert_close(replica_norms(steps), torch.full((3,), LR * limit).double())


def test_replicas_within_the_limit_are_not_clipped() -> None:
    gradients = [torch.ones(3, 2, 2) * size for size in (1.0, 2.0)]
    gradients.append(torch.ones(3, 2, 2, 2))
    for gradient in gradients:
        gradient[1] *= 10
    before = [gradient.clone() for gradient in gradients]
    norms = replica_norms(gradients)
    torch.testing.assert_close(norms, torch.tensor([1.0, 10.0, 1.0]) * math.sqrt(4 + 16 + 8))
    clip(gradients, norms, 20.0)
    for now, then in zip(gradients, before, strict=True):
        assert torch.equal(now[[0, 2]], then[[0, 2]])
        torch.testing.assert_close(now[1], then[1] * (20.0 / norms[1]))


def test_the_growth_of_a_neuron_does_not_depend_on_its_size() -> None:
    """Where the output is homogeneous of degree kappa, theta -> c theta makes the step c times."""
    steps = []
    for size in (1.0, 1e-3):
        network = network_of("SequentialMLP")  # of k = 5: degree 6
        before = {name: size * value for name, value in values_of(network).items()}
        network.load_state_dict(before)
        inputs, wanted = torch.ones(5, ELEMENTS).double(), torch.arange(ELEMENTS).double()
        W_in, W_out = network.weight("W_in"), network.weight("W_out")
        hidden = torch.einsum("rjdp,jp->rd", W_in, inputs) ** 5
        torch.einsum("rpd,rd,p->", W_out, hidden, wanted).backward()
        build_optimizer(network, settings(), kind="per_neuron", degree=6).step()
        after = values_of(network)
        steps.append({name: (after[name] - before[name]) / size for name in before})
    assert_same(steps[1], steps[0], rtol=1e-9)


def test_a_neuron_of_zeros_stays_finite() -> None:
    network = network_of("SequentialMLP").float()
    network.load_state_dict({n: torch.zeros_like(v) for n, v in values_of(network).items()})
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    build_optimizer(network, settings(), kind="per_neuron", degree=6).step()
    assert all(not weight.any() for weight in network.parameters())


def test_a_rate_in_a_tensor_is_the_same_rate() -> None:
    results = []
    for lr in (LR, torch.tensor(LR, dtype=torch.float64)):
        network = network_of(RNN)
        named = dict(network.named_parameters())
        results.append(run(network, NeuronScaledSGD(named, lr=lr, exponent=-1.0, clip_norm=0.5)))
    assert_same(*results)


# --- Adam and both ------------------------------------------------------------------------------


@KINDS
def test_adam_is_torchs_with_all_its_settings(kind: ModelKind) -> None:
    training = settings(betas=(0.8, 0.95), amsgrad=True, weight_decay=0.1)
    ours, theirs = network_of(kind), network_of(kind)
    found = run(ours, build_optimizer(ours, training, kind="adam", degree=4))
    adam = torch.optim.Adam(
        theirs.parameters(), lr=LR, betas=(0.8, 0.95), amsgrad=True, weight_decay=0.1
    )
    assert_same(found, run(theirs, adam), rtol=1e-11)


def test_hybrid_is_adam_of_the_mixing_matrix_and_scaled_descent_of_the_rest() -> None:
    """The norm that scales a neuron's step leaves its row of W_mix out."""
    training = settings(clip_norm=0.4, scaling_exponent=-1.5)
    ours, mixing, outer = (network_of(RNN) for _ in range(3))
    optimizer = build_optimizer(ours, training, kind="hybrid", degree=4)
    assert isinstance(optimizer, Hybrid)
    found = run(ours, optimizer)
    adam = run(mixing, torch.optim.Adam([mixing.weight("W_mix")], lr=LR))
    named = {name: w for name, w in outer.named_parameters() if name != "W_mix"}
    scaled = NeuronScaledSGD(named, lr=0.02, exponent=-1.5, clip_norm=0.4)
    expected = {**run(outer, scaled), "W_mix": adam["W_mix"]}
    assert_same(found, expected)
    assert not torch.equal(found["W_mix"], values_of(network_of(RNN))["W_mix"])


# --- all of them --------------------------------------------------------------------------------

ALL = pytest.mark.parametrize("kind", ["adam", "per_neuron", "sgd", "hybrid"])


@ALL
def test_a_state_goes_on_bit_by_bit(kind: str) -> None:
    training = settings(clip_norm=0.4)
    whole = network_of(RNN)
    expected = run(whole, build_optimizer(whole, training, kind=kind, degree=4))
    first, second = network_of(RNN), network_of(RNN)
    optimizer = build_optimizer(first, training, kind=kind, degree=4)
    run(first, optimizer, range(3))
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, settings(lr=7.0), kind=kind, degree=4)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    found = run(second, resumed, range(3, STEPS))
    for name, value in expected.items():
        assert torch.equal(found[name], value)


@ALL
def test_a_replica_steps_as_it_would_alone(kind: str) -> None:
    """To the last bit, since no sum runs over replicas."""
    training = settings(clip_norm=0.4)
    three, one = network_of(RNN), network_of(RNN, n_replicas=1)
    found = run(three, build_optimizer(three, training, kind=kind, degree=4))
    optimizer = build_optimizer(one, training, kind=kind, degree=4)
    for step in range(STEPS):
        gradients = network_of(RNN)
        set_gradients(gradients, step)
        for weight, of_three in zip(one.parameters(), gradients.parameters(), strict=True):
            assert of_three.grad is not None
            weight.grad = of_three.grad[:1].clone()
        optimizer.step()
    for name, value in values_of(one).items():
        torch.testing.assert_close(found[name][:1], value, rtol=1e-13, atol=0.0)
