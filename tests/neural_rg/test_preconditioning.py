"""A network behind which the Gaussian part of the Ising field stands, against dense matrices."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from strata.neural_rg.config import RunSettings
from strata.neural_rg.exact import kernel_offset
from strata.neural_rg.flow_settings import MeraSettings, TebdSettings, WindowMeraSettings
from strata.neural_rg.flows import GaussianFlow, build_flow, gaussian_part
from strata.neural_rg.lattice import Lattice
from strata.neural_rg.networks import Network
from strata.neural_rg.preconditioning import Preconditioned
from strata.neural_rg.target_settings import IsingSettings, RingSettings, ScalarFieldSettings

BLOCKS: dict[str, Any] = {"n_layers": 2, "hidden_scale": 4, "hidden_shift": 4}
FLOWS: dict[str, Any] = {
    "mera": MeraSettings(**BLOCKS, preconditioner="gaussian"),
    "window_mera": WindowMeraSettings(n_sweeps=1, hidden=4, preconditioner="gaussian"),
    "tebd": TebdSettings(**BLOCKS, depth=2, preconditioner="gaussian"),
}
TARGETS = {
    "square": IsingSettings(L=4, T=2.0),
    "open square": IsingSettings(L=4, T=2.0, boundary="open"),
    "chain": IsingSettings(L=8, d=1, K=0.7),
    "two sites": IsingSettings(L=2, d=1, T=2.0),
}

every_flow = pytest.mark.parametrize("flow", FLOWS)
every_target = pytest.mark.parametrize("target", TARGETS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def kernel(target: IsingSettings) -> np.ndarray:
    """The dense Kt = K Adj + alpha I."""
    lattice = Lattice(target.L, target.d, target.boundary)
    identity = np.eye(lattice.n_sites)
    return (
        target.coupling * lattice.adjacency() + kernel_offset(lattice, target.coupling) * identity
    )


def flow_on(target: str, flow: str, *, std: float) -> GaussianFlow:
    """A flow in float64 with random weights, those of the identity for std = 0."""
    settings = RunSettings(target=TARGETS[target], flow=FLOWS[flow])
    made = build_flow(settings, generator()).double()
    with torch.no_grad():
        for weights in made.parameters():
            weights.normal_(0.0, std, generator=generator(weights.numel()))
    return gaussian_part(made)


def preconditioned(flow: GaussianFlow) -> tuple[Preconditioned, Network]:
    assert isinstance(flow.network, Preconditioned)
    return flow.network, flow.network.network


@every_target
def test_without_a_network_the_fields_are_the_gaussian_part(target: str) -> None:
    """Its density is that of N(0, Kt), whether drawn or given."""
    flow = flow_on(target, "window_mera", std=0.0)
    covariance = kernel(TARGETS[target])
    expected = stats.multivariate_normal(np.zeros(len(covariance)), covariance)
    with torch.no_grad():
        x, log_prob = flow.sample(20, generator(2))
        np.testing.assert_allclose(log_prob, expected.logpdf(x.flatten(1)), rtol=0, atol=1e-10)
        given = 3.0 * normal(20, *x.shape[1:])
        found = flow.log_prob(given)
    np.testing.assert_allclose(found, expected.logpdf(given.flatten(1)), rtol=1e-12, atol=1e-10)


@every_flow
@every_target
def test_fields_are_the_root_of_the_kernel_times_the_networks(target: str, flow: str) -> None:
    """With the root of a dense matrix, and the log-determinant of the whole against autograd."""
    both, network = preconditioned(flow_on(target, flow, std=0.3))
    values, vectors = np.linalg.eigh(kernel(TARGETS[target]))
    root = torch.from_numpy(vectors * np.sqrt(values) @ vectors.T)
    z = normal(len(root), *both.shape)
    z[:] = z[:1]  # row i of the Jacobian is the gradient of output i of copy i
    z.requires_grad_()
    x, log_det = both.generate(z)
    y, _ = network.generate(z)
    torch.testing.assert_close(x.flatten(1), y.flatten(1) @ root, rtol=0, atol=1e-12)
    (jacobian,) = torch.autograd.grad(x.flatten(1).diagonal().sum(), z)
    expected = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet.item()
    assert log_det[0].item() == pytest.approx(expected, abs=1e-10)
    with torch.no_grad():
        back, inverse_log_det = both.infer(x)
    torch.testing.assert_close(back, z.detach(), rtol=0, atol=1e-11)
    torch.testing.assert_close(inverse_log_det, -log_det.detach(), rtol=0, atol=1e-11)


def test_a_preconditioned_flow_follows_the_format_of_the_data() -> None:
    """And adds nothing to the weights, trained or stored."""
    flow = flow_on("open square", "mera", std=0.1)
    both, network = preconditioned(flow)
    assert isinstance(network, torch.nn.Module)
    weights = network.state_dict()
    assert list(flow.state_dict()) == [f"network.network.{name}" for name in weights]
    z = normal(5, 4, 4)
    with torch.no_grad():
        exact, exact_log_det = both.generate(z)
        flow.float()
        for _ in range(2):
            x, log_det = both.generate(z.float())
            assert x.dtype == log_det.dtype == torch.float32
            torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-5)
            torch.testing.assert_close(log_det.double(), exact_log_det, rtol=0, atol=1e-5)


@every_flow
def test_a_preconditioner_takes_a_lattice_with_a_gaussian_part(flow: str) -> None:
    assert FLOWS[flow].misfit(IsingSettings(L=4)) is None
    assert type(FLOWS[flow])().misfit(ScalarFieldSettings(L=4)) is None
    with pytest.raises(ValidationError, match="takes the Gaussian part of the ising target; got"):
        RunSettings(target=ScalarFieldSettings(L=4), flow=FLOWS[flow])
    with pytest.raises(ValidationError, match="the target is a density on the plane; use realnvp"):
        RunSettings(target=RingSettings(), flow=FLOWS[flow])
