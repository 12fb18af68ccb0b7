"""Precisions and factors of a trained network, by empirical Bayes from training images.

What is estimated: pi_l, one over the mean square of every unit's prediction error; the top factor's
mixture, whose categories are the classes; the lower factors' mixtures, whose categories are found
by expectation maximization from prototypes M_l (in units of the states' standard deviations about
their mean); and the preconditioner of the collective move, the inverse of

    < J^T Pi_0 J > + < Lambda_k >,   J = dx/ds_{L-1}

averaged over images and classes: the curvature of F along the top states.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from strata.artifacts import read_h5
from strata.errors import UserError
from strata.rgm.factors import Mixture, fit_by_class, fit_unlabelled
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.learner import LabelledImages
from strata.rgm.losses import update_precisions
from strata.rgm.model import HierarchicalModel, prediction_errors
from strata.rgm.specification import Specification

AT_A_TIME = 5000
IMAGES_FOR_CURVATURE = 200


@dataclass(frozen=True)
class Calibration:
    """What a trained network needs for inference beside its weights."""

    mixtures: list[Mixture]
    precisions: list[Tensor]
    preconditioner: Float[Tensor, "state state"]

    def to(self, device: torch.device) -> "Calibration":
        """Return the same on a device."""
        return Calibration(
            [
                Mixture(m.log_weights.to(device), m.means.to(device), m.whitening.to(device))
                for m in self.mixtures
            ],
            [precision.to(device) for precision in self.precisions],
            self.preconditioner.to(device),
        )

    def free_energy(self, model: HierarchicalModel) -> FreeEnergy:
        """Return the free energy of the calibrated model."""
        for own, estimated in zip(model.precisions, self.precisions, strict=True):
            own.copy_(estimated)
        weights = model.specification.factor_weights
        return FreeEnergy(model, self.mixtures, weights, self.preconditioner)

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Everything by name."""
        arrays = {"preconditioner": self.preconditioner}
        for level, (mixture, precision) in enumerate(
            zip(self.mixtures, self.precisions, strict=True)
        ):
            arrays |= {
                f"log_weights_level{level}": mixture.log_weights,
                f"means_level{level}": mixture.means,
                f"whitening_level{level}": mixture.whitening,
                f"precision_level{level}": precision,
            }
        return arrays


@torch.no_grad()
def calibrate(
    model: HierarchicalModel,
    images: LabelledImages,
    prototypes: Mapping[str, Tensor],
) -> Calibration:
    """Return the calibration of a model by training images.

    `prototypes` are the matrices M_level0, ... that the lower factors start from.
    """
    parts = []
    squares = [torch.zeros_like(precision) for precision in model.precisions]
    for index in torch.arange(len(images)).split(AT_A_TIME):
        x, _ = images.batch(index)
        states = model.recognize(x)
        for total, error in zip(squares, prediction_errors(model, x, states), strict=True):
            total += error.square().sum(0)
        parts.append(states)
    rms = [(total / len(images)).sqrt().unsqueeze(0) for total in squares]
    update_precisions(model, rms, model.specification.precision, rate=1.0)
    states = [torch.cat(level) for level in zip(*parts, strict=True)]
    mixtures = [
        fit_unlabelled(s, prototypes[f"M_level{level}"].T) for level, s in enumerate(states[:-1])
    ]
    top = fit_by_class(states[-1], images.labels, model.specification.n_classes)
    curvature = mean_curvature(model, states[-1][:IMAGES_FOR_CURVATURE])
    prior = torch.einsum("kji,kjl->il", top.whitening, top.whitening) / len(top.whitening)
    return Calibration(
        [*mixtures, top],
        [precision.clone() for precision in model.precisions],
        torch.linalg.inv(curvature + prior),
    )


def mean_curvature(
    model: HierarchicalModel, top: Float[Tensor, "image state"]
) -> Float[Tensor, "state state"]:
    """Return < J^T Pi_0 J >, J = dx/ds_{L-1} at the given states."""
    J = jacobians(model, len(model.levels) - 1, top)
    return torch.einsum("npi,p,npj->ij", J, model.precisions[0], J) / len(top)


def jacobians(
    model: HierarchicalModel, level: int, states: Float[Tensor, "image state"]
) -> Float[Tensor, "image pixel state"]:
    """Return dx/ds_l of the image that each image's states descend to, in closed form."""
    n = states.shape[1]
    J = torch.eye(n).to(states).expand(len(states), n, n)
    for below in range(level, -1, -1):
        B = model.generation(below)
        v = states @ B.T + model.b[below]
        g = model.downward_activation(below)
        J = g.slope(v).unsqueeze(2) * (B @ J)
        states = g.function(v)
    return J


def read_calibration(path: Path, specification: Specification) -> Calibration:
    """Return a stored calibration.

    Raises:
        UserError: the file is missing or damaged, or holds that of another network.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for level in specification.levels:
        of_level = {"log_weights": (level.n_factor,), "means": (level.n_factor, level.n_state)}
        of_level["precision"] = (level.n_input,)
        shapes |= {f"{part}_level{level.index}": shape for part, shape in of_level.items()}
    levels = range(len(specification.levels))
    n_top = specification.levels[-1].n_state
    shapes["preconditioner"] = (n_top, n_top)
    for level in specification.levels:
        n_shared = level.n_factor if level.index == levels[-1] else 1
        shapes[f"whitening_level{level.index}"] = (n_shared, level.n_state, level.n_state)
    found = read_h5(path, *shapes)
    for name, shape in shapes.items():
        if found[name].shape != shape:
            raise UserError(
                f"{path}: {name} has the shape {found[name].shape}, and the specification says "
                f"{shape}; name the files of one run."
            )
    arrays = {name: torch.from_numpy(array) for name, array in found.items()}
    mixtures = [
        Mixture(*(arrays[f"{part}_level{level}"] for part in ("log_weights", "means", "whitening")))
        for level in levels
    ]
    precisions = [arrays[f"precision_level{level}"] for level in levels]
    return Calibration(mixtures, precisions, arrays["preconditioner"])
