"""One contract for every flow: two directions, exact log-determinants, identity start.

The sizes of the networks are those of the original (arXiv:1802.02840).
"""

import math

import pytest
import torch

from strata.neural_rg.config import FlowSettings, RunSettings, TargetSettings
from strata.neural_rg.couplings import CouplingStack, _transformed
from strata.neural_rg.flows import NETWORKS, GaussianFlow, Symmetrized, build_flow


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rough_flow(
    length: int = 4, d: int = 2, *, symmetrize: bool = False, name: str = "mera", std: float = 0.3
) -> GaussianFlow | Symmetrized:
    """A flow in float64 whose weights are far from the identity."""
    settings = RunSettings(
        target=TargetSettings(L=length, d=d, T=2.0),
        flow=FlowSettings(name=name, hidden_scale=5, hidden_shift=7, symmetrize=symmetrize),
    )
    flow_ = build_flow(settings, generator()).double()
    with torch.no_grad():
        for parameter in flow_.parameters():
            parameter.normal_(0.0, std, generator=generator(parameter.numel()))
    return flow_


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


CASES = [(name, length, d) for name in NETWORKS for length, d in [(4, 2), (8, 2), (4, 1), (8, 1)]]


@pytest.mark.parametrize(("name", "length", "d"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_generate_then_infer_is_the_identity(
    name: str, length: int, d: int, dtype: torch.dtype, tolerance: float
) -> None:
    network = rough_flow(length, d, name=name).network.to(dtype)
    z = normal(16, *[length] * d, dtype=dtype)
    x, log_det = network.generate(z)
    back, inverse_log_det = network.infer(x)
    scale = x.abs().max().item()
    assert (back - z).abs().max().item() < tolerance * max(1.0, scale)
    assert (log_det + inverse_log_det).abs().max().item() < 100 * tolerance
    assert (x - z).abs().max().item() > 0.1, "the flow under test should move its input"


@pytest.mark.parametrize(("name", "length", "d"), CASES)
def test_log_determinant_is_that_of_the_jacobian(name: str, length: int, d: int) -> None:
    network = rough_flow(length, d, name=name).network
    z = normal(1, *[length] * d)
    n_sites = length**d
    for direction in (network.generate, network.infer):
        jacobian = torch.autograd.functional.jacobian(lambda v, f=direction: f(v)[0], z)
        expected = torch.linalg.slogdet(jacobian.reshape(n_sites, n_sites)).logabsdet
        assert direction(z)[1].item() == pytest.approx(expected.item(), abs=1e-10)


@pytest.mark.parametrize("symmetrize", [False, True])
def test_sampling_and_evaluating_give_one_log_probability(symmetrize: bool) -> None:
    flow = rough_flow(symmetrize=symmetrize)
    x, log_prob = flow.sample(32, generator(3))
    torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=0, atol=1e-10)


def test_density_of_a_flow_integrates_to_one() -> None:
    flow = rough_flow(2, 1, std=0.2)
    axis = torch.linspace(-14, 14, 701, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    total = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-6)


def test_symmetrized_density_is_the_even_part() -> None:
    flow = rough_flow(symmetrize=True)
    x = normal(8, 4, 4)
    torch.testing.assert_close(flow.log_prob(x), flow.log_prob(-x), rtol=0, atol=1e-12)
    even = (flow.flow.log_prob(x).exp() + flow.flow.log_prob(-x).exp()) / 2
    torch.testing.assert_close(flow.log_prob(x).exp(), even, rtol=1e-10, atol=0)


def test_symmetrized_samples_have_both_signs_equally_often() -> None:
    flow = rough_flow(symmetrize=True)
    with torch.no_grad():
        mirrored, _ = flow.sample(4000, generator(5))
        plain, _ = flow.flow.sample(4000, generator(5))
    kept = (mirrored == plain).all(dim=(1, 2)).double().mean().item()
    assert abs(kept - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_gradients_reach_the_weights_through_samples_and_densities() -> None:
    flow = rough_flow()
    x, log_prob = flow.sample(4, generator(1))
    (x.square().sum() + log_prob.sum() + flow.log_prob(normal(4, 4, 4)).sum()).backward()
    for parameter in flow.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum().item() > 0


@pytest.mark.parametrize(("length", "n_disentanglers", "count"), [
    (4, 1, 37_248), (8, 1, 55_872), (16, 1, 74_496), (8, 2, 83_808),
])  # fmt: skip
def test_parameter_counts_are_the_originals(length: int, n_disentanglers: int, count: int) -> None:
    settings = RunSettings(
        target=TargetSettings(L=length), flow=FlowSettings(n_disentanglers=n_disentanglers)
    )
    flow = build_flow(settings, generator())
    assert sum(parameter.numel() for parameter in flow.parameters()) == count


def test_flow_starts_next_to_the_identity() -> None:
    flow = build_flow(RunSettings(target=TargetSettings(L=8)), generator())
    z = normal(64, 8, 8, dtype=torch.float32)
    x, log_det = flow.network.generate(z)
    assert log_det.abs().max().item() == 0.0
    assert 0 < (x - z).abs().max().item() < 0.2


def test_a_finest_latent_moves_a_window_of_four_by_four() -> None:
    """Latent (1, 1) of an 8 x 8 lattice reaches rows and columns 0..3, (3, 3) reaches 2..5."""
    network = rough_flow(8).network
    z = normal(4, 8, 8)
    for site, window in (((1, 1), slice(0, 4)), ((3, 3), slice(2, 6))):
        moved = z.clone()
        moved[:, *site] += 0.5
        change = (network.generate(moved)[0] - network.generate(z)[0]).abs().amax(0) > 0
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[window, window] = True
        assert torch.equal(change, expected)


def test_coupling_stack_is_the_textbook_formula() -> None:
    """y <- y_kept + (1 - mask) (y exp(s) + t), written with masks over all sites."""
    block = CouplingStack(4, 4, 3, 3, generator()).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0.0, 0.4, generator=generator(7))
    y, log_det = normal(10, 4), torch.zeros(10, dtype=torch.float64)
    result, result_log_det = block.generate(y.t())
    for layer in range(4):
        mask = torch.tensor([1.0, 1, 0, 0] if layer % 2 == 0 else [0.0, 0, 1, 1]).double()
        kept = mask * y
        nets = {}
        for net in ("scale", "shift"):
            hidden = torch.nn.functional.elu(
                kept @ getattr(block, f"{net}_weight_in")[layer].t()
                + getattr(block, f"{net}_bias_in")[layer]
            )
            nets[net] = (
                hidden @ getattr(block, f"{net}_weight_out")[layer].t()
                + getattr(block, f"{net}_bias_out")[layer]
            )
        s = (1 - mask) * block.scale_bound[layer] * torch.tanh(nets["scale"])
        y = kept + (1 - mask) * (y * s.exp() + nets["shift"])
        log_det = log_det + s.sum(1)
    torch.testing.assert_close(result.t(), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(result_log_det, log_det, rtol=0, atol=1e-12)


def test_chunks_change_nothing() -> None:
    """Chunks without gradient are smaller than those with it."""
    block = CouplingStack(4, 2, 3, 3, generator()).double()
    patches = normal(4, 10_000)
    whole, log_det = _transformed(patches, list(block._layers()), inverse=False)
    in_chunks, chunked_log_det = block.generate(patches)
    with torch.no_grad():
        in_small_chunks, small_log_det = block.generate(patches)
    for chunked in (in_chunks, in_small_chunks):
        torch.testing.assert_close(chunked, whole)
    for chunked in (chunked_log_det, small_log_det):
        torch.testing.assert_close(chunked, log_det)
