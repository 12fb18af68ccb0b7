"""Time the hierarchical model of images: an epoch of training, and an iteration of message passing.

*autoencoder* is a plain autoencoder of the same widths (784-256-64-16 and back, ReLU, squared
error, Adam, gradients clipped): what one pass up and down must cost. *strata* is `ImageLearner`
with the shipped specification: descents from every level, lateral connections, five loss
components, precisions. The *floor* is the arithmetic alone, at the rate of a matrix product of the
sizes of the first layer measured in the same run. One iteration of message passing is a local and a
collective move of all images, each with its evaluation of the free energy; its plain counterpart is
two steps of gradient descent on all states by automatic differentiation of the same free energy.
Learning by counts (the discrete model, on the CPU alone) is explained in `rgm_counting.py`; its
floor is the time to read what an image needs of the tables once.

Run `python benchmarks/rgm.py` (`--device cuda` on a GPU); it writes a Markdown table to standard
output. Times are medians of repeats after a warm-up, sides alternating; seconds of process CPU time
on the CPU, of wall time with synchronization on a GPU.
"""

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rgm_counting import N_COUNTED, counting_sides, reading
from torch import nn

from strata.devices import resolve_device, set_threads
from strata.randomness import Generators
from strata.rgm.calibration import Calibration, calibrate
from strata.rgm.config import GNN_FILES, N_TRAINING
from strata.rgm.free_energy import FreeEnergy
from strata.rgm.learner import ImageLearner, LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.rgm.network_settings import RGMTraining
from strata.rgm.relaxation import relax
from strata.rgm.render import initial_matrices
from strata.rgm.specification import read_specification

BATCH = 128
RELAXED = 500
ITERATIONS = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<number>")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="training steps of one repeat")
    arguments = parser.parse_args()
    set_threads()
    device, reason = resolve_device(arguments.device)
    print(f"{device} ({reason}); torch {torch.__version__}; {torch.get_num_threads()} thread(s)\n")
    images = _images(20 * BATCH, device)
    model = _model(images, device)
    rate = _multiplications_per_second(device, arguments.repeats)
    print("| what | plain | strata | strata / plain | floor | strata / floor |")
    print("|---|---|---|---|---|---|")
    steps = arguments.steps
    sides = [_autoencoder_steps(images, steps), _strata_steps(model, images, steps, device)]
    plain, ours = _medians(sides, device, arguments.repeats)
    epoch = (N_TRAINING // BATCH) / steps
    # Forward, and twice that backward; the descents from lower levels share no work.
    floor = 3 * BATCH * steps * _multiplications_of_a_pass(model) / rate
    _row(f"epoch of {N_TRAINING:,} images, batch {BATCH}, s", plain, ours, floor, epoch)
    energy = _calibrated(model, images).free_energy(model)
    sides = [_automatic_iterations(energy, images), _iterations(energy, images)]
    plain, ours = _medians(sides, device, arguments.repeats)
    floor = 4 * RELAXED * ITERATIONS * _multiplications_of_a_descent(model) / rate
    _row(
        f"iteration of message passing, {RELAXED} images, ms", plain, ours, floor, 1e3 / ITERATIONS
    )
    if device.type == "cpu":
        sides = [*counting_sides(), reading()]
        plain, ours, floor = _medians(sides, device, arguments.repeats)
        _row("learning an image by counts, ms", plain, ours, floor, 1e3 / N_COUNTED)


def _row(what: str, plain: float, ours: float, floor: float, scale: float) -> None:
    cells = (plain * scale, ours * scale, ours / plain, floor * scale, ours / floor)
    words = [f"{cell:.3g}" for cell in cells]
    print(f"| {what} | {' | '.join(words)} |", flush=True)


def _images(n: int, device: torch.device) -> LabelledImages:
    """Return noise of the size of digits: times do not depend on what is seen."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 784), generator=generator, dtype=torch.uint8)
    return LabelledImages(pixels.to(device), (torch.arange(n) % 10).to(device))


def _model(images: LabelledImages, device: torch.device) -> HierarchicalModel:
    root = Path(__file__).parents[1]
    specification = read_specification([root / file for file in GNN_FILES])
    x, _ = images.batch(torch.arange(len(images), device=device))
    matrices = initial_matrices(specification, x.cpu(), torch.Generator().manual_seed(0))
    return HierarchicalModel(specification, matrices).to(device)


def _calibrated(model: HierarchicalModel, images: LabelledImages) -> Calibration:
    on_cpu = LabelledImages(images.images.cpu(), images.labels.cpu())
    device = images.labels.device
    model = model.cpu().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    matrices = initial_matrices(model.specification, on_cpu.batch(torch.arange(100))[0], generator)
    calibration = calibrate(model, on_cpu, matrices)
    model.to(device)
    return calibration.to(device)


def _autoencoder_steps(images: LabelledImages, steps: int) -> Callable[[], None]:
    device = images.labels.device
    widths = [784, 256, 64, 16, 64, 256, 784]
    parts: list[nn.Module] = []
    for i, o in itertools.pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, i, o)
        nn.init.normal_(layer.weight, std=0.05, generator=torch.Generator().manual_seed(i + o))
        nn.init.zeros_(layer.bias)
        parts += [layer, nn.ReLU()]
    parts[5] = nn.Identity()
    parts[-1] = nn.Sigmoid()
    network = nn.Sequential(*parts).to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-5)

    def run() -> None:
        for step in range(steps):
            index = torch.arange(BATCH, device=device) + (step % 20) * BATCH
            x, _ = images.batch(index)
            loss = (network(x) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()

    return run


def _strata_steps(
    model: HierarchicalModel, images: LabelledImages, steps: int, device: torch.device
) -> Callable[[], None]:
    learner = ImageLearner(model, images, images, RGMTraining(), Generators(0, device))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-5)

    def run() -> None:
        for step in range(steps):
            loss, _ = learner.training_step(step)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def _iterations(energy: FreeEnergy, images: LabelledImages) -> Callable[[], None]:
    x, _ = images.batch(torch.arange(RELAXED, device=images.labels.device))
    precision = energy.precisions[0].expand(RELAXED, -1)
    states = energy.model.recognize(x)
    rule = replace(energy.model.specification.message_passing, tolerance=0.0)

    def run() -> None:
        relax(energy, x, precision, states, rule, iterations=ITERATIONS)

    return run


def _automatic_iterations(energy: FreeEnergy, images: LabelledImages) -> Callable[[], None]:
    x, _ = images.batch(torch.arange(RELAXED, device=images.labels.device))
    precision = energy.precisions[0].expand(RELAXED, -1)
    start = energy.model.recognize(x)
    bounds = energy.step_bounds(precision)

    def run() -> None:
        states = [s.clone().requires_grad_() for s in start]
        for _ in range(2 * ITERATIONS):
            total = energy.evaluate(x, precision, states).free_energy.sum()
            gradients = torch.autograd.grad(total, states)
            with torch.no_grad():
                for state, bound, gradient in zip(states, bounds, gradients, strict=True):
                    state -= 0.9 * bound * gradient

    return run


def _multiplications_of_a_descent(model: HierarchicalModel) -> int:
    return sum(level.n_input * level.n_state for level in model.levels)


def _multiplications_of_a_pass(model: HierarchicalModel) -> int:
    """Multiplications of one image: recognition, lateral connections, descents from all levels."""
    up = sum(level.n_state * (level.n_input + level.n_state) for level in model.levels)
    down = sum(
        level.n_input * level.n_state * (len(model.levels) - level.index) for level in model.levels
    )
    return up + down


def _multiplications_per_second(device: torch.device, repeats: int) -> float:
    a = torch.ones((RELAXED, 784), device=device)
    b = torch.ones((784, 256), device=device)

    def run() -> None:
        for _ in range(50):
            a @ b

    (seconds,) = _medians([run], device, repeats)
    return 50 * RELAXED * 784 * 256 / seconds


def _medians(sides: list[Callable[[], None]], device: torch.device, repeats: int) -> list[float]:
    """Return the median seconds of each side, run in turn after one warm-up each."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats + 1):
        for index, side in enumerate(sides):
            _synchronize(device)
            start = clock()
            side()
            _synchronize(device)
            if repeat:
                seconds[index].append(clock() - start)
    return [statistics.median(of_side) for of_side in seconds]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
