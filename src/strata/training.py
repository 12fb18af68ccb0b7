"""Training: one loop for every family, which can be killed anywhere and knows no physics.

`fit` takes a `Learner` (something with a module, a loss per step and whatever else evolves with
it), and gives back the best and the last weights. Conventions: step `n` in a history is the n-th
update, counted from 1; an evaluation at step `n` sees the weights after `n` updates. On the CPU a
run that was killed and resumed ends bit-identical to one that was not.
"""

import contextlib
import copy
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from strata.artifacts import fingerprint, provenance
from strata.checkpoints import Checkpoint, save_tensors
from strata.config import TrainingSettings
from strata.errors import Interrupted, UserError
from strata.history import History
from strata.randomness import Generators
from strata.reporting import Reporter

MAX_SETBACKS = 3
SETBACK_LR_FACTOR = 0.5


@runtime_checkable
class Learner(Protocol):
    """What `fit` trains.

    `state_dict` holds what evolves beside the module's weights (chains, buffers); it may be empty.
    """

    @property
    def module(self) -> nn.Module:
        """What has the weights."""
        ...

    @property
    def units(self) -> Mapping[str, str]:
        """Unit of every metric."""
        ...

    def training_step(self, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss (a scalar with a graph) and metrics (detached scalars)."""
        ...

    def evaluate(self) -> Mapping[str, Tensor]:
        """Return metrics of the present weights (detached scalars)."""
        ...

    def snapshot(self) -> Mapping[str, Tensor]:
        """Return tensors to look at later, of one shape each time; may be empty."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that go into the checkpoint."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


@dataclass
class Progress:
    """Where a run stands; all of it goes into the checkpoint."""

    step: int = 0
    setbacks: int = 0
    evaluations_since_best: int = 0
    best_step: int = 0
    best_value: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFiles:
    """The files of a run: the checkpoint while it lasts, the model and the history at the end."""

    model: Path
    history: Path

    @property
    def checkpoint(self) -> Path:
        """The undeclared file beside the model."""
        return self.model.with_name("checkpoint.pt")


def train_to_files(
    learner: Learner,
    settings: TrainingSettings,
    files: RunFiles,
    *,
    settings_json: str,
    generators: Generators,
    monitor: str,
    inputs: Sequence[Path] = (),
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Train, write `history.h5` and `model.pt`, then drop the checkpoint.

    Args:
        settings_json: canonical JSON of all settings that the run depends on; with another text
            (another learning rate, say) an old checkpoint is not resumed.
        inputs: files that the run depends on, likewise.
        optimizer: by default Adam; its learning rate is set at every step.
        monitor: the evaluated metric whose smallest value marks the best weights.

    Raises:
        UserError: the loss does not stay finite; the checkpoint is damaged or in use.
        Interrupted: stopped by a signal; everything is saved.
    """
    checkpoint = Checkpoint(files.checkpoint, fingerprint(settings_json, *inputs))
    history = History(files.history, {"loss": "1", "gradient_norm": "1", **learner.units})
    device = str(generators.device)
    with checkpoint.locked():
        progress = fit(
            learner,
            settings,
            checkpoint=checkpoint,
            history=history,
            generators=generators,
            monitor=monitor,
            optimizer=optimizer,
        )
        if not math.isfinite(progress.best_value):
            raise UserError(
                f"{monitor} was not finite in any evaluation; lower training.lr ({settings.lr:g}) "
                "or set training.clip_norm."
            )
        origin = provenance(settings_json, seed=generators.seed, device=device)
        history.finish(origin)
        save_tensors(
            files.model,
            {
                "best": progress.best_weights,
                "best_step": progress.best_step,
                "last": learner.module.state_dict(),
                "last_step": progress.step,
                "setbacks": progress.setbacks,
                **origin,
            },
        )
        checkpoint.delete()


def fit(
    learner: Learner,
    settings: TrainingSettings,
    *,
    checkpoint: Checkpoint,
    history: History,
    generators: Generators,
    monitor: str,
    optimizer: torch.optim.Optimizer | None = None,
) -> Progress:
    """Minimise the learner's loss; see `train_to_files` for the arguments and errors."""
    optimizer = optimizer or torch.optim.Adam(
        learner.module.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    run = _Run(learner, settings, checkpoint, history, generators, monitor, optimizer)
    run.resume()
    with _stop_signals() as stop, Reporter(settings.steps, run.progress.step) as report:
        while not run.is_complete():
            run.update()
            report.advance(run.progress.step)
            evaluation_due = run.is_due(settings.evaluate_every)
            if (evaluation_due or run.is_due(settings.checkpoint_every)) and not run.is_finite():
                run.step_back()
                continue
            if evaluation_due:
                report.line(run.progress.step, run.evaluate())
            if run.is_due(settings.checkpoint_every) or run.is_complete():
                run.save()
            if stop:
                run.save() if run.is_finite() else run.step_back()
                raise Interrupted(
                    f"stopped by {stop[0]} after saving step {run.progress.step} in "
                    f"{checkpoint.path}; the same command goes on from there."
                )
    return run.progress


@dataclass
class _Run:
    """The moving parts of one `fit`."""

    learner: Learner
    settings: TrainingSettings
    checkpoint: Checkpoint
    history: History
    generators: Generators
    monitor: str
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.parameters = [p for p in self.learner.module.parameters() if p.requires_grad]
        self._rows: list[dict[str, Tensor]] = []
        # NaN once anything was not finite
        self._health = torch.zeros((), device=self.generators.device)

    def is_complete(self) -> bool:
        """Whether all steps are done, or patience is over."""
        patience = self.settings.patience
        waited = self.progress.evaluations_since_best
        return self.progress.step >= self.settings.steps or (
            patience is not None and waited >= patience
        )

    def is_due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.progress.step % every == 0 or self.progress.step >= self.settings.steps

    def update(self) -> None:
        """One step of the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        loss, metrics = self.learner.training_step(self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.settings.clip_norm, norm)
        self.optimizer.step()
        self.progress.step += 1
        self._snapshot_if_due()
        loss = loss.detach()
        self._health = self._health + 0.0 * (loss + norm)
        if self.progress.step % self.settings.record_every == 0:
            self._rows.append({"loss": loss, "gradient_norm": norm, **metrics})

    def _snapshot_if_due(self) -> None:
        """Keep a snapshot of the first step and of every so many."""
        every, step = self.settings.snapshot_every, self.progress.step
        if every is None or (step > 1 and step % every):
            return
        parts = self.learner.snapshot()
        if parts:
            rows = {name: part.numpy()[None] for name, part in _copied(parts).items()}
            self.history.append("snapshots", {"step": np.array([step]), **rows})

    def _learning_rate(self) -> float:
        factor = SETBACK_LR_FACTOR**self.progress.setbacks
        if self.settings.schedule == "cosine":
            fraction = self.progress.step / self.settings.steps
            factor *= 0.5 * (1.0 + math.cos(math.pi * fraction))
        return self.settings.lr * factor

    def evaluate(self) -> dict[str, float]:
        """Evaluate, record, and keep a copy of the weights if they are the best so far."""
        metrics = {name: value.item() for name, value in self.learner.evaluate().items()}
        step = np.array([self.progress.step])
        self.history.append(
            "eval", {"step": step, **{k: np.array([v]) for k, v in metrics.items()}}
        )
        self.progress.evaluations_since_best += 1
        value = metrics[self.monitor]
        if value < self.progress.best_value or not self.progress.best_weights:
            self.progress.evaluations_since_best = 0
            self.progress.best_value = math.inf if math.isnan(value) else value
            self.progress.best_step = self.progress.step
            self.progress.best_weights = _copied(self.learner.module.state_dict())
        return metrics

    def is_finite(self) -> bool:
        """Whether every loss and gradient since the last check was finite."""
        return bool(torch.isfinite(self._health))

    def _flush_rows(self) -> None:
        if not self._rows:
            return
        names = list(self._rows[0])
        table = torch.stack([torch.stack([row[name] for name in names]) for row in self._rows])
        columns = table.to("cpu", torch.float64).numpy()
        every, last = self.settings.record_every, self.progress.step // self.settings.record_every
        steps = every * np.arange(last - len(self._rows) + 1, last + 1)
        rows = {name: columns[:, i] for i, name in enumerate(names)}
        self.history.append("train", {"step": steps, **rows})
        self._rows.clear()

    def save(self) -> None:
        """Write a checkpoint, and what is new of the history to the live file."""
        self._flush_rows()
        self.history.mirror()
        tables = self.history.tables()
        self.checkpoint.save(
            {
                "progress": dict(vars(self.progress)),
                "module": self.learner.module.state_dict(),
                "learner": self.learner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "device": self.generators.device.type,
                "generators": self.generators.state_dict(),
                "history": {
                    phase: {name: torch.from_numpy(column) for name, column in table.items()}
                    for phase, table in tables.items()
                },
            }
        )

    def resume(self) -> None:
        """Go on from the checkpoint if there is one of this run; else save the starting point."""
        state = self.checkpoint.load()
        if state is None:
            self.history.restore({})
            self.save()
            return
        self._restore(state)
        print(f"resuming from step {self.progress.step} of {self.checkpoint.path}", flush=True)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.progress = Progress(**copy.deepcopy(state["progress"]))
        self.learner.module.load_state_dict(state["module"])
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._restore_generators(state)
        self.history.restore(
            {
                phase: {name: column.numpy() for name, column in table.items()}
                for phase, table in state["history"].items()
            }
        )
        self._rows.clear()
        self._health = torch.zeros_like(self._health)

    def _restore_generators(self, state: Mapping[str, Any]) -> None:
        here = self.generators.device.type
        if state["device"] == here:
            self.generators.load_state_dict(state["generators"])
            return
        print(
            f"{self.checkpoint.path} was written on {state['device']}: the run goes on here, on "
            f"{here}, but its random numbers start afresh.",
            flush=True,
        )

    def step_back(self) -> None:
        """Return to the last good checkpoint with a smaller learning rate, at most three times."""
        where = f"the loss or its gradient was not finite by step {self.progress.step}"
        setbacks = self.progress.setbacks + 1
        if self.settings.on_nonfinite == "stop" or setbacks > MAX_SETBACKS:
            again = f" again after {MAX_SETBACKS} returns to a checkpoint" if setbacks > 1 else ""
            raise UserError(
                f"{where}{again}; lower training.lr ({self.settings.lr:g}) or set "
                "training.clip_norm."
            )
        state = self.checkpoint.load()
        if state is None:
            raise UserError(f"{where}, and the checkpoint to return to is gone.")
        self._restore(state)
        self.progress.setbacks = setbacks
        print(
            f"{where}: back to step {self.progress.step} with learning rate "
            f"{self._learning_rate():g}",
            flush=True,
        )
        self.save()


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Give a list that holds the name of the signal that asked to stop, once one did."""
    received: list[str] = []

    def note(number: int, _frame: object) -> None:
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
