"""Time hmm_rnn beside hmmlearn, geomloss and the original's structure of a training step.

*hmmlearn* draws sequences one by one. *geomloss* is `SamplesLoss` (blur 0.2). The *original's step*
is torch's `nn.RNN`, a linear readout, `gumbel_softmax(hard=True)`, geomloss on the flattened
sequences, the gradient clipped, Adam; the original draws free sequences one by one, step by step.
*strata* is `HiddenMarkovModel.sample`, `EntropicTransport` (the cost OT(x, y) with its gradient,
which is all that has one in a training step; "both self costs" computes the debiased value too),
`SequenceLearner` with the original's settings (and, in rows of its own, with the moment term of the
shipped experiments), `NoiseDrivenRNN.generate`. Optimizer steps are the same on both sides.

The *floor* of a transport cost is one exponential per pair and step of the ladder, at the rate of
`exp` on data in the cache, and its two matrix products; that of a training step adds the recurrence
and its gradient at the rate of a matrix product of one step's size; both rates are measured in the
same run.

Run `python benchmarks/hmm_rnn.py` (`--device cuda` on a GPU, without hmmlearn there); it writes a
Markdown table to standard output. Times are medians of repeats after a warm-up, sides alternating;
seconds of process CPU time on the CPU, of wall time with synchronization on a GPU.
"""

import argparse
import math
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from geomloss import SamplesLoss
from torch import Tensor, nn
from torch.nn import functional

from strata.devices import resolve_device, set_threads
from strata.hmm_rnn.hmm import HiddenMarkovModel, build_hmm
from strata.hmm_rnn.hmm_settings import HMMSettings
from strata.hmm_rnn.learner import SequenceLearner
from strata.hmm_rnn.potentials import epsilon_ladder
from strata.hmm_rnn.reference import Reference, one_hot_points, transport
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.training_settings import HMMTraining, MomentSettings
from strata.randomness import Generators

BATCH, INPUTS, UNITS, SYMBOLS, BLUR = 4096, 100, 150, 3, 0.2
LENGTHS = (30, 100)
N_DRAWN, N_FREE, N_LARGE = 30_000, 200, 12_000

Side = Callable[[], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<number>")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    set_threads()
    device, reason = resolve_device(arguments.device)
    print(f"{device} ({reason}); torch {torch.__version__}; {torch.get_num_threads()} thread(s)\n")
    print("| what | other | strata | other / strata | floor | strata / floor |")
    print("|---|---|---|---|---|---|")
    bench = Bench(device, arguments.repeats)
    model = build_hmm(HMMSettings(model="HMMTwo")).to(device)
    bench.large(model)  # first: the process's largest memory only grows
    if device.type == "cpu":
        bench.data(model)
    for length in LENGTHS:
        bench.transport(model, length)
    for length in LENGTHS:
        bench.steps(model, length)
    bench.free_runs(device)


class Bench:
    """The clock, and a row for each thing that is timed."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.exponentials = self._rate_of_exponentials()

    def seconds(self, sides: Sequence[Side], repeats: int | None = None) -> list[float]:
        """Return the median time of each, alternating, after a warm-up."""
        times: list[list[float]] = [[] for _ in sides]
        for repeat in range(-1, repeats or self.repeats):
            for side, run in enumerate(sides):
                start = self._now()
                run()
                if repeat >= 0:
                    times[side].append(self._now() - start)
        return [statistics.median(side) for side in times]

    def _now(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def row(self, what: str, other: float, ours: float, floor: float | None) -> None:
        """Print one row, in milliseconds."""
        ratio = other / ours
        cells = [f"{1e3 * other:.4g}", f"{1e3 * ours:.4g}", f"{ratio:.3g}"]
        cells += ["", ""] if floor is None else [f"{1e3 * floor:.3g}", f"{ours / floor:.3g}"]
        print(f"| {what}, ms | {' | '.join(cells)} |", flush=True)

    def data(self, model: HiddenMarkovModel) -> None:
        """Sequences of the hidden Markov model."""
        from hmmlearn.hmm import CategoricalHMM

        other = CategoricalHMM(n_components=model.n_states)
        other.startprob_ = model.start.numpy()
        other.transmat_ = model.transition.numpy()
        other.emissionprob_ = model.emission.numpy() / model.emission.numpy().sum(1, keepdims=True)
        other.n_features = model.n_symbols
        generator = torch.Generator().manual_seed(0)
        state = np.random.RandomState(0)

        def one_by_one() -> None:
            for _ in range(N_DRAWN):
                other.sample(100, random_state=state)

        sides = [one_by_one, lambda: model.sample(N_DRAWN, 100, generator)]
        self.row(f"{N_DRAWN:,} sequences of 100 steps", *self.seconds(sides, 1), None)

    def transport(self, model: HiddenMarkovModel, length: int) -> None:
        """Value and gradient of the Sinkhorn divergence."""
        generator = torch.Generator(self.device).manual_seed(0)
        x, y = (
            one_hot_points(model.sample(BATCH, length, generator)[0], SYMBOLS) for _ in range(2)
        )
        x.requires_grad_()
        geomloss = SamplesLoss(blur=BLUR)
        how = transport(length, SYMBOLS, blur=BLUR, scaling=0.5)

        def of(loss: Callable[[Tensor, Tensor], Tensor]) -> Side:
            return lambda: torch.autograd.grad(loss(x, y), x)

        other, cost, both = self.seconds([of(geomloss), of(how.cost), of(how.divergence)])
        floor = self._floor_of_transport(length)
        what = f"Sinkhorn value and gradient, n = {BATCH}, T = {length}"
        self.row(what, other, cost, floor)
        self.row(f"{what}, both self costs", other, both, 3 * floor)

    def steps(self, model: HiddenMarkovModel, length: int) -> None:
        """Whole training steps."""
        original = _original_step(model, length, self.device)
        ours = _our_step(model, length, self.device, MomentSettings())
        words = _our_step(model, length, self.device, MomentSettings(weight=10.0, word_length=3))
        other, plain, with_words = self.seconds([original, ours, words])
        floor = self._floor_of_transport(length) + self._floor_of_recurrence(length)
        self.row(f"training step, T = {length}", other, plain, floor)
        self.row(f"training step with moments of words, T = {length}", other, with_words, None)

    def free_runs(self, device: torch.device) -> None:
        """Free generation: the original takes one step of one sequence at a time."""
        generator = torch.Generator(device).manual_seed(0)
        network = _network(device)
        original = _original_free_run(network, generator)
        few, many = self.seconds([original, lambda: network.generate(N_DRAWN, 100, generator)], 3)
        self.row(
            f"free run of {N_DRAWN:,} x 100 steps (other: of {N_FREE}, scaled)",
            few * N_DRAWN / N_FREE,
            many,
            None,
        )

    def large(self, model: HiddenMarkovModel) -> None:
        """More points than geomloss takes without KeOps, in tiles that are computed anew."""
        generator = torch.Generator(self.device).manual_seed(0)
        x, y = (one_hot_points(model.sample(N_LARGE, 100, generator)[0], SYMBOLS) for _ in range(2))
        x.requires_grad_()
        how = transport(100, SYMBOLS, blur=BLUR, scaling=0.5)
        before = self._memory()
        [seconds] = self.seconds([lambda: torch.autograd.grad(how.cost(x, y), x)], 1)
        grown = self._memory() - before
        print(
            f"| Sinkhorn value and gradient, n = {N_LARGE:,}, T = 100, ms | not without KeOps | "
            f"{1e3 * seconds:.4g} | | | {grown:.0f} MiB more memory |",
            flush=True,
        )

    def _memory(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def _rate_of_exponentials(self) -> float:
        """Exponentials per second: on the CPU of data in the cache, on a GPU of a batch's pairs."""
        n, times = (2**17, 200) if self.device.type == "cpu" else (BATCH**2, 20)
        numbers = torch.zeros(n, device=self.device)

        def run() -> None:
            for _ in range(times):
                numbers.exp_().zero_()

        def empty() -> None:
            for _ in range(times):
                numbers.zero_()

        whole, zeroing = self.seconds([run, empty], 5)
        return n * times / max(whole - zeroing, 1e-9)

    def _product(self, rows: int, inner: int, columns: int, times: int = 1) -> float:
        a, b = (
            torch.ones(shape, device=self.device) for shape in ((rows, inner), (inner, columns))
        )
        out = torch.empty((rows, columns), device=self.device)

        def run() -> None:
            for _ in range(times):
                torch.mm(a, b, out=out)

        return self.seconds([run], 3)[0] / times

    def _floor_of_transport(self, length: int) -> float:
        ladder = epsilon_ladder(math.sqrt(length * SYMBOLS), BLUR, 0.5)
        pairs = BATCH**2 * (len(ladder) + 2)
        axes = length * SYMBOLS
        products = self._product(BATCH, axes, BATCH) + self._product(BATCH, BATCH, axes)
        return pairs / self.exponentials + products

    def _floor_of_recurrence(self, length: int) -> float:
        """Forward an input and a recurrent product per step; backward one and two."""
        recurrent = self._product(BATCH, UNITS, UNITS, 20)
        inputs = self._product(BATCH, INPUTS, UNITS, 20)
        return length * (3 * recurrent + 2 * inputs)


def _network(device: torch.device) -> NoiseDrivenRNN:
    generator = torch.Generator().manual_seed(0)
    return NoiseDrivenRNN(
        input_size=INPUTS, hidden_size=UNITS, output_size=SYMBOLS, generator=generator
    ).to(device)


def _update(loss: Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 0.9)
    optimizer.step()


def _our_step(
    model: HiddenMarkovModel, length: int, device: torch.device, moments: MomentSettings
) -> Side:
    settings = HMMTraining(batch_size=BATCH, blur=BLUR, moments=moments)
    learner = SequenceLearner(
        _network(device),
        Reference(model.to("cpu"), floor=1.0, iid=2.0),
        settings,
        seq_len=length,
        num_seq=N_DRAWN,
        random_start=False,
        generators=Generators(0, device),
    )
    parameters = list(learner.module.parameters())
    optimizer = torch.optim.Adam(parameters, 1e-3, betas=(0.9, 0.9))
    step = iter(range(10**9))
    return lambda: _update(learner.training_step(next(step))[0], parameters, optimizer)


def _original_step(model: HiddenMarkovModel, length: int, device: torch.device) -> Side:
    drawn = torch.Generator(device).manual_seed(0)
    targets = functional.one_hot(model.sample(BATCH, length, drawn)[0], SYMBOLS).float()
    with torch.random.fork_rng(devices=[]):
        recurrence = nn.RNN(INPUTS, UNITS, nonlinearity="relu", batch_first=True, bias=False)
        readout = nn.Linear(UNITS, SYMBOLS, bias=False)
    initial = torch.Generator().manual_seed(0)
    parameters = [*recurrence.parameters(), *readout.parameters()]
    for parameter in parameters:
        nn.init.uniform_(parameter, -(UNITS**-0.5), UNITS**-0.5, generator=initial)
    recurrence.to(device)
    readout.to(device)
    criterion = SamplesLoss(blur=BLUR)
    optimizer = torch.optim.Adam(parameters, 1e-3, betas=(0.9, 0.9))

    def run() -> None:
        noise = torch.randn((BATCH, length, INPUTS), generator=drawn, device=device)
        hidden, _ = recurrence(noise)
        with torch.random.fork_rng(devices=[]):
            emitted = functional.gumbel_softmax(readout(hidden), tau=1.0, hard=True)
        _update(criterion(emitted.flatten(1), targets.flatten(1)), parameters, optimizer)

    return run


def _original_free_run(network: NoiseDrivenRNN, generator: torch.Generator) -> Side:
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    of_input, recurrent = (weights[f"layers.0.weight_{name}"] for name in ("input", "recurrent"))
    readout = weights["readout_weight"]
    device = readout.device

    def run() -> None:
        noise = torch.randn((N_FREE, 100, INPUTS), generator=generator, device=device)
        uniform = torch.rand((N_FREE, 100, SYMBOLS), generator=generator, device=device)
        for sequence in range(N_FREE):
            hidden = torch.zeros(UNITS, device=device)
            for step in range(100):
                hidden = torch.relu(of_input @ noise[sequence, step] + recurrent @ hidden)
                gumbel = -torch.log(-torch.log(uniform[sequence, step]))
                torch.argmax(readout @ hidden + gumbel)

    return run


if __name__ == "__main__":
    main()
