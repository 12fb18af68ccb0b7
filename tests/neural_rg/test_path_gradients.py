"""Gradients along paths: against a frozen copy of the flow, on average, and where p is exact.

The loss is <ln p - ln pi~> over samples of the flow. Its gradient along paths leaves out the score,
so that per sample it is the slope of ln p - ln pi~ in x, times dx / dtheta.
"""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strata.neural_rg.config import NeuralRGTraining, RunSettings
from strata.neural_rg.flow_settings import FlowSettings, MeraSettings, RealNVPSettings, TebdSettings
from strata.neural_rg.flows import (
    GaussianFlow,
    Symmetrized,
    build_flow,
    held_constant,
    normal_log_density,
)
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.target_settings import IsingSettings, RingSettings, TargetSettings
from strata.neural_rg.targets import build_target
from strata.randomness import Generators

CPU = torch.device("cpu")
SIZES = {"n_layers": 4, "hidden_scale": 4, "hidden_shift": 5}
CASES: dict[str, tuple[TargetSettings, FlowSettings]] = {
    "mera": (IsingSettings(L=4), MeraSettings(**SIZES)),
    "brick wall": (IsingSettings(L=4), TebdSettings(depth=2, **SIZES)),
    "checkerboard": (IsingSettings(L=4), RealNVPSettings(**SIZES)),
    "plane": (RingSettings(), RealNVPSettings(**SIZES)),
}
every_flow = pytest.mark.parametrize("symmetrize", [False, True])


def new_flow(name: str, *, symmetrize: bool, std: float = 0.3) -> GaussianFlow | Symmetrized:
    target, network = CASES[name]
    flow = build_flow(RunSettings(target=target, flow=network), Generators(0, CPU).on_cpu("init"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(0.0, std, generator=generator)
    assert isinstance(flow, GaussianFlow)
    return Symmetrized(flow).double() if symmetrize else flow.double()


def gradient(loss: Tensor, module: nn.Module) -> Tensor:
    """All gradients in one vector; zero where the loss does not depend on a weight."""
    gradients = torch.autograd.grad(loss, list(module.parameters()), materialize_grads=True)
    return torch.cat([part.flatten() for part in gradients])


@every_flow
@pytest.mark.parametrize("name", CASES)
def test_log_densities_are_those_of_a_frozen_copy_of_the_flow(name: str, symmetrize: bool) -> None:
    flow = new_flow(name, symmetrize=symmetrize)
    frozen = copy.deepcopy(flow).requires_grad_(False)
    noise = flow.noise(20, torch.Generator().manual_seed(1))
    x, log_p = flow.from_noise(noise, path=True)
    plain_x, plain_log_p = flow.from_noise(noise)
    same_x, _ = flow.from_noise(noise)
    assert torch.equal(x, plain_x)
    torch.testing.assert_close(log_p, plain_log_p, rtol=1e-9, atol=1e-9)
    expected = gradient(frozen.log_prob(same_x).sum(), flow)
    torch.testing.assert_close(gradient(log_p.sum(), flow), expected, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(gradient(plain_log_p.sum(), flow), expected, rtol=0.1)


@every_flow
def test_on_average_both_gradients_agree(symmetrize: bool) -> None:
    """Their difference is the mean score, zero within the errors of batches of the same noise."""
    flow = new_flow("plane", symmetrize=symmetrize)
    target = build_target(CASES["plane"][0], dtype=torch.float64, device=CPU)
    generator = torch.Generator().manual_seed(2)
    pairs = []
    for _ in range(60):
        noise = flow.noise(2000, generator)
        pair = []
        for path in (False, True):
            x, log_p = flow.from_noise(noise, path=path)
            pair.append(gradient((log_p - target.log_density(x)).mean(), flow))
        pairs.append(torch.stack(pair))
    whole, along_paths = torch.stack(pairs).unbind(1)
    difference = whole - along_paths
    errors = difference.std(0) / math.sqrt(len(difference))
    live = errors > 0
    assert live.sum() > 50
    deviations = difference.mean(0)[live] / errors[live]
    assert deviations.abs().max() < 4.5
    assert deviations.square().mean() < 2
    means = whole.mean(0)[live].abs() / errors[live]
    assert (means > 10).double().mean() > 0.3, "gradients should be seen above their errors"


@every_flow
def test_where_the_flow_is_exact_no_gradient_is_left(symmetrize: bool) -> None:
    """Identity flow, normal target: nothing along the path of any sample, noise in the score."""
    flow = new_flow("mera", symmetrize=symmetrize, std=0.0)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "scale_bias_out" in name:  # bounded by zero, so that only a gradient can show it
                parameter.fill_(1.0)
    noise = flow.noise(10, torch.Generator().manual_seed(3))
    sizes = []
    for path in (False, True):
        x, log_p = flow.from_noise(noise, path=path)
        sizes.append(gradient((log_p - normal_log_density(x)).mean(), flow).norm().item())
    assert sizes[0] > 0.1
    assert sizes[1] == pytest.approx(0.0, abs=1e-12)


def test_parameters_are_held_constant_within_alone() -> None:
    flow = new_flow("plane", symmetrize=True)
    fixed = next(flow.parameters()).requires_grad_(False)
    x = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    with held_constant(flow):
        assert not any(parameter.requires_grad for parameter in flow.parameters())
        assert flow.log_prob(x).requires_grad
    live = [parameter.requires_grad for parameter in flow.parameters()]
    assert not fixed.requires_grad
    assert live == [False, *[True] * (len(live) - 1)]


def learner(estimator: Any, **training: Any) -> FlowLearner:
    settings = NeuralRGTraining(
        **{"estimator": estimator, "batch": 16, "steps": 8, "n_therm": 1, "n_steps": 2, **training}
    )
    target = build_target(IsingSettings(L=4), dtype=torch.float64, device=CPU)
    return FlowLearner(new_flow("mera", symmetrize=True), target, settings, Generators(3, CPU))


def test_the_estimator_changes_the_gradient_of_the_variational_term_alone() -> None:
    whole, along_paths = learner("reparametrized"), learner("path")
    for step in range(3):
        (loss, metrics), (other_loss, others) = (
            made.training_step(step) for made in (whole, along_paths)
        )
        torch.testing.assert_close(loss, other_loss, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(dict(metrics), dict(others), rtol=1e-9, atol=1e-9)
    slopes = [
        gradient(made, which.module) for made, which in ((loss, whole), (other_loss, along_paths))
    ]
    assert (slopes[0] - slopes[1]).norm() > 0.01 * slopes[0].norm()
    pair = [learner(estimator, omega=0.0) for estimator in ("reparametrized", "path")]
    slopes = [gradient(made.training_step(0)[0], made.module) for made in pair]
    assert torch.equal(*slopes)


def test_paths_do_not_serve_the_acceptance_term() -> None:
    with pytest.raises(ValueError, match=r"expected epsilon 0, got 0\.5"):
        NeuralRGTraining(estimator="path", epsilon=0.5)
