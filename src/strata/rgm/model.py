"""The network: recognition upwards, generation downwards, lateral connections within a level.

Conventions: levels l = 0..L-1 from the pixels up; s_{-1} = x, pixels in [0, 1]. Level l has n_l
states. Matrices act on columns, states are rows of a batch: A_l [n_l, n_{l-1}] recognition, B_l
[n_{l-1}, n_l] generation, D_l [n_l, n_l] lateral, a_l [n_l] and b_l [n_{l-1}] biases, M_l
[n_l, m_l] prototypes of the factor's categories; pi_l [n_{l-1}] is the precision of the prediction
error e_l = s_{l-1} - g_l(B_l s_l + b_l).

    upwards     s_l = phi_l(C_l (A_l s_{l-1} + a_l))
    downwards   s_{l-1} = g_l(B_l s_l + b_l),  g_0 the logistic function, g_l = phi_{l-1}
    lateral     C_l = I + rho S / max(rho, ||S||_2),  S = (D_l + D_l^T) / 2 without its diagonal

so that C_l is symmetric with eigenvalues in [1 - rho, 1 + rho].

Source: Rao and Ballard, Nature Neuroscience 2, 79 (1999); Tschantz et al., PLoS Comput. Biol. 19,
e1011280 (2023), for amortised and iterative inference in one network.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strata.rgm.activations import ACTIVATIONS, Activation
from strata.rgm.normalization import LateralNormalizer, normalize
from strata.rgm.specification import Specification

States = list[Tensor]


class HierarchicalModel(nn.Module):
    """States at every level, connected both ways; built from a specification and its matrices.

    `precisions` holds pi_l; they are estimated, not learned by gradient.
    """

    def __init__(self, specification: Specification, matrices: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.specification = specification
        self.levels = specification.levels

        def of_levels(letter: str) -> list[Tensor]:
            return [matrices[f"{letter}_level{level.index}"] for level in self.levels]

        self.A, self.B, self.D, self.a, self.b = (
            nn.ParameterList([nn.Parameter(m.clone()) for m in of_levels(letter)])
            for letter in "ABDab"
        )
        self.prototypes = nn.Parameter(of_levels("M")[-1].clone())
        strength = specification.message_passing.lateral_bound
        self.normalizers = nn.ModuleList(
            LateralNormalizer(level.n_state, strength) for level in self.levels
        )
        self.class_log_precision = nn.Parameter(torch.zeros(self.levels[-1].n_state))
        self.class_log_prior = nn.Parameter(torch.zeros(self.levels[-1].n_factor))
        for level, precision in zip(self.levels, of_levels("pi"), strict=True):
            self.register_buffer(f"precision_level{level.index}", precision.clone())

    @property
    def precisions(self) -> list[Tensor]:
        """pi_l of every level, l = 0 for the pixels."""
        return [self.get_buffer(f"precision_level{level.index}") for level in self.levels]

    def upward_activation(self, level: int) -> Activation:
        """phi_l."""
        return ACTIVATIONS[self.levels[level].activation]

    def downward_activation(self, level: int) -> Activation:
        """g_l: the logistic function for the pixels, else phi_{l-1}."""
        return ACTIVATIONS["sigmoid"] if level == 0 else self.upward_activation(level - 1)

    def recognition(self, level: int) -> Float[Tensor, "state input"]:
        """A_l, normalized as the specification says."""
        return normalize(self.A[level], self.specification.normalization.recognition.mode)

    def generation(self, level: int) -> Float[Tensor, "input state"]:
        """B_l, normalized as the specification says."""
        return normalize(self.B[level], self.specification.normalization.generation.mode)

    def lateral(self, level: int) -> Float[Tensor, "state state"]:
        """C_l, symmetric and positive definite."""
        C: Tensor = self.normalizers[level](self.D[level])
        return C

    def recognize(self, x: Float[Tensor, "batch pixel"]) -> States:
        """Return the states of all levels by one pass upwards: s_0 [batch, n_0], ..."""
        states = []
        signal = x
        for level in range(len(self.levels)):
            u = (signal @ self.recognition(level).T + self.a[level]) @ self.lateral(level)
            signal = self.upward_activation(level).function(u)
            states.append(signal)
        return states

    def predict(self, level: int, state: Float[Tensor, "batch state"]) -> Tensor:
        """Return g_l(B_l s_l + b_l), the prediction of the level below."""
        v = state @ self.generation(level).T + self.b[level]
        return self.downward_activation(level).function(v)

    def descend(self, level: int, state: Float[Tensor, "batch state"]) -> list[Tensor]:
        """Return all that a level's states predict below: s_{l-1}, ..., s_0, x."""
        predictions = []
        for below in range(level, -1, -1):
            state = self.predict(below, state)
            predictions.append(state)
        return predictions

    def reconstruct(self, level: int, state: Float[Tensor, "batch state"]) -> Tensor:
        """Return the image [batch, pixel] that a level's states predict."""
        return self.descend(level, state)[-1]

    def class_logits(self, top: Float[Tensor, "batch state"]) -> Float[Tensor, "batch category"]:
        """Return ln p_c - |s - M_c|^2_Lambda / 2 of the top level's categories, up to a constant.

        Lambda is diagonal and shared by the classes, so that this is linear in s once normalized.
        """
        mode = self.specification.normalization.factor.mode
        M = normalize(self.prototypes, mode)
        distance = top.unsqueeze(2) - M  # batch, state, category
        weighted = distance.square() * self.class_log_precision.exp().unsqueeze(1)
        return torch.log_softmax(self.class_log_prior, 0) - 0.5 * weighted.sum(1)


def prediction_errors(
    model: HierarchicalModel, x: Float[Tensor, "batch pixel"], states: Sequence[Tensor]
) -> list[Tensor]:
    """Return e_l = s_{l-1} - g_l(B_l s_l + b_l) of every level."""
    targets = [x, *states[:-1]]
    predictions = [model.predict(level, state) for level, state in enumerate(states)]
    return [target - p for target, p in zip(targets, predictions, strict=True)]
