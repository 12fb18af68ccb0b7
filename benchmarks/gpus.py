"""A sweep on the GPUs of one machine: wall time against how many there are, and how many share one.

Eight trainings of one flow (seeds 0 to 7; the 8 x 8 Ising model, windows, reverse divergence) go
through Snakemake in a temporary copy of the workflow, with `--resources gpu=<jobs at once>`; which
GPU each takes is decided by `strata.gpus`. With as many jobs as GPUs each has one to itself, with
more they share them by memory. Counted is everything from Snakemake's start to its end, after one
training that is not counted (it fills the caches of compiled kernels). The largest difference of
any weight from the first row stands in the table: sums on a GPU have no fixed order, so that two
runs with one seed differ by rounding, which training enlarges.

    python benchmarks/gpus.py --gpus 1,2 --share 1,4

A row per number of GPUs and of jobs on each. Needs as many GPUs as it is asked for, and as many
cores as jobs at once.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from writing import Written, machine

from strata.gpus import VISIBLE, visible_gpus

REPOSITORY = Path(__file__).parents[1]
COPIED = ("Snakefile", "workflow", "profiles", "config", "envs", "src")
N_SEEDS = 8


def experiment(steps: int) -> dict[str, object]:
    """Return the sweep's settings."""
    return {
        "gpu_sweep": {
            "target": {"L": 8},
            "flow": {"name": "window_mera", "preconditioner": "gaussian", "symmetrize": True},
            "training": {
                "delta": 0.0,
                "omega": 1.0,
                "estimator": "path",
                "n_therm": 0,
                "lr": 5.0e-3,
                "steps": steps,
                "evaluate_every": steps,
                "checkpoint_every": steps,
            },
            "sweep": {"seed": list(range(N_SEEDS))},
        }
    }


def checkout(folder: Path, steps: int) -> None:
    """Copy the workflow, with the sweep as its only experiment of this family."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    (folder / "config" / "neural_rg.yaml").write_text(yaml.safe_dump(experiment(steps)))


def seconds(folder: Path, gpus: Sequence[str], at_once: int, seeds: range) -> float:
    """Return how long Snakemake takes to train these seeds from nothing."""
    shutil.rmtree(folder / "results", ignore_errors=True)
    targets = [f"results/gpu_sweep/seed~{seed}/model.pt" for seed in seeds]
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", str(max(at_once, 1))]
    environment = {
        **os.environ,
        VISIBLE: ",".join(gpus),
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    started = time.perf_counter()
    subprocess.run(
        [*command, "--resources", f"gpu={at_once}", "--", *targets],
        cwd=folder,
        env=environment,
        check=True,
    )
    return time.perf_counter() - started


def weights(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Return the last weights of every seed."""
    paths = [folder / f"results/gpu_sweep/seed~{seed}/model.pt" for seed in range(N_SEEDS)]
    return [torch.load(path, map_location="cpu", weights_only=True)["last"] for path in paths]


def largest_difference(
    first: Sequence[dict[str, torch.Tensor]], second: Sequence[dict[str, torch.Tensor]]
) -> float:
    """Return the largest difference of any weight."""
    return max(
        float((one[name] - other[name]).abs().max())
        for one, other in zip(first, second, strict=True)
        for name in one
    )


def devices_taken(folder: Path) -> int:
    """Return on how many GPUs the runs say that they were."""
    logs = (folder / "results" / "gpu_sweep").glob("*/logs/train.log")
    return len({log.read_text().split("reserved ")[1].split()[0] for log in logs})


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpus", default="1,2", help="numbers of GPUs (default: 1,2)")
    parser.add_argument("--share", default="1,4", help="jobs on each (default: 1,4)")
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: 600)")
    parser.add_argument("--table", type=Path, help="output, Markdown")
    arguments = parser.parse_args()
    uuids = [gpu.uuid for gpu in visible_gpus()]
    counts = [int(text) for text in arguments.gpus.split(",")]
    if max(counts) > len(uuids):
        parser.error(f"--gpus {arguments.gpus}: {len(uuids)} GPUs are visible here")
    written = Written()
    written.write(f"{N_SEEDS} trainings of {arguments.steps} steps; {machine()}\n\n")
    written.write("| GPUs | jobs on each | GPUs taken | wall time (s) | ratio | difference |\n")
    written.write("|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkout(folder, arguments.steps)
        seconds(folder, uuids[:1], 1, range(1))
        base: tuple[float, list[dict[str, torch.Tensor]]] | None = None
        for n_gpus in counts:
            for share in map(int, arguments.share.split(",")):
                taken = seconds(folder, uuids[:n_gpus], n_gpus * share, range(N_SEEDS))
                found = weights(folder)
                base = base or (taken, found)
                written.write(
                    f"| {n_gpus} | {share} | {devices_taken(folder)} | {taken:.1f} | "
                    f"{base[0] / taken:.2f} | {largest_difference(base[1], found):.1e} |\n"
                )
    if arguments.table:
        arguments.table.write_text(written.text)


if __name__ == "__main__":
    main()
