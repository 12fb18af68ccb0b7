"""One contract for every network on every target that it carries, and what is special to each.

Two directions that undo each other, log-determinants against autograd, densities that integrate to
one, a start next to the identity. The sizes are those of the original (arXiv:1802.02840). More on
couplings on windows in `test_windows`.
"""

import inspect
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from strata.config import block_name, blocks_of
from strata.neural_rg.checkerboard import CheckerboardNetwork
from strata.neural_rg.config import RunSettings
from strata.neural_rg.couplings import CouplingStack, plain_stack
from strata.neural_rg.flow_settings import (
    FlowSettings,
    MeraSettings,
    RealNVPSettings,
    TebdSettings,
    WindowMeraSettings,
)
from strata.neural_rg.flows import (
    NETWORKS,
    Flow,
    GaussianFlow,
    PatchNetwork,
    Symmetrized,
    build_flow,
    gaussian_part,
)
from strata.neural_rg.networks import Network
from strata.neural_rg.target_settings import (
    IsingSettings,
    RingSettings,
    ScalarFieldSettings,
    TargetSettings,
)
from strata.neural_rg.windows import WindowNetwork

BLOCKS: dict[str, Any] = {block_name(block): block for block in blocks_of(FlowSettings)}
DOMAINS: dict[str, TargetSettings] = {
    "square": IsingSettings(L=4, T=2.0),
    "open square": IsingSettings(L=4, T=2.0, boundary="open"),
    "larger square": IsingSettings(L=8, T=2.0),
    "square of 6": IsingSettings(L=6, T=2.0),
    "square of 5": IsingSettings(L=5, T=2.0),
    "chain": IsingSettings(L=8, d=1, T=2.0),
    "open chain": ScalarFieldSettings(L=4, d=1, boundary="open"),
    "two sites": IsingSettings(L=2, d=1, T=2.0),
    "plane": RingSettings(),
}
REFUSED = {  # what a network does not carry, and the reason given
    ("mera", "square of 6"): "must be a power of two; got 6 (nearest: 4 and 8)",
    ("mera", "square of 5"): "must be a power of two; got 5 (nearest: 4 and 8)",
    ("mera", "plane"): "the target is a density on the plane; use realnvp",
    ("window_mera", "square of 6"): "must be a power of two; got 6 (nearest: 4 and 8)",
    ("window_mera", "square of 5"): "must be a power of two; got 5 (nearest: 4 and 8)",
    ("window_mera", "plane"): "the target is a density on the plane; use realnvp",
    ("tebd", "square of 5"): "must be even; got 5 (nearest: 4 and 6)",
    ("tebd", "plane"): "the target is a density on the plane; use realnvp",
}
CASES = [
    (name, domain)
    for name in NETWORKS
    for domain in DOMAINS
    if (name, domain) not in REFUSED and (name == "mera" or domain != "larger square")
]
SPLINES = ("window_mera of splines", "square")
TWO_VARIABLES = [case for case in CASES if case[1] in ("two sites", "plane")]
SMALL = [case for case in CASES if case[1] not in ("larger square", "two sites")]

every_case = pytest.mark.parametrize(("name", "domain"), [*CASES, SPLINES])

BLOCKS_OF_FOUR = {"n_layers": 4, "hidden_scale": 5, "hidden_shift": 7}
WINDOWS = {"n_sweeps": 2, "hidden": 5, "recompute": True}
SIZES: dict[str, dict[str, Any]] = {
    "mera": BLOCKS_OF_FOUR,
    "window_mera": WINDOWS,
    "window_mera of splines": {
        **WINDOWS, "transform": "spline", "n_bins": 3, "radius": 2, "recompute": False
    },
    "tebd": {**BLOCKS_OF_FOUR, "depth": 4},
    "realnvp": BLOCKS_OF_FOUR,
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(name: str, **changes: Any) -> FlowSettings:
    """Settings of a network with few layers and narrow nets; nets of two kinds have two widths."""
    block: FlowSettings = BLOCKS[name.split()[0]](**{**SIZES[name], **changes})
    return block


def spread(module: nn.Module, std: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, std, generator=generator(parameter.numel()))


def rough_flow(
    name: str = "mera", domain: str = "square", *, symmetrize: bool = False, std: float = 0.3
) -> GaussianFlow | Symmetrized:
    """A flow in float64 whose weights are far from the identity, splines not too steep."""
    settings = RunSettings(target=DOMAINS[domain], flow=small(name, symmetrize=symmetrize))
    flow = build_flow(settings, generator()).double()
    spread(flow, min(std, 0.2) if (name, domain) == SPLINES else std)
    return flow


@cache
def rough_network(name: str, domain: str) -> Network:
    """The network of `rough_flow`; not to be changed."""
    return gaussian_part(rough_flow(name, domain)).network


def jacobian(direction: Callable[[Tensor], tuple[Tensor, Tensor]], point: Tensor) -> Tensor:
    """The Jacobian at one point: row i is the gradient of output i of the i-th of n copies."""
    copies = point.repeat(point.numel(), *(1 for _ in point.shape[1:])).requires_grad_()
    outputs = direction(copies)[0].flatten(1)
    return torch.autograd.grad(outputs.diagonal().sum(), copies)[0].flatten(1)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


# --- the registry -------------------------------------------------------------------------------


def test_every_network_has_settings_and_all_settings_have_a_network() -> None:
    assert set(NETWORKS) == set(BLOCKS)
    for name, block in BLOCKS.items():
        assert block().name == name
        assert list(inspect.signature(NETWORKS[name]).parameters) == ["target", "flow", "generator"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_network_says_which_targets_it_carries(name: str, domain: str) -> None:
    reason = BLOCKS[name]().misfit(DOMAINS[domain])
    if (name, domain) not in REFUSED:
        assert reason is None
        return
    assert reason.endswith(REFUSED[name, domain])
    with pytest.raises(ValidationError, match=re.escape(f"flow.name {name}: {reason}")):
        RunSettings(target=DOMAINS[domain], flow=BLOCKS[name]())


# --- one contract for every network -------------------------------------------------------------


@every_case
def test_a_flow_is_made_of_its_settings_and_one_generator(name: str, domain: str) -> None:
    settings = RunSettings(target=DOMAINS[domain], flow=small(name))
    flow, again, other = (build_flow(settings, generator(seed)) for seed in (0, 0, 1))
    assert isinstance(flow, Flow)
    assert isinstance(flow, GaussianFlow)
    assert flow.network.shape == settings.target.event_shape
    states = [made.state_dict() for made in (flow, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert set(states[0]) == {name for name, _ in flow.named_parameters()}
    hidden = {"scale": 5, "shift": 7}  # of couplings on windows, their number of weights tells
    for key, weights in states[0].items():
        net = next((net for net in hidden if f"{net}_nets" in key or f"{net}_bias_in" in key), None)
        if net is not None and not key.endswith(
            ("4.weight", "4.bias")
        ):  # 4 is the last convolution
            assert weights.shape[1 if "bias_in" in key else 0] == hidden[net]


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_generate_then_infer_is_the_identity(
    name: str, domain: str, dtype: torch.dtype, tolerance: float
) -> None:
    flow = rough_flow(name, domain)
    assert isinstance(flow, GaussianFlow)
    network = flow.to(dtype).network
    z = normal(16, *network.shape, dtype=dtype)
    with torch.no_grad():
        x, log_det = network.generate(z)
        back, inverse_log_det = network.infer(x)
    assert x.shape == z.shape
    assert log_det.shape == (16,)
    assert x.dtype == log_det.dtype == dtype
    scale = x.abs().max().item()
    assert (back - z).abs().max().item() < tolerance * max(1.0, scale)
    assert (log_det + inverse_log_det).abs().max().item() < 100 * tolerance
    assert (x - z).abs().max().item() > 0.1, "the flow under test should move its input"
    assert log_det.abs().max().item() > 0.01, "the flow under test should change volumes"


@every_case
def test_log_determinant_is_that_of_the_jacobian(name: str, domain: str) -> None:
    network = rough_network(name, domain)
    z = normal(1, *network.shape)
    for direction in (network.generate, network.infer):
        expected = torch.linalg.slogdet(jacobian(direction, z)).logabsdet
        assert direction(z)[1].item() == pytest.approx(expected.item(), abs=1e-10)


@every_case
def test_samples_of_a_batch_know_nothing_of_each_other(name: str, domain: str) -> None:
    network = rough_network(name, domain)
    z = normal(5, *network.shape)
    with torch.no_grad():
        for direction in (network.generate, network.infer):
            together, log_det = direction(z)
            for index in (0, 4):
                alone, alone_log_det = direction(z[index : index + 1])
                torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-12)
                torch.testing.assert_close(alone_log_det[0], log_det[index], rtol=0, atol=1e-12)


@every_case
@pytest.mark.parametrize("symmetrize", [False, True])
def test_sampling_and_evaluating_give_one_log_probability(
    name: str, domain: str, symmetrize: bool
) -> None:
    flow = rough_flow(name, domain, symmetrize=symmetrize)
    with torch.no_grad():
        x, log_prob = flow.sample(32, generator(3))
        assert x.shape == (32, *DOMAINS[domain].event_shape)
        torch.testing.assert_close(flow.log_prob(x), log_prob, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "domain"), TWO_VARIABLES)
def test_density_of_a_flow_integrates_to_one(name: str, domain: str) -> None:
    flow = rough_flow(name, domain, std=0.2)
    axis = torch.linspace(-14, 14, 281, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = flow.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=1e-6)


@every_case
def test_symmetrized_density_is_the_even_part(name: str, domain: str) -> None:
    flow = rough_flow(name, domain, symmetrize=True)
    assert isinstance(flow, Symmetrized)
    x = normal(8, *DOMAINS[domain].event_shape)
    with torch.no_grad():
        log_prob, mirrored = flow.log_prob(x), flow.log_prob(-x)
        torch.testing.assert_close(log_prob, mirrored, rtol=0, atol=1e-12)
        even = (flow.flow.log_prob(x).exp() + flow.flow.log_prob(-x).exp()) / 2
        torch.testing.assert_close(log_prob.exp(), even, rtol=1e-10, atol=0)
        difference = flow.flow.log_prob(x) - flow.flow.log_prob(-x)
    assert difference.abs().max().item() > 0.1, "the flow inside should not be even"


@pytest.mark.parametrize(
    ("name", "domain"), [("mera", "square"), ("tebd", "chain"), ("realnvp", "plane")]
)
def test_symmetrized_samples_have_both_signs_equally_often(name: str, domain: str) -> None:
    flow = rough_flow(name, domain, symmetrize=True)
    assert isinstance(flow, Symmetrized)
    with torch.no_grad():
        mirrored, _ = flow.sample(2000, generator(5))
        plain, _ = flow.flow.sample(2000, generator(5))
    kept = (mirrored == plain).flatten(1).all(dim=1)
    assert torch.equal(mirrored[~kept], -plain[~kept])
    assert abs(kept.double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(2000)


def live_weights(network: Network) -> dict[str, Tensor]:
    """Which weights no mask silences, by name; couplings on windows have no masks.

    Even coupling layers of a block keep the first half of a patch and change the second, odd ones
    the reverse; even layers of a checkerboard change the sites whose coordinates add up to an even
    number.
    """
    assert isinstance(network, nn.Module)
    live = {name: torch.ones(p.shape, dtype=torch.bool) for name, p in network.named_parameters()}
    if isinstance(network, WindowNetwork):
        return live
    if isinstance(network, CheckerboardNetwork):
        colour = sum(torch.meshgrid(*map(torch.arange, network.shape), indexing="ij")) % 2
        for layer, bounds in enumerate(live["scale_bounds"]):
            bounds &= colour == layer % 2
        return live
    assert isinstance(network, PatchNetwork)
    n_sites = network.sites_per_patch
    second_half = torch.arange(n_sites) >= n_sites // 2
    for name, mask in live.items():
        role = name.rpartition(".")[2]
        for layer, weights in enumerate(mask):  # the block's layers
            kept = second_half if layer % 2 else ~second_half
            if role.endswith("weight_in"):
                weights &= kept
            elif role.endswith("weight_out"):
                weights &= ~kept[:, None]
            elif role.endswith(("bias_out", "bound")):
                weights &= ~kept
    return live


@pytest.mark.parametrize(("name", "domain"), [*SMALL, SPLINES])
@pytest.mark.parametrize("through", ["samples", "densities"])
def test_gradients_reach_every_live_weight_and_no_other(
    name: str, domain: str, through: str
) -> None:
    flow = rough_flow(name, domain)
    assert isinstance(flow, GaussianFlow)
    if through == "samples":
        x, log_prob = flow.sample(16, generator(1))
        (x**4 + x).sum().add(log_prob.sum()).backward()
    else:
        flow.log_prob(normal(16, *flow.network.shape)).sum().backward()
    for key, live in live_weights(flow.network).items():
        gradient = flow.get_parameter(f"network.{key}").grad
        assert gradient is not None, key
        assert torch.equal(gradient != 0, live), key


@pytest.mark.parametrize(("name", "domain"), CASES)
def test_flow_starts_next_to_the_identity(name: str, domain: str) -> None:
    """With the sizes of the original; a coupling on a window starts as the identity itself."""
    settings = RunSettings(target=DOMAINS[domain], flow=BLOCKS[name]())
    flow = build_flow(settings, generator())
    assert isinstance(flow, GaussianFlow)
    z = normal(64, *flow.network.shape, dtype=torch.float32)
    with torch.no_grad():
        for direction in (flow.network.generate, flow.network.infer):
            moved, log_det = direction(z)
            assert log_det.abs().max().item() == 0.0
            assert torch.equal(moved, z) == (name == "window_mera")
            assert (moved - z).abs().max().item() < 0.2


# --- what is special to one ---------------------------------------------------------------------


@pytest.mark.parametrize(("target", "flow", "count"), [
    (IsingSettings(L=4), MeraSettings(), 37_248),
    (IsingSettings(L=8), MeraSettings(), 55_872),
    (IsingSettings(L=16), MeraSettings(), 74_496),
    (IsingSettings(L=8), MeraSettings(n_disentanglers=2), 83_808),
    # at each scale 2 sweeps of 4 nets, 8 -> 64 -> 64 -> 2, and 3 -> ... at the coarsest, 2 x 2
    (IsingSettings(L=4), WindowMeraSettings(), 8 * ((576 + 4160 + 130) + (256 + 4160 + 130))),
    # 2 nets 2 -> 64 -> 25, two of them 1 -> 64 -> 25: shift, scale, 8 widths, 8 heights, 7 slopes
    (
        IsingSettings(L=4, d=1, T=2.0),
        WindowMeraSettings(n_sweeps=1, n_hidden=1, transform="spline"),
        2 * ((192 + 1625) + (128 + 1625)),
    ),
    # 5 x 5 sites around one but the 9 of its own sublattice; on 4 x 4, all 16 but 4
    (
        IsingSettings(L=8),
        WindowMeraSettings(n_sweeps=3, n_hidden=1, radius=2),
        12 * ((17 * 64 + 130) + (13 * 64 + 130) + (4 * 64 + 130)),
    ),
    (IsingSettings(L=4), TebdSettings(depth=8), 74_496),
    (IsingSettings(L=8), TebdSettings(depth=8), 74_496),
    # two nets 1 -> 64 -> 64 -> 1 with kernels of 3 x 3, 1 x 1 and 3 x 3, and a bound per site
    (IsingSettings(L=4), RealNVPSettings(), 8 * (2 * (640 + 4160 + 577) + 16)),
    # two nets 2 -> 64 -> 2, and a bound per coordinate
    (RingSettings(), RealNVPSettings(), 8 * (2 * (192 + 130) + 2)),
])  # fmt: skip
def test_parameter_counts_are_the_originals(
    target: TargetSettings, flow: FlowSettings, count: int
) -> None:
    made = build_flow(RunSettings(target=target, flow=flow), generator())
    assert sum(parameter.numel() for parameter in made.parameters()) == count


def test_a_finest_latent_moves_a_window_of_four_by_four() -> None:
    """Latent (1, 1) of an 8 x 8 lattice reaches rows and columns 0..3, (3, 3) reaches 2..5."""
    network = rough_network("mera", "larger square")
    z = normal(4, 8, 8)
    for site, window in (((1, 1), slice(0, 4)), ((3, 3), slice(2, 6))):
        moved = z.clone()
        moved[:, *site] += 0.5
        change = (network.generate(moved)[0] - network.generate(z)[0]).abs().amax(0) > 0
        expected = torch.zeros(8, 8, dtype=torch.bool)
        expected[window, window] = True
        assert torch.equal(change, expected)


@pytest.mark.parametrize(("depth", "width"), [(2, 4), (4, 8)])
def test_a_brick_wall_spreads_by_a_site_per_layer_and_side(depth: int, width: int) -> None:
    """Each layer makes the window of a latent one site wider on both sides, the first one by one.

    Generation ends with the unshifted layer: windows start at even rows and columns.
    """
    settings = RunSettings(target=IsingSettings(L=16), flow=small("tebd", depth=depth))
    flow = build_flow(settings, generator()).double()
    spread(flow, 0.3)
    network = gaussian_part(flow).network
    z = normal(2, 16, 16)
    moved = z.clone()
    moved[:, 7, 7] += 0.5
    with torch.no_grad():
        change = (network.generate(moved)[0] - network.generate(z)[0]).abs().amax(0) > 0
    rows, columns = (change.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    assert rows == columns == list(range(8 - width // 2, 8 + width // 2))
    assert change.sum().item() == width**2


def test_scales_generated_one_after_the_other_are_the_whole() -> None:
    network = rough_network("mera", "larger square")
    assert isinstance(network, PatchNetwork)
    assert network.scales == (0, 0, 1, 1, 2, 2)
    z = normal(3, 8, 8)
    with torch.no_grad():
        x = z
        for scale in (2, 1, 0):
            before, x = x, network.generate_scale(x, scale)
            active = torch.zeros(8, 8, dtype=torch.bool)
            active[:: 2**scale, :: 2**scale] = True
            assert torch.equal((x != before).all(0), active)
        torch.testing.assert_close(x, network.generate(z)[0], rtol=0, atol=1e-12)


def test_on_the_plane_the_two_coordinates_take_turns() -> None:
    """The first layer changes x2 given x1, the second x1 given x2."""
    settings = RunSettings(target=RingSettings(), flow=small("realnvp", n_layers=2))
    for silent, unchanged in ((1, 0), (0, 1)):
        flow = build_flow(settings, generator()).double()
        spread(flow, 0.3)
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter[silent] = 0.0  # the block's layers stand along the first axis
        z = normal(4, 2)
        with torch.no_grad():
            x, _ = gaussian_part(flow).network.generate(z)
        assert torch.equal(x[:, unchanged], z[:, unchanged])
        assert not torch.isclose(x[:, 1 - unchanged], z[:, 1 - unchanged]).any()


def test_a_checkerboard_has_the_boundary_of_its_lattice() -> None:
    """With the same weights, fields on a torus and on a sheet differ near the edge alone."""
    z = normal(4, 12, 12)
    fields = []
    for boundary in ("periodic", "open"):
        target = IsingSettings(L=12, T=2.0, boundary=boundary)
        flow = build_flow(
            RunSettings(target=target, flow=small("realnvp", n_layers=2)), generator()
        )
        spread(flow, 0.1)
        with torch.no_grad():
            fields.append(gaussian_part(flow.double()).network.generate(z)[0])
    differ = (fields[0] != fields[1]).any(0)
    assert differ[[0, 1, -2, -1]].all()
    assert differ[:, [0, 1, -2, -1]].all()
    assert not differ[4:8, 4:8].any()  # each of the two layers sees two sites far


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
    """With a gradient and without."""
    block = CouplingStack(4, 2, 3, 3, generator()).double()
    patches = normal(4, 10_000)
    expected = plain_stack(patches, *block.live_weights(), inverse=False)
    torch.testing.assert_close(block.generate(patches), expected)
    with torch.no_grad():
        torch.testing.assert_close(block.generate(patches), expected)
