"""Lyapunov spectrum of a network along its noise-driven orbit.

    lambda_j = lim_{T -> inf} (1/T) sum_{t < T} ln r_jj(t),  J_t Q_t = Q_{t+1} R_t

where J_t is the Jacobian of step t, Q_t has orthonormal columns and R_t is upper triangular.

Conventions: nats per step, in descending order. Noise is external: the exponents say how a small
difference between two states grows under the same noise, so that lambda_1 < 0 means that the noise
alone decides where the state goes. A rectifier can map a tangent vector to exactly zero; such a
direction is dead from then on, and has the exponent -inf.

Source: G. Benettin, L. Galgani, A. Giorgilli and J.-M. Strelcyn, Meccanica 15, 9 and 21 (1980), for
the method; the network is that of E. Torre and others, arXiv:2510.25674.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from strata.hmm_rnn.jacobians import tangents_after
from strata.hmm_rnn.rnn import NoiseDrivenRNN


@dataclass(frozen=True)
class LyapunovSpectrum:
    """Leading exponents, nats per step, averaged over independent chains.

    exponents: means over chains; -inf where the direction died in some chain, NaN throughout if a
        state overflowed.
    errors: standard errors over chains; NaN where the exponent is -inf, or for a single chain.
    running: the largest exponent as estimated from the first 1, 2, ... blocks of all chains.
    surviving: the fraction of chains in which the direction was alive to the end.
    """

    exponents: Float[Tensor, " exponent"]
    errors: Float[Tensor, " exponent"]
    running: Float[Tensor, " block"]
    surviving: Float[Tensor, " exponent"]


@torch.no_grad()
def lyapunov_spectrum(
    network: NoiseDrivenRNN,
    starts: Float[Tensor, "chain layer unit"],
    n_steps: int,
    n_exponents: int,
    generator: torch.Generator,
    *,
    settling: int = 100,
    n_blocks: int = 20,
) -> LyapunovSpectrum:
    """Return the leading Lyapunov exponents along driven orbits.

    Args:
        network: in double precision, as its tangent vectors are orthonormalised at every step.
        starts: a first state of each chain, usually of a driven run.
        n_steps: steps of each chain, a multiple of `n_blocks`.
        n_exponents: how many leading exponents.
        generator: source of the noise and of the first tangent vectors.
        settling: steps beforehand, in which the tangent vectors turn to their directions.
        n_blocks: blocks of steps for the running estimate.

    Raises:
        ValueError: more exponents than the state has numbers, or steps that do not fill the blocks.
    """
    n_chains, size = len(starts), starts[0].numel()
    if not 1 <= n_exponents <= size:
        raise ValueError(f"A state of {size} numbers has 1 to {size} exponents; got {n_exponents}.")
    if n_steps < 1 or n_steps % n_blocks != 0:
        raise ValueError(f"Expected a positive multiple of {n_blocks} steps; got {n_steps}.")
    first = torch.randn((n_chains, size, n_exponents), generator=generator, dtype=starts.dtype,
                        device=starts.device)  # fmt: skip
    Q, _ = torch.linalg.qr(first)
    growth = starts.new_zeros(n_chains, n_exponents)
    after_block = []
    rounding = _rounding(network)
    state = starts
    for t in range(-settling, n_steps):
        noise = network.noise(1, n_chains, generator)[0]
        state = network.step(state, noise)
        tangents = Q.unflatten(1, tuple(starts.shape[1:]))
        V = tangents_after(network, state > 0, tangents).flatten(1, 2)
        Q, r = _orthonormalised(V, rounding)
        # What died while settling stays dead; what lived starts from zero.
        growth = r.log() + (torch.where(growth.isfinite(), 0.0, growth) if t == 0 else growth)
        if t >= 0 and (t + 1) % (n_steps // n_blocks) == 0:
            after_block.append(growth)
    if not state.isfinite().all():
        growth = torch.full_like(growth, math.nan)
    return _averaged(growth, torch.stack(after_block), n_steps)


def _rounding(network: NoiseDrivenRNN) -> float:
    """Return a length below which a tangent vector of length 1 is zero after a step."""
    gain = 0.0
    for layer in network.layers:
        from_below = float(torch.linalg.matrix_norm(layer.weight_input, 2)) * gain
        gain = from_below + float(torch.linalg.matrix_norm(layer.weight_recurrent, 2))
    epsilon = torch.finfo(network.readout_weight.dtype).eps
    return epsilon * network.num_layers * network.hidden_size * gain


def _orthonormalised(
    V: Float[Tensor, "chain number exponent"], rounding: float
) -> tuple[Float[Tensor, "chain number exponent"], Float[Tensor, "chain exponent"]]:
    """Return Q and the diagonal of R of V = Q R; a column that depends on others becomes zero.

    Gram and Schmidt's procedure, applied twice: Householder's would complete Q by arbitrary
    columns where V loses rank, which then count as alive and hide parts of the later ones.
    """
    Q = torch.zeros_like(V)
    lengths = []
    for j in range(V.shape[2]):
        v, before = V[:, :, j : j + 1], Q[:, :, :j]
        for _ in range(2 if j > 0 else 0):
            v = v - before @ (before.mT @ v)
        length = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        alive = length > rounding
        Q[:, :, j : j + 1] = torch.where(alive, v / length, 0.0)
        lengths.append(torch.where(alive, length, 0.0)[:, 0, 0])
    return Q, torch.stack(lengths, 1)


def _averaged(
    growth: Float[Tensor, "chain exponent"],
    after_block: Float[Tensor, "block chain exponent"],
    n_steps: int,
) -> LyapunovSpectrum:
    dead = growth.isneginf()
    # Directions behind a dead one move up, as only those that live are exponents of the product.
    growth = growth.gather(1, dead.to(torch.uint8).argsort(dim=1, stable=True))
    rates = growth / n_steps
    n_chains, n_blocks = len(rates), len(after_block)
    exponents = rates.mean(0)
    errors = torch.full_like(exponents, math.nan)
    if n_chains > 1:
        errors = rates.std(0) / math.sqrt(n_chains)
    living = after_block.isfinite().to(torch.uint8).argmax(2, keepdim=True)
    largest = after_block.gather(2, living)[:, :, 0].mean(1)
    block = torch.arange(1, n_blocks + 1).to(largest)
    surviving = growth.isfinite().to(rates).mean(0)
    return LyapunovSpectrum(exponents, errors, largest / (block * n_steps / n_blocks), surviving)
