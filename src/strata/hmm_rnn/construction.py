"""Transition and emission matrices by name, and the stationary law of a chain.

Conventions: A[i, j] = p(state j after state i), B[i, o] = p(symbol o in state i), rows sum to 1,
float64 on the CPU; S states, O symbols, both counted from 0. A chain of one state stays there.

Source: the models of E. Torre and others, arXiv:2510.25674. There the linear emission is defined
for three symbols, the triangular one for three states; here they are defined for every number.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from strata.hmm_rnn.hmm_settings import HMMSettings, largest_target_prob

BETWEEN_THE_ENDS = 0.01
"""Linear emission: probability that is not shared by the two end symbols."""
OFF_DIAGONAL = 0.02
"""Triangular emission: probability of all symbols but the state's own."""
SHARPNESS = 20.0
"""Gaussian emission: B is as exp(-20 x^2), x the distance in units of the range of symbols."""


def reflecting_chain(n_states: int, stay_prob: float) -> Float64[Tensor, "state state"]:
    """Return the chain that stays or goes to a neighbour.

    Inner states go to each side with (1 - stay_prob) / 2, the ends to their only neighbour with
    1 - stay_prob.
    """
    if n_states == 1:
        return _identity(1)
    A = _neighbours(n_states)
    return stay_prob * _identity(n_states) + (1 - stay_prob) * A / A.sum(1, keepdim=True)


def even_chain(n_states: int, target_prob: float) -> Float64[Tensor, "state state"]:
    """Return the chain that goes to each neighbour with q = target_prob^(1 / (S - 1)).

    So target_prob is the probability of the shortest way from one end to the other. The matrix is
    symmetric: the stationary law is uniform.

    Raises:
        ValueError: q would exceed 1/2 in an inner state, or 1.
    """
    if n_states == 1:
        return _identity(1)
    largest = largest_target_prob(n_states)
    if not 0 <= target_prob <= largest:
        raise ValueError(
            f"Expected a target_prob from 0 to {largest!r} with {n_states} states; got "
            f"{target_prob!r}."
        )
    q = min(target_prob ** (1 / (n_states - 1)), 1.0 if n_states == 2 else 0.5)
    A = q * _neighbours(n_states)
    return A + torch.diag(1 - A.sum(1))


def fully_connected(n_states: int, stay_prob: float) -> Float64[Tensor, "state state"]:
    """Return the chain that stays, or goes to any other state, all equally likely."""
    if n_states == 1:
        return _identity(1)
    others = 1 - _identity(n_states)
    return stay_prob * _identity(n_states) + (1 - stay_prob) / (n_states - 1) * others


def ring(n_states: int, stay_prob: float) -> Float64[Tensor, "state state"]:
    """Return the chain on a ring: half of 1 - stay_prob each way; both ways meet if S = 2."""
    stay = _identity(n_states)
    return stay_prob * stay + (1 - stay_prob) / 2 * (stay.roll(1, 1) + stay.roll(-1, 1))


def linear_emission(n_states: int, n_symbols: int) -> Float64[Tensor, "state symbol"]:
    """Return the emission that goes from the first symbol to the last along the states.

    With a = i / (S - 1) in state i (0 if S = 1), the first and the last symbol have 0.99 (1 - a)
    and 0.99 a; the symbols between share 0.01 equally, or, if O = 2, the two ends do.
    """
    a = torch.linspace(0, 1, n_states, dtype=torch.float64)
    if n_symbols == 1:
        return torch.ones_like(a)[:, None]
    B = a.new_zeros(n_states, n_symbols)
    shared = B if n_symbols == 2 else B[:, 1:-1]
    shared.fill_(BETWEEN_THE_ENDS / shared.shape[1])
    B[:, 0] += (1 - BETWEEN_THE_ENDS) * (1 - a)
    B[:, -1] += (1 - BETWEEN_THE_ENDS) * a
    return B


def gaussian_emission(n_states: int, n_symbols: int) -> Float64[Tensor, "state symbol"]:
    """Return bells about centres that spread evenly from the first symbol to the last.

    B[i, o] is as exp(-0.2 ((o - c_i) / (0.1 (O - 1)))^2), c_i = i (O - 1) / (S - 1) (0 if S = 1).
    """
    centres = torch.linspace(0, 1, n_states, dtype=torch.float64)
    places = torch.linspace(0, 1, n_symbols, dtype=torch.float64)
    return torch.softmax(-SHARPNESS * (places - centres[:, None]) ** 2, dim=1)


def triangular_emission(n_states: int, n_symbols: int) -> Float64[Tensor, "state symbol"]:
    """Return 0.98 for the state's own symbol; the others share 0.02 equally.

    Raises:
        ValueError: there are not as many symbols as states.
    """
    if n_states != n_symbols:
        raise ValueError(
            f"Expected as many symbols as states; got {n_symbols} symbols and {n_states} states."
        )
    return fully_connected(n_states, 1 - OFF_DIAGONAL)


TRANSITIONS: dict[str, Callable[[HMMSettings], Tensor]] = {
    "stay_prob": lambda hmm: reflecting_chain(hmm.states, hmm.stay_prob),
    "target_prob": lambda hmm: even_chain(hmm.states, hmm.target_prob),
    "fully": lambda hmm: fully_connected(hmm.states, hmm.stay_prob),
    "cyclic": lambda hmm: ring(hmm.states, hmm.stay_prob),
    "custom": lambda hmm: _given(hmm.transition_matrix),
}
EMISSIONS: dict[str, Callable[[HMMSettings], Tensor]] = {
    "linear": lambda hmm: linear_emission(hmm.states, hmm.outputs),
    "gaussian": lambda hmm: gaussian_emission(hmm.states, hmm.outputs),
    "triangular": lambda hmm: triangular_emission(hmm.states, hmm.outputs),
    "custom": lambda hmm: _given(hmm.emission_matrix),
}


def transition_matrix(settings: HMMSettings) -> Float64[Tensor, "state state"]:
    """Return the transition matrix A."""
    return TRANSITIONS[settings.transition_method](settings)


def emission_matrix(settings: HMMSettings) -> Float64[Tensor, "state symbol"]:
    """Return the emission matrix B."""
    return EMISSIONS[settings.emission_method](settings)


def start_law(
    settings: HMMSettings, transition: Float64[Tensor, "state state"]
) -> Float64[Tensor, " state"]:
    """Return the law of the first state."""
    if settings.start == "stationary":
        return stationary_law(transition)
    return torch.full_like(transition[0], 1 / len(transition))


def stationary_law(transition: Float64[Tensor, "state state"]) -> Float64[Tensor, " state"]:
    """Return the law pi with pi A = pi.

    Raises:
        ValueError: some state is never reached from some other, so that there may be several.
    """
    n = len(transition)
    identity = torch.eye(n, dtype=transition.dtype, device=transition.device)
    linked = (transition + identity > 0).to(transition.dtype)  # by one step, two, four, ...
    for _ in range(n.bit_length()):
        linked = (linked @ linked > 0).to(transition.dtype)
    if not bool((linked > 0).all()):
        raise ValueError(
            "Expected a chain that leads from every state to every other; "
            f"{int((linked == 0).sum())} pairs of states are not linked, so the stationary law is "
            "not unique. Use a transition matrix without such pairs."
        )
    equations = transition.T - identity
    equations[-1] = 1  # one of the equations follows from the others; the law sums to 1
    law = torch.linalg.solve(equations, identity[-1]).clamp_min(0)
    return law / law.sum()


def _identity(n: int) -> Float64[Tensor, "state state"]:
    return torch.eye(n, dtype=torch.float64)


def _neighbours(n_states: int) -> Float64[Tensor, "state state"]:
    ones = torch.ones(n_states - 1, dtype=torch.float64)
    return torch.diag(ones, 1) + torch.diag(ones, -1)


def _given(matrix: tuple[tuple[float, ...], ...] | None) -> Float64[Tensor, "state column"]:
    """Return a matrix of the settings; rounded entries are scaled so that rows sum to 1."""
    rows = torch.tensor(matrix, dtype=torch.float64)
    return rows / rows.sum(1, keepdim=True)
