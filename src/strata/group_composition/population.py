"""The exact mean squared error over all |G|^k sequences of a finite group, without listing them.

    loss = E|y(g_1, ..., g_k) - x_q|^2 / |G|,  y = W h,  q = g_1 g_2 ... g_k

Conventions: E is the mean over all sequences; W is `w_out`, x_q are the rows of `translates`;
B = W^T W, A_i(q) = (W^T x_q)_i. `table[g, h]` is the number of the element g h, element 0 is the
identity, and the group need not be abelian. A table of projections has elements as its rows and
neurons as its columns: e[g, i] = (W_in x_g)_i. Everything is computed in double precision, and the
loss has the precision of the weights. It is a difference of terms as large as the mean square of
the targets: of weights that compose without error it is some 1e-15 of that, of either sign.

A power of a sum of projections, h = (e_1[g_1] + ... + e_k[g_k])^n, by generating functions:

    E[h_i h_i'] = n!^2 [s^n t^n] prod_j sum_ab s^a t^b E[e_j[g, i]^a / a! e_j[g, i']^b / b!]
    E[h_i A_i(q)] = n! f_0^(n)(identity), f_k^(0) = A_i and f_k^(a) = 0 for a > 0,
    f_(j-1)^(a)(p) = sum_b E[f_j^(a-b)(p g) e_j[g, i]^b / b!]

A recurrent network, by the law of total variance. Before the last element the state has become c,
by W_mix, and the product of the elements is p. The drive of the last element is b = m + r[g] with
the mean m, and v = b^2 - E[b^2]:

    h = (c + b)^2 = (c + m)^2 + E[r^2] + (2 c r + v)          quadratic, s = 2
    h = c b = c m + (c r)                                     multiplicative, s = 1 and v = 0
    E|y - x_q|^2 = E|W E[h|c] - E[x]|^2 + s^2 E[sum_ii' c_i c_i' B_ii' E[r_i r_i']]
                   + 2 s E[sum_i c_i l_i(p)] + E|W v|^2 + E|x - E[x]|^2
    l_i(p) = E[r_i[g] ((B v[g])_i - A_i(p g))]

Source: the task is that of arXiv:2602.03655, whose loss is |G| / 2 times this one; the formulas
follow from its definition.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Polynomial = Sequence[Sequence[Tensor]]
"""Coefficients of s^a t^b, a and b from 0 to one degree; their shapes broadcast to a common one."""

WORKING_MEMORY = 2**26
"""Bytes; about the least with which no time is lost on a CPU."""
DOUBLE_BYTES = 8


def population_loss(
    tables: Float[Tensor, "replica position element neuron"],
    w_out: Float[Tensor, "replica element neuron"],
    translates: Float[Tensor, "element element"],
    table: Int64[Tensor, "element element"],
    power: int,
    *,
    working_memory: int = WORKING_MEMORY,
) -> Float[Tensor, " replica"]:
    """Return the loss of y = W (sum_j e_j[g_j])^power over all sequences, with its gradient.

    With n = power, k positions and d neurons, E|y|^2 takes k n^2 |G| d^2 / 2 multiplications in
    products of matrices and about k n^4 d^2 / 8 of entries; E[y . x] about k n |G|^2 d look-ups.
    A gradient is computed along with the loss, if one is asked for, which then takes about 3.5
    times as long. It has no derivative of its own.

    Args:
        tables: e_j[g, i], the projections of the translates at every position.
        translates: x_q, one in a row.
        power: n, the degree of the nonlinearity, from 1 on.
        working_memory: about how many bytes intermediate results may take; at least what one
            neuron needs, 6 k (n + 1)^2 d or 2 k n |G|^2 numbers of every replica, is taken.

    Raises:
        ValueError: a power below 1.
    """
    if power < 1:
        raise ValueError(f"Expected a power of at least 1; got {power}. Choose a positive one.")
    e, W, T = tables.double(), w_out.double(), translates.double()
    n_replicas, n_positions, order, n_neurons = e.shape
    number = n_replicas * n_positions * DOUBLE_BYTES
    rows = _slices(n_neurons, working_memory // (6 * number * (power + 1) ** 2 * n_neurons))
    squared = _sum_of_parts(functools.partial(_squared_output, power), rows, e, W.mT @ W)
    neurons = _slices(n_neurons, working_memory // (2 * number * power * order**2))
    overlap = functools.partial(_output_times_target, power, table)
    product = _sum_of_parts(overlap, neurons, e, T @ W)
    loss = (squared - 2 * product) / order + T.square().mean()
    return loss.to(tables.dtype)


def recurrent_population_loss(
    first_table: Float[Tensor, "replica element neuron"],
    drive_table: Float[Tensor, "replica element neuron"],
    w_mix: Float[Tensor, "replica neuron neuron"],
    w_out: Float[Tensor, "replica element neuron"],
    translates: Float[Tensor, "element element"],
    table: Int64[Tensor, "element element"],
    length: int,
    *,
    quadratic: bool,
    working_memory: int = WORKING_MEMORY,
) -> Float[Tensor, " replica"]:
    """Return the loss of the last output of a recurrent network over all sequences of a length.

    h_1 = T(W_in x_1, W_drive x_2), h_t = T(W_mix h_(t-1), W_drive x_(t+1)), y = W h_(k-1);
    T(a, b) = (a + b)^2 or a b. The states of all |G|^(k-1) sequences without a last element are
    computed, the last step in closed form: |G|^(k-1) d (2 d + |G|) multiplications, and three times
    the time if a gradient is asked for, which has no derivative of its own.

    Args:
        first_table: (W_in x_g)_i.
        drive_table: (W_drive x_g)_i.
        translates: x_q, one in a row.
        length: k, from 2 on.
        quadratic: whether T is the square of the sum; it is the product otherwise.
        working_memory: about how many bytes intermediate results may take; at least what one
            first element needs, 20 |G|^(k-2) d numbers of every replica, is taken.

    Raises:
        ValueError: a length below 2.
    """
    if length < 2:
        raise ValueError(f"Expected a length of at least 2; got {length}. Choose a longer one.")
    first, drive, mix = first_table.double(), drive_table.double(), w_mix.double()
    W, T = w_out.double(), translates.double()
    order = len(table)
    squared, linear, constant = _variance(drive, W, T, table, quadratic, working_memory)
    part = functools.partial(_recurrent_part, T.mean(0), table, length, quadratic)
    states = W.shape[0] * W.shape[2] * order ** (length - 2)  # numbers, of one first element
    firsts = _slices(order, working_memory // (20 * states * DOUBLE_BYTES))
    total = _sum_of_parts(part, firsts, first, drive, mix, W, squared, linear)
    return ((total / order ** (length - 1) + constant) / order).to(w_out.dtype)


def _squared_output(
    power: int,
    rows: slice,
    e: Float[Tensor, "replica position element neuron"],
    B: Float[Tensor, "replica neuron neuron"],
) -> Float[Tensor, " replica"]:
    """Return sum_ii' B_ii' E[h_i h_i'] over i in `rows` and i' from there on, doubled beyond."""
    *others, last = _joint_moments(e[..., rows], e[..., rows.start :], power)
    if others:
        moment = _coefficient(functools.reduce(_product, others), last, power, power)
    else:
        moment = last[power][power]
    weighted = B[:, rows, rows.start :] * moment * math.factorial(power) ** 2
    n_rows = weighted.shape[1]
    return weighted[..., :n_rows].sum((1, 2)) + 2 * weighted[..., n_rows:].sum((1, 2))


def _joint_moments(
    left: Float[Tensor, "replica position element left"],
    right: Float[Tensor, "replica position element right"],
    degree: int,
) -> list[Polynomial]:
    """Return E[e_i^a / a! e_i'^b / b!] of every position, a row or column where b or a is 0."""
    L, R = (_divided_powers(e, degree, -2)[..., 1:, :] for e in (left, right))
    joint = (L.flatten(-2).mT / left.shape[2]) @ R.flatten(-2)
    joint = joint.unflatten(3, (degree, -1)).unflatten(2, (degree, -1))
    polynomials: list[Polynomial] = []
    for both, of_left, of_right in zip(
        joint.unbind(1), L.mean(2).unbind(1), R.mean(2).unbind(1), strict=True
    ):
        rows = [(left.new_ones(1, 1, 1), *of_right.unsqueeze(1).unbind(2))]
        for one, others in zip(of_left.unsqueeze(-1).unbind(1), both.unbind(1), strict=True):
            rows.append((one, *others.unbind(2)))
        polynomials.append(rows)
    return polynomials


def _divided_powers(values: Tensor, degree: int, dim: int) -> Tensor:
    """Return values^a / a!, a from 0 to `degree` along a new axis."""
    powers = [torch.ones_like(values)]
    for a in range(1, degree + 1):
        powers.append(powers[-1] * values / a)
    return torch.stack(powers, dim)


def _coefficient(first: Polynomial, second: Polynomial, a: int, b: int) -> Tensor:
    """Return the coefficient of s^a t^b in the product of two polynomials."""
    pairs = ((c, d) for c in range(a + 1) for d in range(b + 1))
    return functools.reduce(torch.add, (first[c][d] * second[a - c][b - d] for c, d in pairs))


def _product(first: Polynomial, second: Polynomial) -> Polynomial:
    """Return the product of two polynomials up to their degree."""
    exponents = range(len(first))
    return [[_coefficient(first, second, a, b) for b in exponents] for a in exponents]


def _output_times_target(
    power: int,
    table: Int64[Tensor, "element element"],
    neurons: slice,
    e: Float[Tensor, "replica position element neuron"],
    A: Float[Tensor, "replica element neuron"],
) -> Float[Tensor, " replica"]:
    """Return sum_i E[h_i A_i(q)] over some neurons."""
    first, *others = _divided_powers(e[..., neurons].mT, power, -1).unbind(1)
    target = A[..., neurons].mT
    f = [target, *[target.new_zeros(()).expand(*target.shape[:2], 1)] * power]
    for position in reversed(others):
        f = _before_element(f, position, table)
    terms = (f[a] * first[..., power - a] for a in range(power + 1))
    total = functools.reduce(torch.add, (term.mean(-1).sum(-1) for term in terms))
    return total * math.factorial(power)


def _before_element(
    f: Sequence[Tensor],
    powers: Float[Tensor, "replica neuron element exponent"],
    table: Int64[Tensor, "element element"],
) -> list[Tensor]:
    """Return sum_b E_g[f^(a-b)(p g) e[g]^b / b!] as a function of p, for every a."""
    before = [one.mean(-1, keepdim=True) for one in f]  # b = 0: no p is left
    for a, one in enumerate(f[:-1]):
        correlated = _correlation(one, powers[..., 1 : len(f) - a], table)
        for b, term in enumerate(correlated.unbind(-1), start=1):
            before[a + b] = before[a + b] + term
    return before


def _correlation(
    f: Float[Tensor, "replica neuron #element"],
    factors: Float[Tensor, "replica neuron element factor"],
    table: Int64[Tensor, "element element"],
) -> Float[Tensor, "replica neuron #element factor"]:
    """Return E_g[f(p g) factors[g]] as a function of p; a constant f has one entry."""
    if f.shape[-1] == 1:
        return f.unsqueeze(-1) * factors.mean(2, keepdim=True)
    translated = f.gather(-1, table.flatten().expand(*f.shape[:2], -1))
    return translated.unflatten(-1, table.shape) @ factors / len(table)


def _variance(
    drive: Float[Tensor, "replica element neuron"],
    W: Float[Tensor, "replica element neuron"],
    T: Float[Tensor, "element element"],
    table: Int64[Tensor, "element element"],
    quadratic: bool,
    working_memory: int,
) -> tuple[
    Float[Tensor, "replica neuron neuron"],
    Float[Tensor, "replica element neuron"],
    Float[Tensor, " #replica"],
]:
    """Return s^2 B E[r r^T], 2 s l(p) and the constant of the variance of y - x_q given c."""
    s = 2.0 if quadratic else 1.0
    r = drive - drive.mean(1, keepdim=True)
    squared = s**2 * (W.mT @ W) * (r.mT @ r) / len(table)
    linear = -2 * s * _correlation_with_drive(T @ W, r, table, working_memory)
    constant = T.var(0, correction=0).sum().unsqueeze(0)
    if quadratic:
        v = drive.square() - drive.square().mean(1, keepdim=True)
        Wv = v @ W.mT
        linear = linear + 2 * s * (r * (Wv @ W)).mean(1, keepdim=True)
        constant = constant + Wv.square().sum(-1).mean(-1)
    return squared, linear, constant


def _correlation_with_drive(
    A: Float[Tensor, "replica element neuron"],
    r: Float[Tensor, "replica element neuron"],
    table: Int64[Tensor, "element element"],
    working_memory: int,
) -> Float[Tensor, "replica element neuron"]:
    """Return E_g[A_i(p g) r_i[g]] as a function of p, some neurons at a time."""
    neurons = _slices(A.shape[2], working_memory // (len(A) * table.numel() * DOUBLE_BYTES * 2))
    parts = [
        checkpoint(
            _correlation,
            A[..., some].mT,
            r[..., some].mT.unsqueeze(-1),
            table,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for some in neurons
    ]
    return torch.cat(parts, 1).squeeze(-1).mT


def _recurrent_part(
    mean_target: Float[Tensor, " element"],
    table: Int64[Tensor, "element element"],
    length: int,
    quadratic: bool,
    firsts: slice,
    first: Float[Tensor, "replica element neuron"],
    drive: Float[Tensor, "replica element neuron"],
    mix: Float[Tensor, "replica neuron neuron"],
    W: Float[Tensor, "replica element neuron"],
    squared: Float[Tensor, "replica neuron neuron"],
    linear: Float[Tensor, "replica element neuron"],
) -> Float[Tensor, " replica"]:
    """Return the terms with c, summed over all elements but the last; of the first, only some.

    Sequences are listed by their products g_1, g_1 g_2, ...; the last one, p, is an axis of c.
    """
    division = table[table.argmin(1)]  # [p, q] is p^-1 q: in row g, the inverse of g has a 0
    c = first[:, None, firsts]
    for _ in range(length - 2):
        steps = drive[:, None, division[firsts]]
        h = _transform(c.unsqueeze(3), steps, quadratic)
        c = (h.flatten(1, 3) @ mix.mT).unflatten(1, (-1, len(table)))
        firsts = slice(None)
    along = (c.sum(1) * linear[:, firsts]).sum((1, 2))
    states = c.flatten(1, 2)
    mean = _transform(states, drive.mean(1, keepdim=True), quadratic)
    if quadratic:
        mean = mean + drive.var(1, correction=0, keepdim=True)
    error = mean @ W.mT - mean_target
    return error.square().sum((1, 2)) + ((states @ squared) * states).sum((1, 2)) + along


def _transform(state: Tensor, drive: Tensor, quadratic: bool) -> Tensor:
    return (state + drive).square() if quadratic else state * drive


def _slices(size: int, at_once: int) -> list[slice]:
    step = min(max(at_once, 1), size)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _sum_of_parts(
    part: Callable[..., Tensor], slices: Sequence[slice], *inputs: Tensor
) -> Float[Tensor, " replica"]:
    """Return the sum of part(slice, *inputs); what one part needs is freed before the next."""
    if not torch.is_grad_enabled():
        inputs = tuple(one.detach() for one in inputs)
    total: Tensor = _SumOfParts.apply(part, slices, *inputs)
    return total


class _SumOfParts(torch.autograd.Function):
    """A sum that finds its gradient along with its value, one part after the other."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, part: Callable[..., Tensor], slices: Sequence[slice], *inputs: Tensor
    ) -> Tensor:
        wanted = ctx.needs_input_grad[2:]
        leaves = [
            one.detach().requires_grad_(want) for one, want in zip(inputs, wanted, strict=True)
        ]
        varied = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in varied]
        total = inputs[0].new_zeros(len(inputs[0]))
        for one in slices:
            with torch.enable_grad():
                value = part(one, *leaves)
                summed = value.sum()
            total += value.detach()
            if summed.requires_grad:
                slopes = torch.autograd.grad(summed, varied, materialize_grads=True)
                for gradient, slope in zip(gradients, slopes, strict=True):
                    gradient += slope
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        known = iter(ctx.saved_tensors)
        return (
            None,
            None,
            *(
                torch.einsum("r,r...->r...", grad, next(known)) if want else None
                for want in ctx.needs_input_grad[2:]
            ),
        )
