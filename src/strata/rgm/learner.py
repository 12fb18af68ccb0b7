"""What one training step of the family does: a batch of images, up and down, and the loss.

Conventions: an epoch is a pass over the training images in a new random order, in full batches;
what is left over is not seen in this epoch. Images are kept as uint8 and become numbers in [0, 1]
batch by batch.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from strata.randomness import Generators
from strata.rgm.config import ACTIVE_STD, N_CLASSES
from strata.rgm.losses import (
    COMPONENTS,
    image_errors,
    loss_components,
    up_and_down,
    update_precisions,
    weighted,
)
from strata.rgm.model import HierarchicalModel
from strata.rgm.network_settings import RGMTraining

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class LabelledImages:
    """Images [n, pixel] as uint8, and their classes."""

    images: UInt8[Tensor, "image pixel"]
    labels: Int[Tensor, " image"]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor) -> tuple[Float[Tensor, "batch pixel"], Tensor]:
        """Return images with pixels in [0, 1], and their classes."""
        return self.images[index].to(torch.float32) / 255.0, self.labels[index]


class ImageLearner:
    """A hierarchical model that learns to describe images at every level, and to name them."""

    def __init__(
        self,
        model: HierarchicalModel,
        training: LabelledImages,
        validation: LabelledImages,
        settings: RGMTraining,
        generators: Generators,
    ) -> None:
        self.module = model
        self.training = training
        self.validation = validation
        self.settings = settings
        self.generators = generators
        self.order = torch.arange(len(training), device=generators.device)
        self.epoch = torch.zeros(())
        self.levels = range(len(model.levels))
        self.rule = model.specification.precision

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every metric."""
        names = {"epoch": "epochs", "accuracy": "1", "images": "1", "reconstructions": "1"}
        for component in COMPONENTS:
            names |= {component: "1", f"weighted_{component}": "1"}
        for level in self.levels:
            names |= {f"mse_level{level}": "1/pixel", f"active_level{level}": "1"}
        return names

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss and its components; updates the precisions by this batch's errors."""
        per_epoch = self.settings.steps_per_epoch(len(self.training))
        position = step % per_epoch
        if position == 0:
            self.order = torch.randperm(
                len(self.training), generator=self.generators["data"], device=self.order.device
            )
        size = self.settings.batch_size
        x, labels = self.training.batch(self.order[position * size : (position + 1) * size])
        model, weights = self.module, self.settings.loss
        outcome = up_and_down(model, x)
        components = loss_components(model, x, labels, outcome, weights.reconstruction_below)
        shares = weighted(components, weights)
        update_precisions(model, outcome.errors, self.rule)
        metrics = {name: value.detach() for name, value in components.items()}
        metrics |= {f"weighted_{name}": value.detach() for name, value in shares.items()}
        metrics |= {
            f"mse_level{level}": error.detach()
            for level, error in enumerate(image_errors(x, outcome))
        }
        self.epoch = x.new_full((), (step + 1) / per_epoch)
        metrics["epoch"] = self.epoch
        return torch.stack(list(shares.values())).sum(), metrics

    def evaluate(self) -> Mapping[str, Tensor]:
        """Return the loss, the images' errors, accuracy and active units on validation images."""
        with self._looking_on():
            return self._evaluated()

    @contextlib.contextmanager
    def _looking_on(self) -> Iterator[None]:
        """Look at the network without moving what follows its training."""
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train()

    def _evaluated(self) -> dict[str, Tensor]:
        model, weights = self.module, self.settings.loss
        sums: dict[str, Tensor] = {"epoch": self.epoch}
        first = [torch.zeros(level.n_state).to(self.order.device) for level in model.levels]
        second = [torch.zeros_like(moment) for moment in first]
        n = len(self.validation)
        for index in torch.arange(n, device=self.order.device).split(EVALUATION_BATCH):
            x, labels = self.validation.batch(index)
            outcome = up_and_down(model, x)
            components = loss_components(model, x, labels, outcome, weights.reconstruction_below)
            found = {"loss": torch.stack(list(weighted(components, weights).values())).sum()}
            logits = model.class_logits(outcome.states[-1])
            found["accuracy"] = (logits.argmax(1) == labels).to(x.dtype).mean()
            for level, error in enumerate(image_errors(x, outcome)):
                found[f"mse_level{level}"] = error
            for name, value in found.items():
                sums[name] = sums.get(name, x.new_zeros(())) + value * (len(x) / n)
            for level, state in enumerate(outcome.states):
                first[level] += state.sum(0) / n
                second[level] += state.square().sum(0) / n
        for level in self.levels:
            std = (second[level] - first[level].square()).clamp(min=0.0).sqrt()
            sums[f"active_level{level}"] = (std > ACTIVE_STD).to(torch.float32).mean()
        return sums

    def snapshot(self) -> Mapping[str, Tensor]:
        """Return one validation image of each class, and what every level makes of it."""
        index = first_of_each_class(self.validation.labels)
        x, _ = self.validation.batch(index)
        with self._looking_on():
            seen = up_and_down(self.module, x).images
        return {"images": x, "reconstructions": torch.stack(seen)}

    def state_dict(self) -> dict[str, Any]:
        """Return what evolves beside the weights: the order of the images in this epoch."""
        return {"order": self.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in a stored order."""
        self.order = state["order"].to(self.generators.device)


def first_of_each_class(labels: Int[Tensor, " image"]) -> Int[Tensor, " class_"]:
    """Return the index of the first image of every class that there is, by class."""
    found = [torch.nonzero(labels == c)[:1, 0] for c in range(N_CLASSES)]
    return torch.cat(found)
