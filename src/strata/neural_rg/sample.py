"""Draw from a trained flow, and run independence Metropolis chains that take it as proposal.

The proposals of the chains are the model's samples, so that one pass serves the estimates of the
model, of importance sampling and of the chains.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from strata.artifacts import provenance, write_h5
from strata.checkpoints import load_tensors
from strata.config import read_settings
from strata.devices import prepare
from strata.errors import UserError
from strata.neural_rg.config import RunSettings, SamplingSettings
from strata.neural_rg.flows import Flow, build_flow
from strata.neural_rg.metropolis import ChainState, metropolis_step
from strata.neural_rg.targets import IsingField, build_target
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

SAMPLES_PER_PASS = 4096
UNITS = {
    "model/log_weight": "nats",
    "model/magnetization_squared": "1",
    "model/magnetization": "1",
    "model/fields": "1",
    "chain/accepted": "1",
    "chain/magnetization_squared": "1",
    "chain/fields": "1",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model"], outputs=["samples"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "sample")
    trained = load_tensors(arguments.model, "train the run again")
    if trained.get("settings") != settings.sections_of("train"):
        raise UserError(
            f"{arguments.model} was trained with other settings than {arguments.settings} holds; "
            "train the run again, or name the settings that belong to it."
        )
    device, dtype = prepare(arguments.device, settings.training.dtype)
    generators = Generators(settings.seed, device)
    flow = build_flow(settings, generators.on_cpu("init")).to(device, dtype)
    flow.load_state_dict(trained[settings.sampling.weights])
    target = build_target(settings.target, dtype=dtype, device=device)
    arrays = draw(flow, target, settings, generators)
    origin = provenance(settings.sections_of("sample"), seed=settings.seed, device=str(device))
    write_h5(arguments.samples, arrays, units=UNITS, attributes=origin)


@torch.no_grad()
def draw(
    flow: Flow, target: IsingField, settings: RunSettings, generators: Generators
) -> dict[str, np.ndarray]:
    """Return the arrays named in `UNITS`, for n_steps measured steps of n_chains chains.

    Shapes: (n_steps, n_chains), and (n_kept, *lattice) for fields. The first n_therm steps are left
    out; chains start from one model sample each.
    """
    sampling = settings.sampling
    proposals = _proposals(flow, target, sampling, generators)
    state = next(proposals)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in UNITS if "fields" not in name}
    for step in range(sampling.n_therm + sampling.n_steps):
        proposal = next(proposals)
        state, accepted = metropolis_step(state, proposal, generators["accept"])
        if step >= sampling.n_therm:
            rows["model/log_weight"].append(proposal.log_weight)
            rows["model/magnetization_squared"].append(
                target.magnetization_squared(proposal.fields)
            )
            rows["model/magnetization"].append(target.mean_magnetization(proposal.fields))
            rows["chain/accepted"].append(accepted)
            rows["chain/magnetization_squared"].append(target.magnetization_squared(state.fields))
    arrays = {name: torch.stack(values).cpu().numpy() for name, values in rows.items()}
    arrays["model/fields"] = proposal.fields[: sampling.n_kept].cpu().numpy()
    arrays["chain/fields"] = state.fields[: sampling.n_kept].cpu().numpy()
    return arrays


def _proposals(
    flow: Flow, target: IsingField, sampling: SamplingSettings, generators: Generators
) -> Iterator[ChainState]:
    """Yield one proposal for all chains after the other, without end."""
    n_chains = sampling.n_chains
    per_pass = n_chains * max(1, SAMPLES_PER_PASS // n_chains)
    while True:
        x, log_prob = flow.sample(per_pass, generators["sample"])
        log_weight = target.log_density(x) - log_prob
        for fields, weights in zip(x.split(n_chains), log_weight.split(n_chains), strict=True):
            yield ChainState(fields, weights)


if __name__ == "__main__":
    run_stage(main)
