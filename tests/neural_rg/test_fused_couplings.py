"""The fused block against the textbook formula and autograd in double precision.

The kernels run on a CUDA device. Where there is none but triton can be imported, they run in its
interpreter on the CPU: one test starts this file anew for that, since triton decides when it is
imported. Where there is neither, what needs no kernel is tested.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from strata.neural_rg import fused_couplings
from strata.neural_rg.couplings import CouplingStack
from strata.neural_rg.fused_couplings import BACKWARD, FORWARD, Tiling, fused_stack, is_available

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device to run kernels on"
)
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SHAPES = [  # half, patches, layers, hidden units of the scale and of the shift
    (2, 37, 3, 5, 7),
    (2, 70, 2, 64, 64),
    (2, 1, 2, 16, 3),
    (1, 21, 4, 20, 33),
    (1, 64, 1, 1, 40),
]
LARGE = [(2, 5000, 8, 64, 64), (2, 70_001, 8, 64, 48), (1, 9000, 8, 256, 256), (2, 300, 5, 200, 9)]
every_shape = pytest.mark.parametrize(
    "shape", [*SHAPES, *(pytest.param(shape, marks=on_cuda) for shape in LARGE)], ids=str
)
both_ways = pytest.mark.parametrize("inverse", [False, True])


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for a small program as for a large one."""
    if INTERPRETED:
        few = Tiling(rows=8, lanes=8, chunk=16, warps=1, capacity=2)
        monkeypatch.setattr(fused_couplings, "FORWARD", few)
        monkeypatch.setattr(fused_couplings, "BACKWARD", few)


def normal(*shape: int, seed: int, std: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (std * torch.randn(shape, generator=generator)).to(DEVICE)


def weights_of(half: int, layers: int, hidden_scale: int, hidden_shift: int) -> list[Tensor]:
    hidden = hidden_scale + hidden_shift
    shapes = [
        (layers, hidden, half),
        (layers, hidden),
        (layers, half, hidden_scale),
        (layers, half, hidden_shift),
        (layers, 2 * half),
        (layers, half),
    ]
    stds = [0.5, 0.3, hidden_scale**-0.5, 0.5 * hidden_shift**-0.5, 0.3, 0.3]
    return [
        normal(*s, seed=k, std=std) for k, (s, std) in enumerate(zip(shapes, stds, strict=True))
    ]


def textbook(patches: Tensor, *weights: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """y <- y exp(s) + t, layer by layer."""
    weight_in, bias_in, scale_out, shift_out, bias_out, bound = weights
    half, n_scale = bound.shape[1], scale_out.shape[2]
    halves, log_det = [patches[:half], patches[half:]], 0.0
    for layer in range(len(bound))[:: -1 if inverse else 1]:
        raw = weight_in[layer] @ halves[layer % 2] + bias_in[layer][:, None]
        hidden = torch.nn.functional.elu(raw)
        bias = bias_out[layer][:, None]
        s = bound[layer][:, None] * torch.tanh(scale_out[layer] @ hidden[:n_scale] + bias[:half])
        t = shift_out[layer] @ hidden[n_scale:] + bias[half:]
        y = halves[1 - layer % 2]
        halves[1 - layer % 2] = (y - t) * torch.exp(-s) if inverse else y * torch.exp(s) + t
        log_det = log_det + (-s if inverse else s).sum(0)
    return torch.cat(halves), log_det


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    error = (found.detach().double() - expected.detach()).norm() / expected.detach().norm()
    assert error.item() < tolerance


def compare(shape: tuple[int, int, int, int, int], *, inverse: bool) -> None:
    half, n, *sizes = shape
    inputs = [normal(2 * half, n, seed=7), *weights_of(half, *sizes)]
    directions = normal(2 * half, n, seed=8), normal(n, seed=9)
    results = []
    for stack, dtype in ((fused_stack, torch.float32), (textbook, torch.float64)):
        leaves = [value.to(dtype).requires_grad_() for value in inputs]
        values = stack(*leaves, inverse=inverse)
        loss = sum((v * d).sum() for v, d in zip(values, directions, strict=True))
        results.append((values, torch.autograd.grad(loss, leaves)))
    for found, expected in zip(*(values for values, _ in results), strict=True):
        assert_close(found, expected, 1e-5)
    for found, expected in zip(*(gradients for _, gradients in results), strict=True):
        assert_close(found, expected, 1e-4)


@kernels
@every_shape
@both_ways
def test_values_and_gradients_are_those_of_the_textbook(
    shape: tuple[int, int, int, int, int], inverse: bool
) -> None:
    compare(shape, inverse=inverse)


@kernels
@both_ways
@pytest.mark.parametrize(("rows", "warps", "capacity"), [(2, 1, 2), (4, 1, 1), (1, 4, 30)])
def test_tiles_of_any_form_give_the_same(
    inverse: bool, rows: int, warps: int, capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs with several tiles, one program for all of them, and warps that share a tile."""
    for name in ("FORWARD", "BACKWARD"):
        tiling = Tiling(rows, lanes=8, chunk=8, warps=warps, capacity=capacity)
        monkeypatch.setattr(fused_couplings, name, tiling)
    compare((2, 37, 2, 9, 24), inverse=inverse)


@kernels
@both_ways
def test_weights_are_those_of_a_coupling_stack(inverse: bool) -> None:
    """Which half a layer keeps, and that the scale comes first."""
    block = CouplingStack(4, 3, 5, 7, torch.Generator().manual_seed(0)).double().to(DEVICE)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(normal(*parameter.shape, seed=parameter.numel(), std=0.4))
        kept = [[0, 1], [2, 3], [0, 1]]
        changed = [[2, 3], [0, 1], [2, 3]]

        def columns(weight: Tensor) -> Tensor:
            return torch.stack([weight[i][:, sites] for i, sites in enumerate(kept)])

        def rows(weight: Tensor) -> Tensor:
            return torch.stack([weight[i][sites] for i, sites in enumerate(changed)])

        weights = [
            torch.cat([columns(block.scale_weight_in), columns(block.shift_weight_in)], 1),
            torch.cat([block.scale_bias_in, block.shift_bias_in], 1),
            rows(block.scale_weight_out),
            rows(block.shift_weight_out),
            torch.cat([rows(block.scale_bias_out), rows(block.shift_bias_out)], 1),
            rows(block.scale_bound),
        ]
        patches = normal(4, 20, seed=3)
        expected = (block.infer if inverse else block.generate)(patches.double())
        found = fused_stack(patches, *(w.float() for w in weights), inverse=inverse)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, 1e-5)


@kernels
def test_generate_then_infer_is_the_identity() -> None:
    patches, weights = normal(4, 40, seed=1), weights_of(2, 3, 8, 8)
    moved, log_det = fused_stack(patches, *weights, inverse=False)
    back, inverse_log_det = fused_stack(moved, *weights, inverse=True)
    assert (moved - patches).abs().max().item() > 0.1
    assert_close(back, patches.double(), 1e-5)
    assert_close(-inverse_log_det, log_det.double(), 1e-5)


@kernels
def test_the_scale_is_exact_near_zero_and_away_from_it() -> None:
    """One positive hidden unit passes the kept site on: ln det = tanh(kept site)."""
    kept = torch.cat([torch.logspace(-6, -1, 20), torch.linspace(0.1, 1.5, 40)]).to(DEVICE)
    one, none = kept.new_ones(1, 1, 1), kept.new_zeros(1, 1, 1)
    weight_in, bias_in = torch.cat([one, none], 1), kept.new_zeros(1, 2)
    weights = (weight_in, bias_in, one, none, kept.new_zeros(1, 2), one[0])
    _, log_det = fused_stack(torch.stack([kept, kept]), *weights, inverse=False)
    torch.testing.assert_close(log_det.double(), torch.tanh(kept.double()), rtol=1e-6, atol=0)


@kernels
@pytest.mark.parametrize("wanted", ["patches", "weights", "bound"])
def test_gradients_that_nobody_wants_are_left_out(wanted: str) -> None:
    inputs = [normal(4, 20, seed=1), *weights_of(2, 2, 6, 5)]
    which = {"patches": [0], "weights": [1, 2, 3, 4, 5, 6], "bound": [6]}[wanted]

    def gradients(asked: list[int]) -> list[Tensor | None]:
        leaves = [x.clone().requires_grad_(k in asked) for k, x in enumerate(inputs)]
        x, log_det = fused_stack(leaves[0], *leaves[1:], inverse=False)
        (x.pow(2).sum() + log_det.sum()).backward()
        return [leaf.grad for leaf in leaves]

    everything, found = gradients(list(range(7))), gradients(which)
    for index, (expected, gradient) in enumerate(zip(everything, found, strict=True)):
        assert (gradient is not None) == (index in which)
        assert gradient is None or torch.equal(gradient, expected)


@kernels
def test_patches_and_gradients_may_be_views() -> None:
    weights = weights_of(2, 2, 6, 5)
    stored = normal(20, 4, seed=1).requires_grad_()
    x, _ = fused_stack(stored.t(), *weights, inverse=False)
    (gradient,) = torch.autograd.grad(x.sum(), stored)  # that of a sum is one number, expanded
    leaf = stored.detach().t().contiguous().double().requires_grad_()
    expected, _ = textbook(leaf, *(w.double() for w in weights), inverse=False)
    assert_close(x, expected, 1e-5)
    assert_close(gradient.t(), torch.autograd.grad(expected.sum(), leaf)[0], 1e-4)


@kernels
def test_no_patches_have_no_log_determinants_and_no_gradients() -> None:
    weights = [w.requires_grad_() for w in weights_of(2, 2, 6, 5)]
    x, log_det = fused_stack(normal(4, 0, seed=1), *weights, inverse=False)
    assert x.shape == (4, 0)
    assert log_det.shape == (0,)
    for gradient in torch.autograd.grad(x.sum() + log_det.sum(), weights):
        assert not gradient.any()


@kernels
def test_gradients_repeat_bit_by_bit() -> None:
    patches = normal(4, 30 if INTERPRETED else 50_000, seed=1)
    weights = [w.requires_grad_() for w in weights_of(2, 2, 6, 5)]
    runs = []
    for _ in range(2):
        x, log_det = fused_stack(patches, *weights, inverse=False)
        runs.append(torch.autograd.grad(x.pow(2).sum() + log_det.sum(), weights))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@kernels
def test_a_second_derivative_is_refused() -> None:
    patches = normal(4, 5, seed=1).requires_grad_()
    x, _ = fused_stack(patches, *weights_of(2, 2, 6, 5), inverse=False)
    (slope,) = torch.autograd.grad(x.pow(2).sum(), patches, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@on_cuda
def test_a_captured_graph_follows_its_inputs() -> None:
    patches, weights = normal(4, 5000, seed=1), weights_of(2, 4, 64, 64)
    patches.requires_grad_()

    def gradient() -> Tensor:
        x, log_det = fused_stack(patches, *weights, inverse=False)
        return torch.autograd.grad(x.pow(2).sum() + log_det.sum(), patches)[0]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        gradient()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradient()
    with torch.no_grad():
        patches.copy_(normal(4, 5000, seed=2))
    graph.replay()
    assert torch.equal(captured, gradient())


@pytest.mark.skipif(
    INTERPRETED or torch.cuda.is_available() or find_spec("triton") is None,
    reason="the kernels run in this process, or there is no triton",
)
def test_the_kernels_are_right_in_the_interpreter() -> None:
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]


# --- what needs no kernel -----------------------------------------------------------------------


@pytest.mark.parametrize("tiling", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("n", [0, 1, 8, 1024, 4096, 16_384, 65_536, 1_000_003])
def test_tiles_cover_all_patches_and_keep_the_device_busy(tiling: Tiling, n: int) -> None:
    rows, warps, tiles = tiling.of(n, hidden=64)
    assert (tiles - 1) * rows * tiling.lanes < max(n, 1) <= max(tiles, 1) * rows * tiling.lanes
    assert rows in (1, 2, 4, 8)
    assert warps in (1, 2, 4)
    assert rows == tiling.rows or tiles * warps <= tiling.capacity
    assert warps == tiling.warps or 2 * tiles * warps > tiling.capacity


def test_other_patches_are_left_to_the_plain_block() -> None:
    assert not is_available(torch.zeros(4, 5))
    for patches in (torch.zeros(6, 5), torch.zeros(4, 5, dtype=torch.float64)):
        assert not is_available(patches)
        weights = [torch.zeros(1, *(3 for _ in range(k))) for k in (2, 1, 2, 2, 1, 1)]
        weights[0], weights[1] = torch.zeros(1, 6, 3), torch.zeros(1, 6)
        weights[4] = torch.zeros(1, len(patches))
        with pytest.raises(ValueError, match="2 or 4 sites in float32"):
            fused_stack(patches, *weights, inverse=False)


@on_cuda
def test_patches_on_a_device_are_taken_if_there_is_triton() -> None:
    found = [is_available(torch.zeros(sites, 5, device="cuda")) for sites in (2, 4, 6)]
    assert found == [find_spec("triton") is not None] * 2 + [False]
