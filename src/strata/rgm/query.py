"""Learn the classes from few labels: which images to ask about, against asking at random.

The network is trained once more from its initial matrices, on the pool's images and without their
labels; a Gaussian per class then reads its top states. From a few labels of every class on, each
strategy asks for the labels that it finds worth most, and all are compared at equal numbers of
labels, from the same first ones. Accuracies are of the official test images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.randomness import Generators
from strata.rgm.acquisition import ACQUISITIONS, exploration_rates, select
from strata.rgm.config import N_TEST, ActiveSettings, RunSettings
from strata.rgm.factors import Mixture
from strata.rgm.few_labels import drawn_means, fit_few
from strata.rgm.inputs import build_model, load_images
from strata.rgm.learner import ImageLearner, LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.rgm.network_settings import RGMTraining
from strata.stages import run_stage, stage_arguments

DRAWS = 10  # of the class means, for the mutual information
DIVERSITY = 0.1
EXPLORATION = {"initial": 0.1, "decay": 0.995, "minimum": 0.01}


@dataclass(frozen=True)
class Strategy:
    """A score, the weight of distance between picks, and whether some picks are made at random."""

    score: str
    diversity: float = 0.0
    explores: bool = False


STRATEGIES: Mapping[str, Strategy] = {
    **{name: Strategy(name) for name in ACQUISITIONS},
    "diversity": Strategy("margin", DIVERSITY, explores=True),
}


@dataclass(frozen=True)
class Codes:
    """Top states of images, and their classes."""

    states: Tensor
    labels: Tensor


def learn_without_labels(
    model: HierarchicalModel,
    pool: LabelledImages,
    settings: RGMTraining,
    active: ActiveSettings,
    generators: Generators,
) -> None:
    """Train the network on images alone, in place: the run's training without its class term.

    Epochs and learning rate are those of active learning, and the rate falls to 0 as a cosine.
    """
    loss_settings = settings.loss.model_copy(update={"classification": 0.0})
    changes = {"n_epochs": active.n_epochs, "learning_rate": active.learning_rate}
    training = settings.model_copy(update={**changes, "loss": loss_settings})
    learner = ImageLearner(model, pool, pool, training, generators)
    optimizer = torch.optim.Adam(
        model.parameters(),
        training.learning_rate,
        betas=training.optimizer.betas,
        weight_decay=training.optimizer.weight_decay,
    )
    steps = training.n_epochs * training.steps_per_epoch(len(pool))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        loss, _ = learner.training_step(step)
        optimizer.zero_grad()
        loss.backward()
        if training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
        optimizer.step()
        decay.step()


def accuracy_by_labels(
    strategy: Strategy,
    first: Tensor,
    pool: Codes,
    test: Codes,
    settings: ActiveSettings,
    generator: torch.Generator,
) -> list[float]:
    """Return the test accuracy at every number of labels, from the first labels on."""
    n_classes = int(pool.labels.max()) + 1
    chosen = first
    accuracies = []
    while True:
        labels = pool.labels[chosen]
        mixture = fit_few(pool.states[chosen], labels, pool.states, n_classes)
        found = mixture.log_joint(test.states).argmax(1)
        accuracies.append(float((found == test.labels).double().mean()))
        if len(chosen) >= settings.n_labels:
            return accuracies
        free = torch.ones(len(pool.states), dtype=torch.bool)
        free[chosen] = False
        rest = free.nonzero()[:, 0]
        counts = torch.bincount(labels, minlength=n_classes)
        probabilities = _posterior(strategy, mixture, counts, pool.states[rest], generator)
        n = min(settings.n_query, settings.n_labels - len(chosen))
        rates = [0.0] * n
        if strategy.explores:
            rates = exploration_rates(n, len(chosen) - len(first), **EXPLORATION)
        scores = ACQUISITIONS[strategy.score](probabilities, generator)
        picks = select(scores, pool.states[rest], rates, generator, diversity=strategy.diversity)
        chosen = torch.cat([chosen, rest[picks]])


def _posterior(
    strategy: Strategy, mixture: Mixture, counts: Tensor, states: Tensor, generator: torch.Generator
) -> Tensor:
    """Return probabilities of the classes [draw, image, class]."""
    mixtures = [mixture]
    if strategy.score == "mutual_information":
        mixtures = drawn_means(mixture, counts, DRAWS, generator)
    return torch.stack([torch.softmax(m.log_joint(states), 1) for m in mixtures])


def first_labels(labels: Tensor, n_each: int, generator: torch.Generator) -> Tensor:
    """Return the indices of n images of every class, drawn at random."""
    order = torch.randperm(len(labels), generator=generator)
    picks = [order[labels[order] == c][:n_each] for c in range(int(labels.max()) + 1)]
    return torch.cat(picks)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "matrices", "images"],
        outputs=["active"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "query")
    set_threads()
    active = settings.active
    generators = Generators(settings.seed, torch.device("cpu"))
    model = build_model(arguments.specification, arguments.matrices)
    pool_images = load_images(arguments.images, "train", active.n_pool)
    test_images = load_images(arguments.images, "test", N_TEST)
    learn_without_labels(model, pool_images, settings.training, active, generators)
    model.eval()
    pool, test = (_codes(model, images) for images in (pool_images, test_images))
    arrays: dict[str, Any] = {}
    for name, strategy in STRATEGIES.items():
        curves = []
        for repeat in range(active.n_repeats):
            first = first_labels(
                pool.labels, active.n_initial, generators.on_cpu(f"first {repeat}")
            )
            generator = generators.on_cpu(f"{name} {repeat}")
            curves.append(accuracy_by_labels(strategy, first, pool, test, active, generator))
        arrays[f"accuracy/{name}"] = np.array(curves)
        print(f"{name}: accuracy {np.mean(curves, 0)[-1]:.4f} at {active.n_labels} labels")
    everything = fit_few(pool.states, pool.labels, pool.states, int(pool.labels.max()) + 1)
    found = everything.log_joint(test.states).argmax(1)
    arrays["all_labels_accuracy"] = float((found == test.labels).double().mean())
    n_first = len(first)
    given = [*range(n_first, active.n_labels, active.n_query), active.n_labels]
    arrays["labels_given"] = np.array(given)
    units = {name: "labels" if name == "labels_given" else "1" for name in arrays}
    origin = provenance(settings.sections_of("query"), seed=settings.seed)
    write_h5(arguments.active, arrays, units=units, attributes=origin)


@torch.no_grad()
def _codes(model: HierarchicalModel, images: LabelledImages) -> Codes:
    x, labels = images.batch(torch.arange(len(images)))
    return Codes(model.recognize(x)[-1].double(), labels)


if __name__ == "__main__":
    run_stage(main)
