"""Autocorrelation of Markov chains, and its integral over all lags.

Conventions: a series holds one number per step and chain; chains are independent, stationary and
of one law. With rho(t) the autocorrelation over t steps,

    tau = 1 + 2 sum_(t >= 1) rho(t),     Var(mean over n steps) = tau Var(one step) / n,

so that tau is 1 for independent steps (twice Wolff's tau_int). Errors are one standard error.
Imports no torch.

Source: U. Wolff, Comput. Phys. Commun. 156, 143 (2004), hep-lat/0306017: the Gamma method with an
automatic window, for several replicas, with the correction of its bias and its error.
"""

import math

import numpy as np
from jaxtyping import Float

Series = Float[np.ndarray, "steps chains"]

DECAY_OVER_TAU = 1.5
"""Wolff's S: correlations are taken to decay as exp(-t / (S tau_int)) when the window is set."""


def integrated_autocorrelation_time(series: Series) -> tuple[float, float]:
    """Return tau in steps, at least 1, and its standard error.

    The sum over rho(t) ends where its noise outgrows what is left out, but at half the steps at the
    latest. If they come first, tau is a lower bound and its error is infinite: so it is for many
    chains of less than about 5 tau, and for chains that stand still at different values (tau is the
    number of steps). One chain cannot show correlations longer than itself: it needs 50 tau.

    An estimate below 1 becomes 1. Swendsen-Wang and independence Metropolis chains are positive
    operators, rho(t) >= 0, so that it can only be noise; for other chains 1 errs on the safe side.

    The same number throughout shows nothing: tau and its error are infinite, and steps / tau is 0.
    Both are NaN if a value is not finite. Raises ValueError for fewer than 2 steps.
    """
    n_values = series.size
    _check_length(series)
    if not np.isfinite(series).all():
        return math.nan, math.nan
    if np.ptp(series) == 0:
        return math.inf, math.inf
    gamma = _autocovariance(series)
    window, closed = _window(gamma / gamma[0], n_values)
    # About the chains' own mean, not the exact one, every lag lacks Var(mean) (Wolff's eq. 49).
    gamma += (gamma[0] + 2 * gamma[1 : window + 1].sum()) / n_values
    tau = max(1.0, float(1 + 2 * gamma[1 : window + 1].sum() / gamma[0]))
    if not closed or window < tau / 2:
        return tau, math.inf
    return tau, 2 * tau * math.sqrt((window + (1 - tau) / 2) / n_values)


def autocorrelation(series: Series) -> Float[np.ndarray, " lags"]:
    """Return rho(t) for t = 0 .. half the steps, about the mean of all chains.

    NaN for the same number throughout. Raises ValueError for fewer than 2 steps.
    """
    _check_length(series)
    if np.ptp(series) == 0:
        return np.full(len(series) // 2 + 1, math.nan)
    gamma = _autocovariance(series)
    return gamma / gamma[0]


def _check_length(series: Series) -> None:
    if len(series) < 2:
        raise ValueError(
            f"An autocorrelation time needs a series of at least 2 steps; got {len(series)}. "
            "Measure more steps."
        )


def _autocovariance(series: Series) -> Float[np.ndarray, " lags"]:
    """Return Gamma(t) about the mean of all chains, for t = 0 .. half the steps."""
    n_steps, n_chains = series.shape
    lags = np.arange(n_steps // 2 + 1)
    # Zeros behind each chain keep the periodic convolution from joining its end to its start.
    spectrum = np.fft.rfft(series - series.mean(dtype=np.float64), 2 * n_steps, axis=0)
    power = np.square(np.abs(spectrum)).sum(axis=1)
    return np.fft.irfft(power)[lags] / (n_chains * (n_steps - lags))


def _window(rho: Float[np.ndarray, " lags"], n_values: int) -> tuple[int, bool]:
    """Return the last lag W of the sum, and whether it ends by itself rather than at the last one.

    W is the first lag with exp(-W / d) < d / sqrt(W n): the truncated rest is below the noise. The
    decay time d belongs to the exponential with the sum up to W, times S; a sum that is not
    positive has none, and ends.
    """
    lags = np.arange(1, len(rho))
    excess = np.cumsum(rho[1:])
    decay = DECAY_OVER_TAU / np.log1p(1 / np.maximum(excess, np.finfo(float).tiny))
    ends = np.exp(-lags / decay) < decay / np.sqrt(lags * n_values)
    return (int(lags[ends.argmax()]), True) if ends.any() else (int(lags[-1]), False)
