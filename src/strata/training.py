"""Training: one loop for every family, which can be killed anywhere and knows no physics.

`fit` takes a `strata.learner.Learner` and gives back the best and the last weights. Conventions:
step `n` in a history is the n-th update, counted from 1; an evaluation at step `n` sees the weights
after `n` updates. On the CPU a run that was killed and resumed ends bit-identical to one that was
not.
"""

import contextlib
import copy
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from strata.artifacts import fingerprint, provenance
from strata.averaging import WeightAverage
from strata.checkpoints import Checkpoint, RunFiles, copied, save_tensors
from strata.descent import Descent, adam
from strata.errors import Interrupted, UserError
from strata.heartbeat import Pulse
from strata.history import History
from strata.interruptions import stop_signals
from strata.learner import Learner, UpdatingLearner
from strata.memory import memory_held, resident_memory
from strata.parallel import ALONE, Group
from strata.progress import Progress
from strata.randomness import Generators
from strata.recording import PendingRows, rows_up_to
from strata.reporting import Reporter
from strata.schedules import Schedule
from strata.training_settings import TrainingSettings

MAX_SETBACKS = 3


def train_to_files(
    learner: Learner,
    settings: TrainingSettings,
    files: RunFiles,
    *,
    settings_json: str,
    generators: Generators,
    monitor: str,
    inputs: Sequence[Path] = (),
    made_of: Mapping[str, str] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    group: Group = ALONE,
) -> None:
    """Train, write `history.h5` and `model.pt`, then drop the checkpoint.

    `model.pt` holds, of the best evaluation: the weights (`best`), the state of the optimizer and
    of the schedule (`best_optimizer`, `best_schedule`), the metrics (`best_metrics`), the step
    (`best_step`) and the evaluations until then (`best_history`; the loss of every recorded step
    stands in `history.h5`); of the end: the weights (`last`), `last_step` and `setbacks`; and the
    provenance, all settings included. With `ema_decay`, `best` and `last` are averages. With
    `schedule: plateau` the evaluations in `history.h5` say the learning rate from there on.

    Args:
        settings_json: canonical JSON of all settings that the run depends on; with another text
            (another learning rate, say) an old checkpoint is not resumed.
        inputs: files that the run depends on, likewise.
        made_of: further entries of the provenance.
        optimizer: by default Adam; its learning rate is set at every step.
        monitor: the evaluated metric whose smallest value marks the best weights, and whose rest
            ends the run (`patience`) or lowers the learning rate (`schedule: plateau`).
        group: the processes that share the learner's batches, this one among them; all call this.

    Raises:
        UserError: the loss does not stay finite; the checkpoint is damaged or in use.
        Interrupted: stopped by a signal or at the memory limit; everything is saved.
    """
    checkpoint = Checkpoint(
        files.checkpoint, fingerprint(settings_json, *inputs), writes=group.leads
    )
    units = {"loss": "1", "gradient_norm": "1", "learning_rate": "1", **learner.units}
    history = History(files.history, units, writes=group.leads)
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
            group=group,
        )
        if not math.isfinite(progress.best_value) and not isinstance(learner, UpdatingLearner):
            raise UserError(
                f"{monitor} was not finite in any evaluation; lower the learning "
                f"rate ({settings.lr:g}) or clip the gradient's norm."
            )
        if not group.leads:
            return
        origin = {
            **provenance(settings_json, seed=generators.seed, device=device),
            **(made_of or {}),
        }
        history.finish(origin)
        save_tensors(
            files.model,
            {
                **progress.best,
                "best_step": progress.best_step,
                "best_history": rows_up_to(progress.best_step, history["eval"]),
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
    group: Group = ALONE,
) -> Progress:
    """Minimise the learner's loss; see `train_to_files` for the arguments and errors.

    With `ema_decay`, the module has the averaged weights in the end.
    """
    optimizer = optimizer or adam(learner.module, settings)
    run = _Run(learner, settings, checkpoint, history, generators, monitor, optimizer, group)
    run.resume()
    reporter = Reporter(settings.steps, run.progress.step, generators.device, shown=group.leads)
    with stop_signals() as stop, reporter as report, run.saying_where():
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
            reason = run.reason_to_stop(stop)
            if evaluation_due and not reason:
                reason = run.memory_reason()
            if reason:
                run.save() if run.is_finite() else run.step_back()
                raise Interrupted(
                    f"stopped {reason} after saving step {run.progress.step} in "
                    f"{checkpoint.path}; the same command goes on from there."
                )
    run.average.settle()
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
    group: Group
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.settings)
        self.descent = Descent(
            self.learner, self.settings, self.optimizer, self.generators.device, self.group
        )
        self._updates = isinstance(self.learner, UpdatingLearner)
        if self._updates and self.settings.ema_decay is not None:
            raise UserError(
                "training.ema_decay: this family takes its steps by itself and does not average "
                "weights; set it to null."
            )
        self.average = WeightAverage(self.descent.parameters, self.settings.ema_decay)
        self._rows = PendingRows(self.settings.record_every)
        self._doing, self._saved_step = "", 0
        self._pulse = Pulse(self.settings, str(self.generators.device))

    def is_complete(self) -> bool:
        """Whether all steps are done, or patience is over."""
        return self.progress.step >= self.settings.steps or self.progress.is_out_of_patience

    def is_due(self, every: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens now."""
        return self.progress.step % every == 0 or self.progress.step >= self.settings.steps

    def update(self) -> None:
        """One step of the optimizer."""
        self._doing = f"step {self.progress.step + 1}"
        learning_rate = self._learning_rate()
        if self._updates:
            learner = cast(UpdatingLearner, self.learner)
            row = dict(learner.update(self.progress.step, learning_rate))
        else:
            row = self.descent.step(self.progress.step, learning_rate)
        self.progress.step += 1
        self.average.update(self.progress.step)
        self._snapshot_if_due()
        self._rows.note(self.progress.step, row, learning_rate)

    def _snapshot_if_due(self) -> None:
        """Keep a snapshot of the first step and of every so many."""
        every, step = self.settings.snapshot_every, self.progress.step
        if every is None or (step > 1 and step % every):
            return
        with self.average.in_place():
            parts = copied(self.learner.snapshot())
        if parts:
            rows = {name: part.numpy()[None] for name, part in parts.items()}
            self.history.append("snapshots", {"step": np.array([step]), **rows})

    def _learning_rate(self) -> float:
        return self.schedule.learning_rate(self.progress.step, self.progress.setbacks)

    def evaluate(self) -> dict[str, float]:
        """Evaluate, record, and keep a copy of the weights if they are the best so far."""
        self._doing = f"the evaluation at step {self.progress.step}"
        with self.average.in_place():
            return self._evaluate()

    def _evaluate(self) -> dict[str, float]:
        found = {
            name: value.detach().to("cpu", torch.float64, copy=True)
            for name, value in self.learner.evaluate().items()
        }
        metrics = {name: value.item() for name, value in found.items() if not value.ndim}
        if self.schedule.observe(metrics[self.monitor]):
            print(
                f"step {self.progress.step}: {self.monitor} no longer improves: learning rate "
                f"{self._learning_rate():g}",
                flush=True,
            )
        row = {name: value.numpy()[None] for name, value in found.items()}
        self.history.append("eval", {"step": np.array([self.progress.step]), **row})
        if self.progress.judge(metrics[self.monitor], self.settings):
            self.progress.best = copied(
                {
                    "best": self.learner.module.state_dict(),
                    "best_optimizer": self.optimizer.state_dict(),
                    "best_schedule": self.schedule.state_dict(),
                    "best_metrics": metrics,
                }
            )
        if self._updates and cast(UpdatingLearner, self.learner).is_finished(found):
            self.progress.is_out_of_patience = True  # as patience does, this ends the run
        return metrics

    def is_finite(self) -> bool:
        """Whether every loss and gradient since the last check was finite."""
        return self.descent.watch.is_finite()

    def reason_to_stop(self, received: Sequence[str]) -> str | None:
        """Return which signal asks all processes of the group to stop, if one of them has it."""
        number = self.group.largest(float(signal.Signals[received[0]]) if received else 0.0)
        return f"by {signal.Signals(int(number)).name}" if number else None

    def memory_reason(self) -> str | None:
        """Return why a run that is not complete has to stop, if a process holds too much memory."""
        limit = self.settings.memory_limit
        if limit is None or self.is_complete():
            return None
        held = self.group.largest(resident_memory())
        if held <= limit:
            return None
        return f"at {math.ceil(held)} MiB of memory (training.memory_limit is {limit} MiB)"

    @contextlib.contextmanager
    def saying_where(self) -> Iterator[None]:
        """Add to an error of any kind at what step it came, and where the run can go on."""
        try:
            yield
        except (UserError, Interrupted):
            raise
        except Exception as error:
            error.add_note(
                f"This happened in {self._doing} of the training. Step {self._saved_step} is saved "
                f"in {self.checkpoint.path}; the same command goes on from there."
            )
            raise

    def save(self) -> None:
        """Write a checkpoint, and what is new of the history to the live file."""
        self._doing = f"saving step {self.progress.step}"
        self._rows.flush(self.history, self.progress.step)
        self._mirror()
        tables = self.history.tables()
        self.checkpoint.save(
            {
                "progress": dict(vars(self.progress)),
                "module": self.learner.module.state_dict(),
                "learner": self.learner.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "device": self.generators.device.type,
                "generators": self.generators.state_dict(),
                "history": {
                    phase: {name: torch.from_numpy(column) for name, column in table.items()}
                    for phase, table in tables.items()
                },
            }
        )
        self._saved_step = self.progress.step
        self.group.wait()  # so that none reads or leaves before all is written

    def _mirror(self) -> None:
        held = memory_held(self.generators.device)
        self.history.mirror(self._pulse.at(self.progress.step, *held))

    def resume(self) -> None:
        """Go on from the checkpoint if there is one of this run; else save the starting point."""
        state = self.checkpoint.load()
        self.group.wait()  # so that all have seen the same file
        if state is None:
            self.history.restore({})
            self.save()
            return
        self._restore(state)
        self._mirror()
        print(f"resuming from step {self.progress.step} of {self.checkpoint.path}", flush=True)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.progress = Progress(**copy.deepcopy(state["progress"]))
        self.learner.module.load_state_dict(state["module"])
        self.learner.load_state_dict(state["learner"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._restore_generators(state)
        self.history.restore(
            {
                phase: {name: column.numpy() for name, column in table.items()}
                for phase, table in state["history"].items()
            }
        )
        self._rows.forget()
        self.descent.watch.reset()
        self._saved_step = self.progress.step

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
        where = (
            f"the loss or its gradient was not finite by step {self.progress.step} "
            f"({self.descent.watch.first()})"
        )
        setbacks = self.progress.setbacks + 1
        if self.settings.on_nonfinite == "stop" or setbacks > MAX_SETBACKS:
            again = f" again after {MAX_SETBACKS} returns to a checkpoint" if setbacks > 1 else ""
            raise UserError(
                f"{where}{again}; lower the learning rate "
                f"({self.settings.lr:g}) or clip the gradient's norm."
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
