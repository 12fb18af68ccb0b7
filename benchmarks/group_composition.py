"""Time group_composition beside the original's structure of the same runs.

*original* writes its inputs out: a batch is gathered from the template, an index per number, and
multiplied by the weights densely (`nn.Module`, `MSELoss`, `clip_grad_norm_`); every step reads the
loss and evaluates a fresh batch; a fixed set of sequences is rolled sample by sample. *strata* is
`GroupLearner.update`, on indices, as training calls it, plus its share of an evaluation (one in
`evaluate_every` steps). Example A is C_100, k = 3, QuadraticRNN of 200 neurons, Adam; example B is
C_10 x C_10, an image of a digit, k = 3, SequentialMLP of 600 neurons, rates per neuron; batches of
1000, gradients clipped at 0.1. The *floor* is the arithmetic of strata's products of matrices at
the rate that a product of the readout's size has in the same run.

Run `python benchmarks/group_composition.py`; it writes a Markdown table to standard output, and to
a file with `--out`. Times are medians of repeats after a warm-up, sides alternating; seconds of
process CPU time on one core; of wall time where processes are compared (once; the original's are 4
of 16, scaled; seeds of one process share their batches) and on a GPU (with synchronization). What
needs a GPU is left out where there is none.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from group_composition_original import DenseNetwork, WrittenOut, original_step, rolled_one_by_one
from writing import Written, machine

from strata.datasets import read_images
from strata.devices import set_threads
from strata.group_composition.config import DataSettings, RunSettings
from strata.group_composition.fourier import isotypic_basis
from strata.group_composition.groups import FiniteGroup, build_group
from strata.group_composition.irreps import irreducible_representations
from strata.group_composition.learner import GroupLearner
from strata.group_composition.population import population_loss
from strata.group_composition.sequences import Listing
from strata.group_composition.streams import all_sequences, fixed_sequences
from strata.group_composition.tasks import Task
from strata.group_composition.templates import build_template
from strata.group_composition.train import build_learner
from strata.randomness import Generators

IMAGES = Path(__file__).parents[1] / "results" / "data" / "mnist.h5"
CPU = torch.device("cpu")
BATCH, CLIP = 1000, 0.1
LISTED, ROLLED = 1_000_000, 100_000
N_SEEDS, N_STARTED, N_ON_GPU = 16, 4, 64

EXAMPLES: dict[str, dict[str, Any]] = {
    "A": {
        "group": {"name": "cyclic", "n": 100},
        "template": {"name": "fourier", "n_freqs": 10},
        "model": {"kind": "QuadraticRNN", "hidden_dim": 200},
        "training": {"optimizer": "adam", "lr": 1e-3},
    },
    "B": {
        "group": {"name": "product", "orders": [10, 10]},
        "template": {"name": "mnist"},
        "model": {"kind": "SequentialMLP", "hidden_dim": 600},
        "training": {"optimizer": "per_neuron", "lr": 1.0},
    },
    "C_10, k = 3, QuadraticRNN of 36, Adam": {
        "group": {"name": "cyclic", "n": 10},
        "template": {"name": "fourier", "n_freqs": 3},
        "model": {"kind": "QuadraticRNN", "hidden_dim": 36},
        "training": {"optimizer": "adam", "lr": 1e-3},
    },
    "C_11, k = 2, SequentialMLP of 36, per neuron": {
        "group": {"name": "cyclic", "n": 11},
        "template": {"name": "fourier", "n_freqs": 3},
        "task": {"k": 2},
        "model": {"kind": "SequentialMLP", "hidden_dim": 36},
        "training": {"optimizer": "per_neuron", "lr": 0.05},
    },
}
SMALL = [name for name in EXAMPLES if name not in ("A", "B")]

Side = Callable[[], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer repeats and steps")
    parser.add_argument("--out", type=Path, help="file to write the table to as well")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    set_threads()
    if arguments.run:
        _run(*arguments.run)
        return
    asked = arguments.rows.split(",")
    if unknown := set(asked) - set(ROWS):
        parser.error(f"expected rows of {', '.join(ROWS)}; got {', '.join(sorted(unknown))}")
    table = Table()
    table.write(f"{machine()}\n\n")
    if not IMAGES.is_file():
        table.write("There are no images of digits here: B has a template of ten frequencies.\n\n")
    table.write("| what | original | strata | original / strata | floor | strata / floor |\n")
    table.write("|---|---|---|---|---|---|\n")
    for name in asked:
        ROWS[name](table, arguments.quick)
    if arguments.out:
        arguments.out.write_text(table.text, encoding="utf-8")


class Table(Written):
    """The rows."""

    def row(self, what: str, original: float, ours: float, floor: float | None = None) -> None:
        """Write one row, from seconds."""
        cells = [f"{1e3 * original:.4g}", f"{1e3 * ours:.4g}", f"{original / ours:.3g}"]
        cells += ["", ""] if floor is None else [f"{1e3 * floor:.3g}", f"{ours / floor:.3g}"]
        self.write(f"| {what}, ms | {' | '.join(cells)} |\n")


def medians(
    sides: Sequence[Side], repeats: int, device: torch.device = CPU, times: int = 1
) -> list[float]:
    """Return the median seconds of each side's call; a repeat calls it so many times."""
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(-1, repeats):
        for of_side, side in zip(seconds, sides, strict=True):
            start = _now(device)
            for _ in range(times):
                side()
            if repeat >= 0:
                of_side.append((_now(device) - start) / times)
    return [statistics.median(of_side) for of_side in seconds]


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


# --- what is timed ------------------------------------------------------------------------------


def settings_of(name: str, *, n_init: int = 1) -> RunSettings:
    """Return the settings of an example; its image is replaced where there are none."""
    sections = dict(EXAMPLES[name])
    if not IMAGES.is_file() and sections["template"]["name"] == "mnist":
        sections["template"] = {"name": "fourier", "n_freqs": 10}
    sections["training"] = {**sections["training"], "clip_norm": CLIP}
    sections |= {"data": {"batch_size": BATCH}, "seeds": {"n_init": n_init}}
    return RunSettings.model_validate({"task": {"k": 3}, **sections})


@cache
def problem(settings: RunSettings) -> tuple[FiniteGroup, Task]:
    """Return the group and what is learned."""
    group = build_group(settings.group)
    irreps = irreducible_representations(group)
    images = None
    if settings.template.name == "mnist":
        all_images, labels = read_images(IMAGES).part("train")
        images = all_images[labels == settings.template.label]
    generator = np.random.default_rng(settings.seeds.template)
    template = build_template(settings.template, group, irreps, generator=generator, images=images)
    basis, irrep_of = isotypic_basis(irreps)
    task = Task(
        translates=torch.from_numpy(group.translates(template)),
        multiplication=torch.from_numpy(group.table),
        basis=torch.from_numpy(basis),
        irrep_of=torch.from_numpy(irrep_of),
        n_irreps=len(irreps),
        length=settings.task.k,
        every=False,
    )
    return group, task


def our_step(settings: RunSettings, device: torch.device) -> tuple[Side, GroupLearner]:
    """Return a step of training, and the learner that takes it."""
    learner = build_learner(settings, problem(settings)[1], Generators(0, device))
    steps = iter(range(10**9))
    return lambda: learner.update(next(steps), settings.training.lr), learner


# --- rows ---------------------------------------------------------------------------------------


def multiplications(settings: RunSettings, order: int) -> int:
    """Return those of a step on indices: tables and readout, states that are mixed; backward too.

    The gradient of a table needs one product, that of another layer two.
    """
    d, k = settings.model.hidden_dim, settings.task.k
    is_recurrent = settings.model.kind == "QuadraticRNN"
    tables = 2 * (2 if is_recurrent else k) * order**2 * d
    mixing = 3 * (k - 2) * BATCH * d**2 if is_recurrent else 0
    return tables + mixing + 3 * BATCH * d * order


def rate_of_multiplications(settings: RunSettings, order: int, device: torch.device) -> float:
    """Return multiplications per second of the readout of a batch."""
    d = settings.model.hidden_dim
    hidden, w_out = torch.ones((BATCH, d), device=device), torch.ones((order, d), device=device)
    (seconds,) = medians([lambda: hidden @ w_out.T], 31, device, times=20)
    return BATCH * d * order / seconds


def steps_on_the_cpu(table: Table, quick: bool) -> None:
    """One training step of the examples."""
    for name in ("A", "B"):
        settings = settings_of(name)
        ours, learner = our_step(settings, CPU)
        order = learner.task.order
        sides = [
            original_step(settings, *problem(settings), CPU),
            original_step(settings, *problem(settings), CPU, validates=False),
            ours,
            learner.evaluate,
        ]
        whole, plain, step, evaluation = medians(sides, 7 if quick else 25, times=8)
        step += evaluation / settings.training.evaluate_every
        floor = multiplications(settings, order) / rate_of_multiplications(settings, order, CPU)
        table.row(f"training step, {name}", whole, step, floor)
        table.row(f"training step, {name}, original without validation", plain, step, floor)


def fixed_sets(table: Table, quick: bool) -> None:
    """A fixed set of sequences, ready to be trained on."""
    for name in ("A", "B"):
        settings = settings_of(name)
        group, task = problem(settings)
        batches = WrittenOut(group, task, Generators(0, CPU))
        data = DataSettings(mode="sampled", num_samples=LISTED)

        def listed(data: DataSettings = data, task: Task = task) -> None:
            sequences = fixed_sequences(data, task.order, task.length, Generators(0, CPU))
            assert sequences is not None
            Listing(sequences, task.multiplication).products(task.length)

        n_rolled = ROLLED // 10 if quick else ROLLED
        sides = [
            partial(rolled_one_by_one, group, task, n_rolled),
            partial(batches.draw, ROLLED),
            listed,
        ]
        rolled, gathered, ours = medians(sides, 1 if quick else 2)
        what = f"{LISTED:,} sequences, {name} (original: {{}}, scaled)"
        table.row(what.format(f"{n_rolled:,} rolled one by one"), rolled * LISTED / n_rolled, ours)
        table.row(what.format(f"{ROLLED:,} gathered"), gathered * LISTED / ROLLED, ours)


def many_seeds(table: Table, quick: bool) -> None:
    """Seeds side by side, in one process or one for each core; original: each in its own."""
    n_steps = 100 if quick else 300
    n_cores = os.cpu_count() or 1
    for name in SMALL:
        seconds, loops = _processes("original", name, n_steps, N_STARTED, n_seeds=1)
        whole, steps = (N_SEEDS / N_STARTED * t for t in (seconds, sum(loops) / n_cores))
        for words, n in (("one process", 1), ("a process for each core", n_cores)):
            ours, loops = _processes("strata", name, n_steps, n, n_seeds=math.ceil(N_SEEDS / n))
            what = f"{N_SEEDS} seeds of {name}, {n_steps} steps, {n_cores} cores, {words}"
            table.row(f"{what}, start of Python included", whole, ours)
            table.row(f"{what}, steps alone", steps, max(loops))


def _processes(
    side: str, name: str, n_steps: int, n_processes: int, *, n_seeds: int
) -> tuple[float, list[float]]:
    """Train in processes of one thread, one for each core at a time.

    Returns the seconds of all together, and those that the steps of each took.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--run", side, name, str(n_steps), str(n_seeds)]

    def run(_: int) -> float:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout))

    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        of_steps = list(pool.map(run, range(n_processes)))
    return time.perf_counter() - start, of_steps


def _run(side: str, name: str, n_steps: str, n_seeds: str) -> None:
    """Take steps in this process and print the seconds that they took."""
    settings = settings_of(name, n_init=int(n_seeds))
    step: Side
    if side == "strata":
        step, _ = our_step(settings, CPU)
    else:
        step = original_step(settings, *problem(settings), CPU)
    start = time.perf_counter()
    for _ in range(int(n_steps)):
        step()
    print(json.dumps(time.perf_counter() - start))


def steps_on_a_gpu(table: Table, quick: bool) -> None:
    """One training step of the examples as a CUDA graph, and of many seeds."""
    if not torch.cuda.is_available():
        table.write("| training steps on a GPU | no GPU here | | | | |\n")
        return
    device = torch.device("cuda", 0)
    for name in ("A", "B"):
        settings = settings_of(name)
        one, learner = our_step(settings, device)
        many, _ = our_step(settings_of(name, n_init=N_ON_GPU), device)
        sides = [original_step(settings, *problem(settings), device), one, many]
        original, single, together = medians(sides, 5 if quick else 15, device, times=100)
        order = learner.task.order
        floor = multiplications(settings, order) / rate_of_multiplications(settings, order, device)
        table.row(f"training step on the GPU, {name}", original, single, floor)
        table.row(
            f"training step on the GPU, {name}, {N_ON_GPU} seeds (original: one after the other)",
            N_ON_GPU * original,
            together,
            N_ON_GPU * floor,
        )
        table.write(
            f"| {N_ON_GPU} seeds over one, {name} | | {together / single:.3g} times | | | |\n"
        )


def population(table: Table, quick: bool) -> None:
    """The exact loss of B over all sequences, beside a pass over inputs that are written out."""
    settings = settings_of("B")
    group, task = problem(settings)
    learner = build_learner(settings, task, Generators(0, CPU))
    network, T = learner.network, learner.task.translates
    dense = DenseNetwork(settings, task.order, Generators(0, CPU).on_cpu("init"))
    batches = WrittenOut(group, task, Generators(0, CPU))
    n_dense, n_listed = (BATCH, 10 * BATCH) if quick else (20 * BATCH, 100 * BATCH)
    everything = all_sequences(task.order, task.length, CPU)

    @torch.no_grad()
    def written_out() -> None:
        for _ in range(n_dense // BATCH):
            x, y = batches.draw(BATCH)
            (dense(x) - y).square().mean()

    @torch.no_grad()
    def enumerated() -> None:
        for elements in everything[:n_listed].split(BATCH):
            learner.task.losses(network, Listing(elements, learner.task.multiplication))

    @torch.no_grad()
    def exact() -> None:
        tables = T @ network.weight("W_in").mT
        w_out = network.weight("W_out")
        population_loss(tables, w_out, T, learner.task.multiplication, task.length)

    dense_time, listed, ours = medians([written_out, enumerated, exact], 1 if quick else 3)
    n_all = task.order**task.length
    what = f"exact loss of {n_all:,} sequences, B (original: {{}}, scaled)"
    table.row(what.format(f"{n_dense:,} written out"), dense_time * n_all / n_dense, ours)
    table.row(what.format(f"{n_listed:,} as indices"), listed * n_all / n_listed, ours)


ROWS: dict[str, Callable[[Table, bool], None]] = {
    "step": steps_on_the_cpu,
    "build": fixed_sets,
    "seeds": many_seeds,
    "gpu": steps_on_a_gpu,
    "population": population,
}


if __name__ == "__main__":
    main()
