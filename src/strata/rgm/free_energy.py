"""The free energy of states given an image, and the messages that lower it, in closed form.

    F = sum_l [ e_l^T Pi_l e_l - ln|Pi_l| ] / 2 - sum_l kappa_l ln p(s_l)
    p(s_l) = sum_k p_k N(s_l; M_k, Lambda_k^{-1}), the factor
    e_l = s_{l-1} - g_l(v_l),  v_l = B_l s_l + b_l,  s_{-1} = x

Conventions: nats per image, without the constant n ln(2 pi) / 2 of the errors. Pi_0 = diag(pi_0) is
zero where a pixel is not known, and such a pixel has no part in F; above,
Pi_l = diag(pi_l)^{1/2} C_{l-1} diag(pi_l)^{1/2}, so that lateral connections shape the precision of
the errors of one level.

Messages to s_l, whose sum is -dF/ds_l:

    bottom-up   B_l^T (g_l'(v_l) * Pi_l e_l)
    top-down and lateral   -Pi_{l+1} e_{l+1}   (the off-diagonal part is the lateral message)
    factor   -kappa_l sum_k q_k Lambda_k (s_l - M_k)

Source: Friston, Phil. Trans. R. Soc. B 360, 815 (2005), section 3; Whittington and Bogacz, Neural
Computation 29, 1229 (2017).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from strata.rgm.factors import Mixture
from strata.rgm.model import HierarchicalModel


@dataclass(frozen=True)
class Evaluation:
    """F [batch] of some states, and what its messages are made of."""

    free_energy: Tensor
    weighted_errors: list[Tensor]  # Pi_l e_l
    slopes: list[Tensor]  # g_l'(v_l)
    log_joint: list[Tensor]  # ln p_k N(s_l; M_k, Lambda_k^{-1}) of every level with a factor


class FreeEnergy:
    """F of images with the weights, precisions and factors of a trained model.

    Args:
        mixtures: the factor of each level.
        factor_weights: kappa_l.
        preconditioner: what the collective move multiplies the top states' message by; near the
            inverse curvature of F.
    """

    def __init__(
        self,
        model: HierarchicalModel,
        mixtures: Sequence[Mixture],
        factor_weights: Sequence[float],
        preconditioner: Float[Tensor, "state state"],
    ) -> None:
        self.model = model
        self.mixtures = mixtures
        self.factor_weights = factor_weights
        self.n_levels = len(model.levels)
        self.preconditioner = preconditioner
        self.lateral_norm = 1.0 + model.specification.message_passing.lateral_bound
        with torch.no_grad():
            self.B = [model.generation(level) for level in range(self.n_levels)]
            self.gains = [
                (model.downward_activation(level).bound * float(torch.linalg.matrix_norm(B, 2)))
                ** 2
                for level, B in enumerate(self.B)
            ]  # bounds of |d prediction / d s_l|^2
            self.precisions = [p.clone() for p in model.precisions]
            roots = [p.sqrt() for p in self.precisions]
            self.above_pixels = [
                roots[level].unsqueeze(1) * model.lateral(level - 1) * roots[level]
                for level in range(1, self.n_levels)
            ]  # Pi_1, Pi_2, ...
            log_dets = [torch.logdet(Pi) for Pi in self.above_pixels]
            self.log_det_above = sum(log_dets, torch.zeros(()).to(roots[0]))

    def in_double(self) -> "FreeEnergy":
        """Return the same in double precision."""
        doubled = [
            Mixture(m.log_weights.double(), m.means.double(), m.whitening.double())
            for m in self.mixtures
        ]
        model = copy.deepcopy(self.model).double()
        for own, kept in zip(model.precisions, self.precisions, strict=True):
            own.copy_(kept)
        return FreeEnergy(model, doubled, self.factor_weights, self.preconditioner.double())

    def log_determinant(
        self, pixel_precision: Float[Tensor, "batch pixel"]
    ) -> Float[Tensor, " batch"]:
        """Return sum_l ln|Pi_l| of every image, over its known pixels."""
        known = torch.where(pixel_precision > 0, pixel_precision, 1.0)
        return known.log().sum(1) + self.log_det_above

    def evaluate(
        self,
        x: Float[Tensor, "batch pixel"],
        pixel_precision: Float[Tensor, "batch pixel"],
        states: Sequence[Tensor],
        *,
        log_det: Float[Tensor, " batch"] | None = None,
    ) -> Evaluation:
        """Return F and what the messages need; unknown pixels have precision 0.

        `log_det` is what `log_determinant` returns of these precisions, where it is at hand.
        """
        targets = [x, *states[:-1]]
        if log_det is None:
            log_det = self.log_determinant(pixel_precision)
        energy = -0.5 * log_det
        weighted_errors, slopes = [], []
        for level, (target, state) in enumerate(zip(targets, states, strict=True)):
            v = state @ self.B[level].T + self.model.b[level]
            g = self.model.downward_activation(level)
            prediction, slope = g.with_slope(v)
            error = target - prediction
            if level == 0:
                weighted = pixel_precision * error
            else:
                weighted = error @ self.above_pixels[level - 1]
            energy = energy + 0.5 * (error * weighted).sum(1)
            weighted_errors.append(weighted)
            slopes.append(slope)
        log_joint = []
        for mixture, weight, state in zip(self.mixtures, self.factor_weights, states, strict=True):
            joint = mixture.log_joint(state) if weight > 0 else state.new_zeros(0)
            if weight > 0:
                energy = energy - weight * torch.logsumexp(joint, 1)
            log_joint.append(joint)
        return Evaluation(energy, weighted_errors, slopes, log_joint)

    def bottom_up(self, level: int, weighted_error: Tensor, at: Evaluation) -> Tensor:
        """Return B_l^T (g_l' * weighted_error): an error's message to the states that caused it."""
        return (at.slopes[level] * weighted_error) @ self.B[level]

    def factor_message(self, level: int, states: Sequence[Tensor], at: Evaluation) -> Tensor:
        """Return -kappa_l sum_k q_k Lambda_k (s_l - M_k)."""
        weight = self.factor_weights[level]
        if weight == 0:
            return torch.zeros_like(states[level])
        category = torch.softmax(at.log_joint[level], 1)
        return -weight * self.mixtures[level].pull(states[level], category)

    def messages(self, states: Sequence[Tensor], at: Evaluation) -> list[Tensor]:
        """Return the sum of all messages to each level, -dF/ds_l."""
        total = []
        for level in range(self.n_levels):
            message = self.bottom_up(level, at.weighted_errors[level], at)
            message = message + self.factor_message(level, states, at)
            if level + 1 < self.n_levels:
                message = message - at.weighted_errors[level + 1]
            total.append(message)
        return total

    def step_bounds(self, pixel_precision: Float[Tensor, "batch pixel"]) -> list[Tensor]:
        """Return eta_l / eta of every level, [batch, 1]: one over a bound of the curvature of F.

        For linear g the Hessian is block tridiagonal and at most twice its diagonal blocks, so that
        simultaneous steps of less than this lower F.
        """
        bounds = []
        for level in range(self.n_levels):
            above = 0.0
            if level + 1 < self.n_levels:
                above = self.lateral_norm * float(self.precisions[level + 1].max())
            gain = self.gains[level]
            if level == 0:
                below = gain * pixel_precision.amax(1, keepdim=True)
            else:
                largest = self.lateral_norm * gain * float(self.precisions[level].max())
                below = torch.full_like(pixel_precision[:, :1], largest)
            kappa = self.factor_weights[level]
            factor = kappa * self.mixtures[level].precision_norm() if kappa > 0 else 0.0
            bounds.append(1.0 / (above + below + factor))
        return bounds
