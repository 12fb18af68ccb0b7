"""Time one training step of the MERA flow against the original's structure of the same step.

Both sides use the same network, target, batch and settings (the original's: 5 + 1 Metropolis steps,
data and variational term) and one thread. *plain* follows the original: every Metropolis step keeps
its gradient graph and evaluates ln p of the proposal and of the present state by inferring passes
(6 generating + 14 inferring passes forward, 10 passes backward). *strata* is `FlowLearner`.

Run `python benchmarks/training_step.py`; it writes a Markdown table to standard output. Seconds are
medians of process CPU time after one warm-up step; runs alternate between the two sides.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from strata.devices import set_threads
from strata.neural_rg.config import NeuralRGTraining, RunSettings
from strata.neural_rg.flows import GaussianFlow, build_flow
from strata.neural_rg.learner import FlowLearner
from strata.neural_rg.metropolis import ReplayBuffer
from strata.neural_rg.target_settings import IsingSettings
from strata.neural_rg.targets import Target, build_target
from strata.randomness import Generators


def plain_step(
    flow: GaussianFlow, target: Target, settings: NeuralRGTraining, buffer: ReplayBuffer,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Return the loss of one step in the original's structure."""
    batch = settings.batch
    z = buffer.draw(batch, generator)
    variational = torch.zeros(())
    for step in range(settings.n_therm + settings.n_steps):
        x, _ = flow.sample(batch, generator)
        log_ratio = target.log_density(x) - target.log_density(z)
        log_ratio = log_ratio - flow.log_prob(x) + flow.log_prob(z)
        accept = (log_ratio.exp() >= torch.rand(batch, generator=generator)).to(x.dtype)
        accept = accept.view(-1, 1, 1)
        z = accept * x + (1 - accept) * z
        if step >= settings.n_therm:
            variational = variational + (flow.log_prob(x) - target.log_density(x)).mean()
    buffer.push(z.detach(), generator)
    data = -flow.log_prob(buffer.draw(batch, generator)).mean()
    return settings.delta * data + settings.omega * variational / settings.n_steps


def measure(length: int, batch: int, repeats: int) -> tuple[float, float]:
    """Return the median CPU seconds of a step (loss and gradient): plain, strata."""
    settings = RunSettings(
        target=IsingSettings(L=length), training=NeuralRGTraining(batch=batch, weight_decay=0.0)
    )
    device = torch.device("cpu")
    target = build_target(settings.target, dtype=torch.float32, device=device)
    generators = Generators(0, device)
    flow = build_flow(settings, generators.on_cpu("init"))
    assert isinstance(flow, GaussianFlow)
    learner = FlowLearner(flow, target, settings.training, generators)
    learner.training_step(0)
    buffer = ReplayBuffer(settings.training.buffer_batches * batch, learner.buffer.fields)
    buffer.push(learner.buffer.fields, generators["plain"])
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: plain_step(flow, target, settings.training, buffer, generators["plain"]),
        "strata": lambda: learner.training_step(0)[0],
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, step in sides.items():
            flow.zero_grad()
            start = time.process_time()
            step().backward()
            if repeat:
                seconds[name].append(time.process_time() - start)
    return statistics.median(seconds["plain"]), statistics.median(seconds["strata"])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    set_threads()
    print("| L | batch | plain (s) | strata (s) | ratio |\n|---|---|---|---|---|")
    for length, batch in ((4, 256), (4, 1024), (8, 256), (8, 1024), (16, 256)):
        plain, strata = measure(length, batch, arguments.repeats)
        ratio = plain / strata
        print(f"| {length} | {batch} | {plain:.3f} | {strata:.3f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
