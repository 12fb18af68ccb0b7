"""Triton kernels of `strata.neural_rg.fused_couplings`: a block and its gradient in registers.

Importing this module needs triton.

Conventions: c are the kept sites, y the changed ones, d_x is the gradient with respect to x; a
suffix counts the two sites of a half. A program holds a tile of ROWS x LANES patches; hidden units
come in chunks, as arrays (ROWS, CHUNK, LANES). The shape decides what a thread holds: with eight
lanes, the threads of a warp are eight patches times four hidden units, and the rows and the rest of
the chunk lie in each thread's registers, so that sums over patches and over hidden units both stay
mostly within a thread. A patch of two sites is one of four whose second sites are silent.

The weights of a layer lie in one row: for each net (scale first) its columns of weights in, its
biases and its rows of weights out, (2 * HALF + 1, N); then the biases of both outputs, (2, HALF),
and the bounds, (HALF).

Source: Dinh, Sohl-Dickstein, Bengio, arXiv:1605.08803, eqs. 7-8; gradients without stored
activations, since layers can be undone: Gomez, Ren, Urtasun, Grosse, arXiv:1707.04585.
"""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def _compiled(function: Callable[..., Any]) -> Any:
    """Hand triton the bare function, whose source it reads: checks of types may have wrapped it."""
    return triton.jit(inspect.unwrap(function))


@_compiled
def _tanh(x):  # type: ignore[no-untyped-def]
    """Return tanh x; near zero, where exponentials cancel, by its series."""
    square = x * x
    series = 1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835))))
    decay = tl.exp(-2.0 * tl.abs(x))
    away = (1.0 - decay) / (1.0 + decay)
    return tl.where(square < 0.06, x * series, tl.where(x < 0, -away, away))


@_compiled
def _load_half(values, half, n, patch, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the sites of a half of the patches; zero where there are none."""
    pointers = values + half * HALF * tl.cast(n, tl.int64) + patch
    there = patch < n
    first = tl.load(pointers, mask=there, other=0.0)
    return first, tl.load(pointers + n, mask=there & (HALF == 2), other=0.0)


@_compiled
def _store_half(values, half, n, patch, x_0, x_1, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    pointers = values + half * HALF * tl.cast(n, tl.int64) + patch
    tl.store(pointers, x_0, mask=patch < n)
    tl.store(pointers + n, x_1, mask=(patch < n) & (HALF == 2))


@_compiled
def _load_pair(pointer, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    return tl.load(pointer), tl.load(pointer + 1, mask=HALF == 2, other=0.0)


@_compiled
def _load_units(net, unit, N: tl.constexpr, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return weights in, biases and weights out of a chunk of hidden units, each (1, CHUNK, 1)."""
    there, twice = unit < N, (unit < N) & (HALF == 2)
    in_0 = tl.load(net + unit, mask=there, other=0.0)
    in_1 = tl.load(net + N + unit, mask=twice, other=0.0)
    bias = tl.load(net + HALF * N + unit, mask=there, other=0.0)
    out_0 = tl.load(net + (HALF + 1) * N + unit, mask=there, other=0.0)
    out_1 = tl.load(net + (HALF + 2) * N + unit, mask=twice, other=0.0)
    return (
        in_0[None, :, None], in_1[None, :, None], bias[None, :, None],
        out_0[None, :, None], out_1[None, :, None],
    )  # fmt: skip


@_compiled
def _net(  # type: ignore[no-untyped-def]
    c_0, c_1, net, N: tl.constexpr, HALF: tl.constexpr, CHUNK: tl.constexpr
):
    """Return both outputs of a net, without their biases."""
    shape: tl.constexpr = (c_0.shape[0], CHUNK, c_0.shape[1])
    x_0, x_1 = c_0[:, None, :], c_1[:, None, :]
    # Summed over the units of a thread at the end: threads meet once, not at every chunk.
    sum_0, sum_1 = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    for start in range(0, N, CHUNK):
        in_0, in_1, bias, out_0, out_1 = _load_units(net, start + tl.arange(0, CHUNK), N, HALF)
        raw = in_0 * x_0 + (in_1 * x_1 + bias)
        hidden = tl.where(raw > 0, raw, tl.exp(raw) - 1.0)
        sum_0 += out_0 * hidden
        sum_1 += out_1 * hidden
    return tl.sum(sum_0, 1), tl.sum(sum_1, 1)


@_compiled
def _scale_and_shift(  # type: ignore[no-untyped-def]
    c_0, c_1, layer,
    N_SCALE: tl.constexpr, N_SHIFT: tl.constexpr, HALF: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Return the bounds, tanh(S) and T of both changed sites, given the kept ones."""
    shift_net = layer + (2 * HALF + 1) * N_SCALE
    biases = shift_net + (2 * HALF + 1) * N_SHIFT
    raw_0, raw_1 = _net(c_0, c_1, layer, N_SCALE, HALF, CHUNK)
    t_0, t_1 = _net(c_0, c_1, shift_net, N_SHIFT, HALF, CHUNK)
    scale_bias_0, scale_bias_1 = _load_pair(biases, HALF)
    shift_bias_0, shift_bias_1 = _load_pair(biases + HALF, HALF)
    bound_0, bound_1 = _load_pair(biases + 2 * HALF, HALF)
    return (
        bound_0, bound_1, _tanh(raw_0 + scale_bias_0), _tanh(raw_1 + scale_bias_1),
        t_0 + shift_bias_0, t_1 + shift_bias_1,
    )  # fmt: skip


@_compiled
def forward(  # type: ignore[no-untyped-def]
    patches, weights, outputs, log_dets, n,
    N_LAYERS: tl.constexpr, N_SCALE: tl.constexpr, N_SHIFT: tl.constexpr, HALF: tl.constexpr,
    INVERSE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Send one tile per program through all layers, in reverse order if INVERSE."""
    SIZE: tl.constexpr = (2 * HALF + 1) * (N_SCALE + N_SHIFT) + 3 * HALF
    tile = tl.program_id(0).to(tl.int64)
    patch = (tile * ROWS + tl.arange(0, ROWS))[:, None] * LANES + tl.arange(0, LANES)[None, :]
    kept = (N_LAYERS - 1) % 2 if INVERSE else 0
    c_0, c_1 = _load_half(patches, kept, n, patch, HALF)
    y_0, y_1 = _load_half(patches, 1 - kept, n, patch, HALF)
    log_det = tl.zeros((ROWS, LANES), tl.float32)
    for step in range(N_LAYERS):
        layer = N_LAYERS - 1 - step if INVERSE else step
        bound_0, bound_1, tanh_0, tanh_1, t_0, t_1 = _scale_and_shift(
            c_0, c_1, weights + layer * SIZE, N_SCALE, N_SHIFT, HALF, CHUNK
        )
        s_0, s_1 = bound_0 * tanh_0, bound_1 * tanh_1
        if INVERSE:
            y_0, y_1 = (y_0 - t_0) * tl.exp(-s_0), (y_1 - t_1) * tl.exp(-s_1)
            log_det -= s_0 + s_1
        else:
            y_0, y_1 = y_0 * tl.exp(s_0) + t_0, y_1 * tl.exp(s_1) + t_1
            log_det += s_0 + s_1
        c_0, c_1, y_0, y_1 = y_0, y_1, c_0, c_1
    kept = (kept + N_LAYERS) % 2
    _store_half(outputs, kept, n, patch, c_0, c_1, HALF)
    _store_half(outputs, 1 - kept, n, patch, y_0, y_1, HALF)
    tl.store(log_dets + patch, log_det, mask=patch < n)


@_compiled
def _add(pointers, terms, there, again):  # type: ignore[no-untyped-def]
    """Add a tile's terms to a program's sums; its first tile (not `again`) begins them."""
    tl.store(pointers, tl.load(pointers, mask=there & again, other=0.0) + terms, mask=there)


@_compiled
def _over_patches(terms):  # type: ignore[no-untyped-def]
    return tl.sum(tl.sum(terms, 0), 1)


@_compiled
def _net_backward(  # type: ignore[no-untyped-def]
    c_0, c_1, d_0, d_1, net, sums, again,
    N: tl.constexpr, HALF: tl.constexpr, CHUNK: tl.constexpr, WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Return the gradient with respect to the kept sites, given that of both outputs."""
    shape: tl.constexpr = (c_0.shape[0], CHUNK, c_0.shape[1])
    x_0, x_1 = c_0[:, None, :], c_1[:, None, :]
    e_0, e_1 = d_0[:, None, :], d_1[:, None, :]
    sum_0, sum_1 = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
    for start in range(0, N, CHUNK):
        unit = start + tl.arange(0, CHUNK)
        in_0, in_1, bias, out_0, out_1 = _load_units(net, unit, N, HALF)
        raw = in_0 * x_0 + (in_1 * x_1 + bias)
        exponential = tl.exp(raw)
        d_raw = (out_0 * e_0 + out_1 * e_1) * tl.where(raw > 0, 1.0, exponential)
        sum_0 += in_0 * d_raw
        sum_1 += in_1 * d_raw
        if WEIGHTS:
            hidden = tl.where(raw > 0, raw, exponential - 1.0)
            there, mine = unit < N, sums + unit
            _add(mine, _over_patches(d_raw * x_0), there, again)
            _add(mine + HALF * N, _over_patches(d_raw), there, again)
            _add(mine + (HALF + 1) * N, _over_patches(hidden * e_0), there, again)
            if HALF == 2:
                _add(mine + N, _over_patches(d_raw * x_1), there, again)
                _add(mine + (HALF + 2) * N, _over_patches(hidden * e_1), there, again)
    return tl.sum(sum_0, 1), tl.sum(sum_1, 1)


@_compiled
def _add_pair(pointer, terms_0, terms_1, again, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
    _add(pointer, tl.sum(tl.sum(terms_0, 0), 0), True, again)
    if HALF == 2:
        _add(pointer + 1, tl.sum(tl.sum(terms_1, 0), 0), True, again)


@_compiled
def backward(  # type: ignore[no-untyped-def]
    outputs, weights, d_outputs, d_log_dets, d_patches, sums, n,
    N_LAYERS: tl.constexpr, N_SCALE: tl.constexpr, N_SHIFT: tl.constexpr, HALF: tl.constexpr,
    INVERSE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, CHUNK: tl.constexpr,
    WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Undo all layers of every tile of a program and carry the gradient along.

    `sums` (programs, layers, weights of a layer) receives each program's gradient with respect to
    the weights, if WEIGHTS.
    """
    SHIFT_NET: tl.constexpr = (2 * HALF + 1) * N_SCALE
    BIASES: tl.constexpr = SHIFT_NET + (2 * HALF + 1) * N_SHIFT
    SIZE: tl.constexpr = BIASES + 3 * HALF
    program = tl.program_id(0)
    tile = program
    while tile < tl.cdiv(n, ROWS * LANES):
        again = tile > program
        row = tl.cast(tile, tl.int64) * ROWS + tl.arange(0, ROWS)
        patch = row[:, None] * LANES + tl.arange(0, LANES)[None, :]
        kept = 0 if INVERSE else (N_LAYERS - 1) % 2
        c_0, c_1 = _load_half(outputs, kept, n, patch, HALF)
        y_0, y_1 = _load_half(outputs, 1 - kept, n, patch, HALF)
        d_c_0, d_c_1 = _load_half(d_outputs, kept, n, patch, HALF)
        d_y_0, d_y_1 = _load_half(d_outputs, 1 - kept, n, patch, HALF)
        d_log_det = tl.load(d_log_dets + patch, mask=patch < n, other=0.0)
        for step in range(N_LAYERS):
            layer = step if INVERSE else N_LAYERS - 1 - step
            row_of_layer = weights + layer * SIZE
            bound_0, bound_1, tanh_0, tanh_1, t_0, t_1 = _scale_and_shift(
                c_0, c_1, row_of_layer, N_SCALE, N_SHIFT, HALF, CHUNK
            )
            s_0, s_1 = bound_0 * tanh_0, bound_1 * tanh_1
            if INVERSE:  # the layer was y <- (y - t) exp(-s)
                d_s_0, d_s_1 = -d_y_0 * y_0 - d_log_det, -d_y_1 * y_1 - d_log_det
                y_0, y_1 = y_0 * tl.exp(s_0) + t_0, y_1 * tl.exp(s_1) + t_1
                d_y_0, d_y_1 = d_y_0 * tl.exp(-s_0), d_y_1 * tl.exp(-s_1)
                d_t_0, d_t_1 = -d_y_0, -d_y_1
            else:  # y <- y exp(s) + t
                d_t_0, d_t_1 = d_y_0, d_y_1
                y_0, y_1 = y_0 - t_0, y_1 - t_1
                d_s_0, d_s_1 = d_y_0 * y_0 + d_log_det, d_y_1 * y_1 + d_log_det
                y_0, y_1 = y_0 * tl.exp(-s_0), y_1 * tl.exp(-s_1)
                d_y_0, d_y_1 = d_y_0 * tl.exp(s_0), d_y_1 * tl.exp(s_1)
            d_raw_0 = d_s_0 * bound_0 * (1.0 - tanh_0 * tanh_0)
            d_raw_1 = d_s_1 * bound_1 * (1.0 - tanh_1 * tanh_1)
            mine = sums + (program.to(tl.int64) * N_LAYERS + layer) * SIZE
            if WEIGHTS:
                _add_pair(mine + BIASES, d_raw_0, d_raw_1, again, HALF)
                _add_pair(mine + BIASES + HALF, d_t_0, d_t_1, again, HALF)
                _add_pair(mine + BIASES + 2 * HALF, d_s_0 * tanh_0, d_s_1 * tanh_1, again, HALF)
            from_scale_0, from_scale_1 = _net_backward(
                c_0, c_1, d_raw_0, d_raw_1, row_of_layer, mine, again,
                N_SCALE, HALF, CHUNK, WEIGHTS,
            )  # fmt: skip
            from_shift_0, from_shift_1 = _net_backward(
                c_0, c_1, d_t_0, d_t_1, row_of_layer + SHIFT_NET, mine + SHIFT_NET, again,
                N_SHIFT, HALF, CHUNK, WEIGHTS,
            )  # fmt: skip
            d_c_0 += from_scale_0 + from_shift_0
            d_c_1 += from_scale_1 + from_shift_1
            c_0, c_1, y_0, y_1 = y_0, y_1, c_0, c_1
            d_c_0, d_c_1, d_y_0, d_y_1 = d_y_0, d_y_1, d_c_0, d_c_1
        kept = (kept + N_LAYERS) % 2
        _store_half(d_patches, kept, n, patch, d_c_0, d_c_1, HALF)
        _store_half(d_patches, 1 - kept, n, patch, d_y_0, d_y_1, HALF)
        tile += tl.num_programs(0)
        tl.debug_barrier()  # the next tile's threads read the sums that others have written
