"""Time training steps of neural_rg beside the original's structure of the same steps.

*original* has modules with masked inputs and outputs, keeps the graph of every Metropolis step and
infers ln p of what it has generated (`neural_rg_original.py`); *strata* is `FlowLearner`. Both
train a MERA with one disentangler per scale, blocks of 8 coupling layers and 64 + 64 hidden units,
on the Ising field at its critical temperature, with the same weights; a step ends with the update
of Adam. A step of the *seed* settings has 5 + 1 Metropolis steps, a data and a variational term; a
step of *kl* is the variational term of a fresh batch alone. The *floor* is arithmetic: the products
with live weights that such a step cannot do without (no pass is repeated), at the rate of a product
of square matrices in the same run, and the exponentials of its forward passes at the faster of
torch's two rates.

Run `python benchmarks/neural_rg.py`: about 6 minutes on one core, `--all` for lattices up to 64 and
batches up to 4096, `--quick` for a smoke test. It writes a Markdown table to standard output, and
to a file with `--out`. Milliseconds are medians of repeats after a warm-up, sides alternating:
process CPU time of one thread, and wall time with synchronization on a GPU. Memory is what a step
adds at its peak to the resident memory of a fresh process; on a GPU, the peak of what is allocated
for a side until its first step is done, the buffer of fields and a captured graph's own included.
Rows on a GPU are left out where there is none.
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
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from neural_rg_original import OriginalFlow, original_loss, original_reverse_kl
from torch import Tensor, nn
from writing import Written, machine

from strata.captured import CapturedUpdate
from strata.devices import set_threads
from strata.neural_rg.config import NeuralRGTraining, RunSettings
from strata.neural_rg.flows import GaussianFlow, PatchNetwork, build_flow, normal_log_density
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.targets import Target, build_target
from strata.randomness import Generators

CPU = torch.device("cpu")
LENGTHS, BATCHES = (4, 8, 16, 32, 64), (256, 1024, 4096)
EVERYTHING = [(length, batch) for length in LENGTHS for batch in BATCHES]
SELECTED = {
    "seed": [(4, 256), (4, 1024), (8, 256), (8, 1024), (16, 256), (16, 1024)],
    "kl": [(4, 256), (4, 1024), (8, 256), (8, 1024), (16, 256), (16, 1024), (32, 256)],
}
SECONDS_PER_SIDE, MOST_REPEATS = 10.0, 9
AGREEMENT = 1e-10

Side = Callable[[], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ROWS)}")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the smallest lattice alone, once")
    size.add_argument("--all", action="store_true", help="all lattices and batches (hours)")
    parser.add_argument("--out", type=Path, help="file to write the table to as well")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    set_threads()
    if arguments.memory:
        kind, side, length, batch = arguments.memory
        _print_memory(kind, side, int(length), int(batch))
        return
    asked = arguments.rows.split(",")
    if unknown := set(asked) - set(ROWS):
        parser.error(f"expected rows of {', '.join(ROWS)}; got {', '.join(sorted(unknown))}")
    table = Table()
    table.write(f"{machine()}. Losses of both sides agree to {_disagreement():.0e}.\n\n")
    table.write(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
    for name in asked:
        kind, device = ROWS[name]
        if device.type == "cuda" and not torch.cuda.is_available():
            table.write(f"| {name}: no GPU here |{' |' * (len(COLUMNS) - 1)}\n")
            continue
        sizes = EVERYTHING if arguments.all else SELECTED[kind]
        for length, batch in sizes[:1] if arguments.quick else sizes:
            measure(table, kind, length, batch, device, once=arguments.quick)
    if arguments.out:
        arguments.out.write_text(table.text, encoding="utf-8")


COLUMNS = (
    "step",
    "original, ms",
    "strata, ms",
    "original / strata",
    "strata, ms a sample",
    "floor, ms",
    "strata / floor",
    "original, MiB",
    "strata, MiB",
)


class Table(Written):
    """The rows."""

    def row(
        self, what: str, seconds: Sequence[float], batch: int, floor: float, memory: Sequence[float]
    ) -> None:
        """Write one row, from seconds and bytes of the original and of strata."""
        original, ours = seconds
        cells = [f"{1e3 * original:.4g}", f"{1e3 * ours:.4g}", f"{original / ours:.3g}"]
        cells += [f"{1e3 * ours / batch:.3g}", f"{1e3 * floor:.3g}", f"{ours / floor:.3g}"]
        cells += [f"{size / 2**20:,.0f}" for size in memory]
        self.write(f"| {what} | {' | '.join(cells)} |\n")


# --- what is timed ------------------------------------------------------------------------------


class Problem:
    """A flow, its target and the generators of a run."""

    def __init__(self, length: int, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        training = NeuralRGTraining(batch=batch)
        self.settings = RunSettings(target=IsingSettings(L=length), training=training)
        self.generators = Generators(0, device)
        self.target: Target = build_target(self.settings.target, dtype=dtype, device=device)
        flow = build_flow(self.settings, self.generators.on_cpu("init")).to(device, dtype)
        assert isinstance(flow, GaussianFlow)
        assert isinstance(flow.network, PatchNetwork)
        self.flow, self.network = flow, flow.network
        self.batch, self.device = batch, device


def side_of(name: str, kind: str, length: int, batch: int, device: torch.device) -> Side:
    """Return a step of one side: "original", "strata" or, on a GPU, "captured"."""
    problem = Problem(length, batch, device, torch.float32)
    training, generator = problem.settings.training, problem.generators["proposal"]
    if name == "original":
        flow = OriginalFlow(problem.network)
        if kind == "seed":
            return _with_adam(original_loss(flow, problem.target, training, generator), flow)
        return _with_adam(original_reverse_kl(flow, problem.target, batch, generator), flow)
    if kind == "seed":
        return _our_seed_step(problem, captured=name == "captured")
    return _our_reverse_kl_step(problem, captured=name == "captured")


def _adam(module: nn.Module) -> torch.optim.Adam:
    on_a_gpu = next(module.parameters()).is_cuda
    return torch.optim.Adam(module.parameters(), 1e-3, weight_decay=1e-3, capturable=on_a_gpu)


def _with_adam(loss: Callable[[], Tensor], module: nn.Module) -> Side:
    optimizer = _adam(module)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _our_seed_step(problem: Problem, *, captured: bool) -> Side:
    training = problem.settings.training
    learner = FlowLearner(problem.flow, problem.target, training, problem.generators)
    fields = learner.buffer.fields
    shape = (learner.buffer.capacity, *fields.shape[1:])
    learner.buffer.fields = torch.randn(
        shape, generator=problem.generators["start"], device=problem.device
    )
    learner.replays = captured  # a learner that captures its loss as a CUDA graph obeys
    return _with_adam(lambda: learner.training_step(0)[0], problem.flow)


def _our_reverse_kl_step(problem: Problem, *, captured: bool) -> Side:
    shape, generator = (problem.batch, *problem.network.shape), problem.generators["proposal"]
    z, optimizer = torch.empty(shape, device=problem.device), _adam(problem.flow)

    def update() -> dict[str, Tensor]:
        optimizer.zero_grad()
        loss = reverse_kl(problem, z)
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    def state() -> list[Tensor]:
        moments = [m for of_one in optimizer.state.values() for m in of_one.values()]
        return [*problem.flow.parameters(), *moments]

    replay = CapturedUpdate(update, state, problem.device) if captured else update

    def step() -> None:
        z.normal_(generator=generator)
        replay()

    return step


def reverse_kl(problem: Problem, z: Tensor) -> Tensor:
    """Return the mean of ln p - ln pi~ over the fields that latents lead to."""
    x, log_det = problem.network.generate(z)
    return (normal_log_density(z) - log_det - problem.target.log_density(x)).mean()


def _disagreement() -> float:
    """Return the relative difference of the losses for the same weights and noise.

    Raises:
        AssertionError: it is too large.
    """
    problem = Problem(8, 32, CPU, torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in problem.flow.parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
        original = OriginalFlow(problem.network).double()
        z = torch.randn((32, 8, 8), generator=generator, dtype=torch.float64)
        x, _ = original.generate(z)
        theirs = (original.log_prob(x) - problem.target.log_density(x)).mean()
        ours = reverse_kl(problem, z)
        of_data = (problem.flow.log_prob(z) - original.log_prob(z)).abs().max()
    difference = max(abs((ours / theirs).item() - 1.0), of_data.item())
    assert difference < AGREEMENT, difference
    return difference


# --- how it is timed ----------------------------------------------------------------------------


def measure(
    table: Table, kind: str, length: int, batch: int, device: torch.device, *, once: bool
) -> None:
    """Write the rows of one size."""
    names = ["original", "strata", *(["captured"] if device.type == "cuda" else [])]
    sides, memory = [], []
    for name in names:
        if device.type == "cpu":
            memory.append(_peak_of_a_process(kind, name, length, batch))
        else:
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
        sides.append(side_of(name, kind, length, batch, device))
        if device.type == "cuda":
            sides[-1]()
            memory.append(float(torch.cuda.max_memory_allocated(device) - before))
    seconds = medians(sides, device, once=once)
    bound = floor(kind, length, batch, device)
    for index, name in enumerate(names[1:], start=1):
        what = f"{kind}, {device.type}, L = {length}, {batch} samples"
        what += ", captured" if name == "captured" else ""
        table.row(what, (seconds[0], seconds[index]), batch, bound, (memory[0], memory[index]))


def medians(sides: Sequence[Side], device: torch.device, *, once: bool = False) -> list[float]:
    """Return the median seconds of each side's call."""
    first = [_seconds(side, device) for side in sides]
    again = 1 if once else round(SECONDS_PER_SIDE / max(first))
    repeats = min(max(again, 1), MOST_REPEATS)
    seconds = [[_seconds(side, device) for side in sides] for _ in range(repeats)]
    return [statistics.median(of_side) for of_side in zip(*seconds, strict=True)]


def _seconds(side: Side, device: torch.device) -> float:
    start = _now(device)
    side()
    return _now(device) - start


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def floor(kind: str, length: int, batch: int, device: torch.device) -> float:
    """Return the seconds of the arithmetic that a step cannot do without."""
    problem = Problem(length, batch, device, torch.float32)
    flow, training = problem.settings.flow, problem.settings.training
    half, hidden = problem.network.sites_per_patch // 2, flow.hidden_scale + flow.hidden_shift
    blocks = range(len(problem.network.blocks))
    n_patches = sum(problem.network.sites(i).numel() // (2 * half) for i in blocks)
    layers = batch * n_patches * flow.n_layers  # of all patches, in one pass
    n_forward, n_backward = 1, 1
    if kind == "seed":  # the start, all proposals and the data; the last proposals and the data
        n_forward, n_backward = training.n_therm + training.n_steps + 2, training.n_steps + 1
    multiplications = layers * 2 * half * hidden * (n_forward + 2 * n_backward)
    exponentials = layers * (hidden + 2 * half) * n_forward
    of_multiplication, of_exponential = rates(device)
    return multiplications * of_multiplication + exponentials * of_exponential


RATES: dict[str, tuple[float, float]] = {}


def rates(device: torch.device) -> tuple[float, float]:
    """Return the seconds of one multiplication and of one exponential, measured once."""
    if device.type not in RATES:
        n = 512 if device.type == "cpu" else 8192
        times = 20
        matrix, out = (torch.full((n, n), 0.01, device=device) for _ in range(2))
        values = torch.linspace(-5.0, 0.0, n * 256, device=device)
        powers = torch.empty_like(values)

        def of(operation: Callable[[], object]) -> float:
            def run() -> None:
                for _ in range(times):
                    operation()

            return medians([run], device)[0] / times

        product = of(lambda: torch.mm(matrix, matrix, out=out))
        exponentials = min(
            of(lambda: torch.exp(values, out=powers)), of(lambda: torch.exp2(values, out=powers))
        )
        RATES[device.type] = (product / n**3, exponentials / values.numel())
    return RATES[device.type]


def _peak_of_a_process(kind: str, side: str, length: int, batch: int) -> float:
    command = [sys.executable, __file__, "--memory", kind, side, str(length), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def _print_memory(kind: str, name: str, length: int, batch: int) -> None:
    """Take a small step that loads the libraries, then one whose peak is printed, in bytes."""
    side_of(name, kind, 4, 8, CPU)()
    side = side_of(name, kind, length, batch, CPU)
    before = _resident("VmRSS")
    side()
    print(json.dumps(_resident("VmHWM") - before))


def _resident(field: str) -> float:
    """Return this process's memory, present (VmRSS) or at its peak (VmHWM), in bytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
    return 1024.0 * int(line.split()[1])


ROWS: dict[str, tuple[str, torch.device]] = {
    "seed": ("seed", CPU),
    "kl": ("kl", CPU),
    "seed_gpu": ("seed", torch.device("cuda", 0)),
    "kl_gpu": ("kl", torch.device("cuda", 0)),
}


if __name__ == "__main__":
    main()
