"""Time training steps of neural_rg that 1, 2, ... devices share, and compare their losses.

*Strong* scaling keeps the batch of the experiment and shares it; *weak* scaling gives every device
a batch of that size. A step is what `strata.training` does at each: `FlowLearner`'s loss and
gradient, their average over the devices, clipping, Adam, and the question whether to stop. Exact
fields are of spins drawn at random instead of an Ising model's, which costs the same. The devices
learn from the same random numbers, so at one batch their losses are those of one device but for
rounding, which training amplifies: the table holds the loss of the first step and of the last, and
the largest relative difference from one device's.

Run `python benchmarks/data_parallel.py --device cuda --devices 1,2 --csv scaling.csv`. It tries
itself on a CPU with `--device cpu --length 8 --batch 32 --steps 6`. It writes a Markdown table to
standard output and the same rows with `--csv`. Milliseconds are wall time with synchronization, the
median of the steps after a warm-up, in which the replay buffer is filled and the step is captured
as a CUDA graph; devices are those of one machine, and each number of them is started anew by
`strata.launching`.
"""

import argparse
import contextlib
import csv
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from writing import Written, machine

from strata.config import parse
from strata.descent import Descent, adam
from strata.devices import prepare
from strata.errors import UserError
from strata.experiments import load_experiments
from strata.launching import launch
from strata.memory import MIB, resident_memory
from strata.neural_rg.config import RunSettings
from strata.neural_rg.exact_data import ExactFields
from strata.neural_rg.flows import build_flow
from strata.neural_rg.ising_field import IsingField
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.targets import build_target
from strata.parallel import Group, joined
from strata.randomness import Generators
from strata.stages import run_stage

EXPERIMENTS = Path(__file__).parents[1] / "config" / "neural_rg.yaml"
WARM_UP = 10  # a buffer of ten batches is full after five steps
N_SPINS = 256
COLUMNS = (
    "scaling",
    "devices",
    "batch",
    "ms a step",
    "samples a second",
    "speed-up",
    "efficiency",
    "first loss",
    "last loss",
    "largest difference",
    "MiB a device",
)

Found = dict[str, Any]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiment", default="mera_splines_L64_parallel")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--devices", default="1,2", help="numbers of devices, 1 first")
    parser.add_argument("--batch", type=int, help="samples a step, by default the experiment's")
    parser.add_argument("--length", type=int, help="lattice length, by default the experiment's")
    parser.add_argument("--dtype", choices=("float32", "float64"))
    parser.add_argument("--steps", type=int, default=30, help="timed steps after the warm-up")
    parser.add_argument("--csv", type=Path, help="file to write the rows to as well")
    parser.add_argument("--as-one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_one:
        job, found, device = arguments.as_one
        measure(json.loads(Path(job).read_text()), Path(found), device)
        return
    numbers = [int(text) for text in arguments.devices.split(",")]
    if numbers[0] != 1:
        raise UserError(f"--devices: expected numbers that begin with 1; got {arguments.devices}.")
    base = settings_of(arguments)
    written = Written()
    written.write(f"{machine()}; {arguments.experiment}, L = {base.target.L}\n\n")
    written.write(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
    rows: list[list[str]] = []
    reference: Found = {}
    for n in numbers:
        for found in in_processes(n, base, arguments.steps, arguments.device):
            reference = reference or found
            rows.append(row(found, reference))
            written.write(f"| {' | '.join(rows[-1])} |\n")
    if arguments.csv:
        with open(arguments.csv, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])


def settings_of(arguments: argparse.Namespace) -> RunSettings:
    """Return the experiment's settings with what the command line changes."""
    experiments = load_experiments("neural_rg", EXPERIMENTS)
    if arguments.experiment not in experiments:
        raise UserError(f"{EXPERIMENTS} has no experiment called {arguments.experiment}.")
    run = experiments[arguments.experiment].runs[arguments.experiment]
    block = run.model_dump(mode="json")
    block["target"]["L"] = arguments.length or block["target"]["L"]
    block["training"]["batch"] = arguments.batch or block["training"]["batch"]
    block["training"]["dtype"] = arguments.dtype or block["training"]["dtype"]
    block["training"]["devices"] = 1
    return parse(RunSettings, block, arguments.experiment)


def in_processes(n: int, base: RunSettings, n_steps: int, device: str) -> list[Found]:
    """Return what n new processes find: at the batch of one device, and at n times as much."""
    batch = base.training.batch
    cases = []
    for scaling, samples in [("strong", batch), ("weak", n * batch)][: 2 if n > 1 else 1]:
        training = {**base.training.model_dump(mode="json"), "batch": samples, "devices": n}
        training["evaluation_batch"] = samples
        block = {**base.model_dump(mode="json"), "training": training}
        settings = parse(RunSettings, block, f"{n} devices")
        cases.append({"scaling": scaling, "settings": settings.canonical_json()})
    with tempfile.TemporaryDirectory() as folder:
        job, found = Path(folder) / "job.json", Path(folder) / "found.json"
        job.write_text(json.dumps({"n": n, "n_steps": n_steps, "cases": cases}))
        with contextlib.redirect_stdout(sys.stderr):
            launch(n, [__file__, "--as-one", str(job), str(found), device], device)
        return json.loads(found.read_text())


def row(found: Found, reference: Found) -> list[str]:
    """Return the cells of a line."""
    rate, n = found["batch"] / found["seconds"], found["devices"]
    speed_up = rate * reference["seconds"] / reference["batch"]
    losses, expected = (
        torch.tensor(one["losses"], dtype=torch.float64) for one in (found, reference)
    )
    difference = ((losses - expected) / expected).abs().max().item()
    return [
        found["scaling"] if n > 1 else "one device",
        f"{n}",
        f"{found['batch']}",
        f"{1e3 * found['seconds']:.4g}",
        f"{rate:.4g}",
        f"{speed_up:.3g}",
        f"{speed_up / n:.3g}",
        f"{losses[0]:.8g}",
        f"{losses[-1]:.8g}",
        f"{difference:.1e}" if found["batch"] == reference["batch"] else "",
        f"{found['mib']:,.0f}",
    ]


# --- in each process ------------------------------------------------------------------------------


def measure(job: Found, path: Path, request: str) -> None:
    """Take the steps of every case as one of the processes; the first writes what was found."""
    found = []
    with joined(job["n"], request) as group:
        for case in job["cases"]:
            settings = RunSettings.model_validate_json(case["settings"])
            steps = Steps(settings, group, request)
            seconds, losses = steps.taken(job["n_steps"])
            found.append(
                {
                    "scaling": case["scaling"],
                    "devices": group.size,
                    "batch": settings.training.batch,
                    "seconds": group.largest(statistics.median(seconds)),
                    "losses": losses,
                    "mib": group.largest(steps.memory()),
                }
            )
            del steps
        if group.leads:
            path.write_text(json.dumps(found))


class Steps:
    """The steps of a training, from its beginning."""

    def __init__(self, settings: RunSettings, group: Group, request: str) -> None:
        training = settings.training
        with contextlib.redirect_stdout(sys.stderr if group.leads else sys.stdout):
            self.device, dtype = prepare(group.own_device(request), training.dtype)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        generators = Generators(settings.seed, self.device)
        flow = build_flow(settings, generators.on_cpu("init")).to(self.device, dtype)
        target = build_target(settings.target, dtype=dtype, device=self.device)
        exact = None
        if training.data == "exact":
            assert isinstance(target, IsingField)
            coins = torch.randint(
                2, (N_SPINS, *target.event_shape), generator=generators.on_cpu("spins")
            )
            exact = ExactFields(target, (2 * coins - 1).to(torch.int8).to(self.device))
        learner = FlowLearner(flow, target, training, generators, exact, group=group)
        optimizer = adam(flow, training)
        self.descent = Descent(learner, training, optimizer, self.device, group)
        self.learning_rate, self.group = training.lr, group

    def taken(self, n_steps: int) -> tuple[list[float], list[float]]:
        """Take steps; return the seconds of those after the warm-up, and the losses of all."""
        seconds, losses = [], []
        for step in range(WARM_UP + n_steps):
            start = self._now()
            losses.append(self.descent.step(step, self.learning_rate)["loss"].clone())
            self.group.largest(0.0)  # whether to stop
            seconds.append(self._now() - start)
        return seconds[WARM_UP:], torch.stack(losses).tolist()

    def memory(self) -> float:
        """Return the most that this process has taken of its device, in MiB."""
        if self.device.type == "cpu":
            return resident_memory()
        return torch.cuda.max_memory_allocated(self.device) / MIB

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


if __name__ == "__main__":
    run_stage(main)
