"""Let the discrete model ask for the images that it learns, against learning them at random.

Every strategy starts from the same few exemplars of every class, drawn from the first images of the
pool, and then learns a few images at a time: those that score highest among some that are drawn
anew from the pool each time. All are compared at equal numbers of labelled images. Accuracies are
of the official test images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.rgm.config import N_CLASSES, N_TEST, RunSettings
from strata.rgm.spm import selection
from strata.rgm.spm.counts import Counts
from strata.rgm.spm.exemplars import choose
from strata.rgm.spm.files import (
    Digits,
    Exemplars,
    other_images,
    read_structure,
    refuse_rare_classes,
    training_images,
)
from strata.rgm.spm.front_end import FrontEnd
from strata.rgm.spm.hierarchy import Likelihoods
from strata.rgm.spm.learning import CountLearner
from strata.rgm.spm.messages import Scheme, infer
from strata.rgm.spm.selection import SCORES, Pool
from strata.rgm.spm.specification import read_discrete_specification
from strata.stages import run_stage, stage_arguments

N_LOOKED_AT = 300


def accuracy(likelihoods: Likelihoods, digits: Digits, messages: Scheme) -> float:
    """Return the share of images that are recognized."""
    beliefs = infer(likelihoods, digits.outcomes, messages=messages)
    return float((beliefs.log_classes.argmax(1) == digits.labels).mean())


def beginner(
    first: np.ndarray, pool: Digits, front_end: FrontEnd, settings: RunSettings
) -> CountLearner:
    """Return a learner that knows some images of the pool as its exemplars."""
    exemplars = Exemplars(first, pool.labels[first], pool.outcomes[first])
    counting = settings.counting
    counts = Counts.start(
        exemplars.structure(front_end), counting.concentration, counting.class_concentration
    )
    return CountLearner(counts, counting)


def accuracy_by_labels(
    strategy: str,
    learner: CountLearner,
    first: np.ndarray,
    pool: Digits,
    test: Digits,
    settings: RunSettings,
    rng: np.random.Generator,
) -> list[float]:
    """Return the test accuracy at every number of labels, from the exemplars on."""
    active = settings.active
    free = np.ones(len(pool.labels), dtype=bool)
    free[first] = False
    n_given, accuracies = len(first), []
    messages = learner.settings.messages
    while True:
        likelihoods = learner.counts.likelihoods()
        accuracies.append(accuracy(likelihoods, test, messages))
        if n_given >= active.n_labels:
            return accuracies
        rest = np.flatnonzero(free)
        looked_at = rng.choice(rest, min(N_LOOKED_AT, len(rest)), replace=False)
        outcomes = pool.outcomes[looked_at]
        unlabelled = Pool(outcomes, infer(likelihoods, outcomes, messages=messages), learner)
        n = min(active.n_query, active.n_labels - n_given, len(looked_at))
        picks = looked_at[selection.choose(SCORES[strategy](unlabelled, rng), n)]
        for pick in picks:
            learner.learn(pool.outcomes[pick], int(pool.labels[pick]))
        free[picks] = False
        n_given += n


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "specification", "structure", "images"], outputs=["active"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_query")
    set_threads()
    active = settings.active
    specification = read_discrete_specification([arguments.specification])
    front_end, _ = read_structure(arguments.structure, settings, specification)

    images, labels = training_images(arguments.images, settings.data)
    images, labels = images[: active.n_pool], labels[: active.n_pool]
    pool = Digits.of(images, labels, front_end, specification)
    test = Digits.of(*other_images(arguments.images, "test", N_TEST), front_end, specification)
    refuse_rare_classes(pool.labels, active.n_initial, "active.n_initial", "the pool")
    firsts = [
        choose(pool.outcomes, pool.labels, active.n_initial, "random", _generator(settings, 0, r))
        for r in range(active.n_repeats)
    ]
    arrays: dict[str, Any] = {}
    for number, strategy in enumerate(SCORES):
        curves = []
        for repeat, first in enumerate(firsts):
            learner = beginner(first, pool, front_end, settings)
            rng = _generator(settings, 1 + number, repeat)
            curves.append(accuracy_by_labels(strategy, learner, first, pool, test, settings, rng))
        arrays[f"accuracy/{strategy}"] = np.array(curves)
        print(
            f"{strategy}: accuracy {np.mean(curves, 0)[-1]:.4f} at {active.n_labels} labels",
            flush=True,
        )
    arrays["all_labels_accuracy"] = _of_all(firsts[0], pool, test, front_end, settings)
    n_first = N_CLASSES * active.n_initial
    arrays["labels_given"] = np.array(
        [*range(n_first, active.n_labels, active.n_query), active.n_labels]
    )
    units = {name: "labels" if name == "labels_given" else "1" for name in arrays}
    origin = provenance(settings.sections_of("spm_query"), seed=settings.seed)
    write_h5(arguments.active, arrays, units=units, attributes=origin)


def _generator(settings: RunSettings, *stream: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, 3, *stream])


def _of_all(
    first: np.ndarray, pool: Digits, test: Digits, front_end: FrontEnd, settings: RunSettings
) -> float:
    """Return the accuracy after every image of the pool, in its order."""
    learner = beginner(first, pool, front_end, settings)
    for index in np.setdiff1d(np.arange(len(pool.labels)), first):
        learner.learn(pool.outcomes[index], int(pool.labels[index]))
    return accuracy(learner.counts.likelihoods(), test, learner.settings.messages)


if __name__ == "__main__":
    run_stage(main)
