"""Let the discrete model learn from images one by one: structure in, history and counts out.

It starts from its exemplars and learns the other training images in their order, once. History:
`eval` holds, at numbers of images learned (`step`), the accuracy on the official test images, on
the validation images, and, if the official training set was taken in its order, on the slice of a
thousand images behind those that were learned; also the accuracy on the half of the test images
that it is surest of, and the mean log evidence. `train` holds means over the images since the row
before: gates of the levels and of the classes, log evidence; and the mutual information that the
mappings of each then hold. Beside the outputs stands `checkpoint.pt` while the run goes on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strata.artifacts import fingerprint, provenance, write_h5
from strata.checkpoints import Checkpoint
from strata.config import read_settings
from strata.devices import set_threads
from strata.errors import Interrupted
from strata.history import History
from strata.interruptions import stop_signals
from strata.reporting import Reporter
from strata.rgm.config import N_TEST, RunSettings
from strata.rgm.discrete_settings import N_SLICE
from strata.rgm.spm.confidence import confident_accuracy, margins
from strata.rgm.spm.counts import Counts
from strata.rgm.spm.files import (
    Digits,
    counted,
    following_images,
    other_images,
    read_structure,
    training_images,
)
from strata.rgm.spm.learning import SETTLE_EVERY, CountLearner
from strata.rgm.spm.messages import Scheme, infer
from strata.rgm.spm.specification import read_discrete_specification
from strata.stages import run_stage, stage_arguments

RECORD_EVERY = 100  # divides SETTLE_EVERY: what is not recorded yet is not saved
UNITS = {
    "step": "images",
    **dict.fromkeys(("accuracy", "accuracy_validation", "accuracy_slice"), "1"),
    **{"accuracy_confident_half": "1", "gate": "1"},
    **{"log_evidence": "nats", "mutual_information": "nats"},
}
"""Units of the history's quantities."""


class Run:
    """A pass over the images: what was learned so far, and what was recorded."""

    def __init__(
        self,
        counts: Counts,
        settings: RunSettings,
        tests: Mapping[str, Digits],
        history: History,
        checkpoint: Checkpoint,
    ) -> None:
        self.settings, self.tests = settings.counting, tests
        self.history, self.checkpoint = history, checkpoint
        self.counts, self.step, self._saved_step = counts, 0, 0
        self._pending: list[tuple[np.ndarray, float]] = []
        saved = checkpoint.load()
        if saved is not None:
            self.step = self._saved_step = int(saved["step"])
            arrays = {name: part.numpy() for name, part in saved["counts"].items()}
            self.counts = Counts.from_arrays(counts.hierarchy, arrays)
            history.restore(
                {
                    phase: {name: column.numpy() for name, column in table.items()}
                    for phase, table in saved["history"].items()
                }
            )
            print(f"resuming from image {self.step}", flush=True)
        self.learner = CountLearner(self.counts, self.settings, self.step)

    def learn(self, digits: Digits) -> None:
        """Learn all images that were not learned yet; save where the counts are settled.

        Raises:
            Interrupted: a signal asked to stop.
        """
        n = len(digits.labels)
        due = {step for step in self.settings.evaluate_at if step < n} | {n}
        reporter = Reporter(n, self.step, torch.device("cpu"))
        if self.step == 0 and 0 in due:
            self._evaluate(reporter)
        with stop_signals() as stop, reporter:
            while self.step < n:
                learned = self.learner.learn(
                    digits.outcomes[self.step], int(digits.labels[self.step])
                )
                self._pending.append((learned.gates, learned.log_evidence))
                self.step += 1
                reporter.advance(self.step)
                if self.step % RECORD_EVERY == 0 or self.step == n:
                    self._record()
                if self.step in due:
                    self._evaluate(reporter)
                if self.step % SETTLE_EVERY == 0 and self.step < n:
                    self._save()
                if stop:
                    raise Interrupted(
                        f"stopped by {stop[0]} at image {self.step}; the same command goes on from "
                        f"image {self._saved_step}."
                    )

    def _record(self) -> None:
        gates = np.array([gate for gate, _ in self._pending])
        evidence = np.array([value for _, value in self._pending])
        n_mappings = len(gates[0])
        information = [self.counts.mutual_information(i).mean() for i in range(n_mappings)]
        self.history.append(
            "train",
            {
                "step": np.array([self.step]),
                "gate": gates.mean(0)[None],
                "log_evidence": evidence.mean()[None],
                "mutual_information": np.array([information]),
            },
        )
        self._pending = []

    def _evaluate(self, reporter: Reporter) -> None:
        row = evaluated(self.counts, self.settings.messages, self.tests)
        self.history.append(
            "eval",
            {"step": np.array([self.step]), **{name: np.array([v]) for name, v in row.items()}},
        )
        reporter.line(self.step, row)

    def _save(self) -> None:
        """Save the counts, which are settled now: from the saved ones all follows as from these."""
        self._saved_step = self.step
        self.history.mirror()
        tensors = {name: torch.from_numpy(part) for name, part in self.counts.arrays().items()}
        self.checkpoint.save(
            {
                "step": self.step,
                "counts": tensors,
                "history": {
                    phase: {name: torch.from_numpy(column) for name, column in table.items()}
                    for phase, table in self.history.tables().items()
                },
            }
        )


def evaluated(counts: Counts, messages: Scheme, tests: Mapping[str, Digits]) -> dict[str, float]:
    """Return how well images are recognized; `tests` go by the names of the accuracies."""
    likelihoods = counts.likelihoods()
    found: dict[str, float] = {}
    for name, digits in tests.items():
        beliefs = infer(likelihoods, digits.outcomes, messages=messages)
        right = beliefs.log_classes.argmax(1) == digits.labels
        found[name] = float(right.mean())
        if name == "accuracy":
            confident, _ = confident_accuracy(margins(beliefs.log_classes), right)
            found["accuracy_confident_half"] = confident
            found["log_evidence"] = float(beliefs.log_evidence.mean())
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "structure", "images"],
        outputs=["history", "counts"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_train")
    set_threads()
    specification = read_discrete_specification([arguments.specification])
    front_end, exemplars = read_structure(arguments.structure, settings, specification)
    images, labels = training_images(arguments.images, settings.data)
    later = np.setdiff1d(np.arange(len(labels)), exemplars.index)
    digits = Digits.of(images[later], labels[later], front_end, specification)
    tests = {
        name: Digits.of(*part, front_end, specification)
        for name, part in _parts(arguments.images, settings).items()
    }
    counting = settings.counting
    counts = Counts.start(
        exemplars.structure(front_end), counting.concentration, counting.class_concentration
    )
    inputs = [arguments.specification, arguments.structure, arguments.images]
    checkpoint = Checkpoint(
        arguments.counts.with_name("checkpoint.pt"),
        fingerprint(settings.sections_of("spm_train"), *inputs),
    )
    history = History(arguments.history, UNITS)
    with checkpoint.locked():
        run = Run(counts, settings, tests, history, checkpoint)
        run.learn(digits)
        run.counts.settle()
        origin = provenance(settings.sections_of("spm_train"), seed=settings.seed)
        history.finish(origin)
        arrays: dict[str, Any] = counted(front_end, exemplars, run.counts)
        write_h5(arguments.counts, arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)
        checkpoint.delete()


def _parts(path: Path, settings: RunSettings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images that the model is tested on, by the name of the accuracy."""
    parts = {"accuracy": other_images(path, "test", N_TEST)}
    if settings.data.part == "train":
        n = settings.data.n_validation
        parts["accuracy_validation"] = other_images(path, "validation", n)
    else:
        slice_ = following_images(path, settings.data, N_SLICE)
        if len(slice_[1]) == N_SLICE:
            parts["accuracy_slice"] = slice_
    return parts


if __name__ == "__main__":
    run_stage(main)
