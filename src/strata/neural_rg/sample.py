"""Draw from a trained flow, and run independence Metropolis chains that take it as proposal.

The proposals of the chains are the model's samples, so that one pass serves the estimates of the
model, of importance sampling and of the chains.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import prepare
from strata.neural_rg.config import RunSettings, SamplingSettings
from strata.neural_rg.flows import Flow
from strata.neural_rg.metropolis import ChainState, metropolis_step
from strata.neural_rg.targets import Target, build_target
from strata.neural_rg.trained import load_flow
from strata.randomness import Generators
from strata.stages import run_stage, stage_arguments

SAMPLES_PER_PASS = 4096
UNITS = {
    "model/log_weight": "nats",
    "model/observable": "1",
    "model/order_parameter": "1",
    "model/fields": "1",
    "chain/accepted": "1",
    "chain/observable": "1",
    "chain/fields": "1",
    "trajectory/proposed": "1",
    "trajectory/state": "1",
    "trajectory/accepted": "1",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", "model"], outputs=["samples"], device=True
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "sample")
    device, dtype = prepare(arguments.device, settings.training.dtype, arguments.gpu_memory)
    generators = Generators(settings.seed, device)
    flow = load_flow(arguments.model, settings, arguments.settings, device=device, dtype=dtype)
    target = build_target(settings.target, dtype=dtype, device=device)
    arrays = draw(flow, target, settings, generators)
    origin = provenance(settings.sections_of("sample"), seed=settings.seed, device=str(device))
    write_h5(arguments.samples, arrays, units=UNITS, attributes=origin)


@torch.no_grad()
def draw(
    flow: Flow, target: Target, settings: RunSettings, generators: Generators
) -> dict[str, np.ndarray]:
    """Return the arrays named in `UNITS`, for n_steps measured steps of n_chains chains.

    Shapes: (n_steps, n_chains); (n_kept, *event) for fields; (n_shown, *event) for the trajectory,
    which holds the first chain's first measured steps: what was proposed, and the state after. The
    first n_therm steps are left out; chains start from one model sample each.
    """
    sampling = settings.sampling
    proposals = _proposals(flow, target, sampling, generators)
    state = next(proposals)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in UNITS if "fields" not in name}
    for step in range(sampling.n_therm + sampling.n_steps):
        proposal = next(proposals)
        state, accepted = metropolis_step(state, proposal, generators["accept"])
        measured = step - sampling.n_therm
        if measured >= 0:
            rows["model/log_weight"].append(proposal.log_weight)
            rows["model/observable"].append(target.observable(proposal.fields))
            rows["model/order_parameter"].append(target.order_parameter(proposal.fields))
            rows["chain/accepted"].append(accepted)
            rows["chain/observable"].append(target.observable(state.fields))
        if 0 <= measured < sampling.n_shown:
            rows["trajectory/proposed"].append(proposal.fields[0])
            rows["trajectory/state"].append(state.fields[0])
            rows["trajectory/accepted"].append(accepted[0])
    arrays = {name: torch.stack(values).cpu().numpy() for name, values in rows.items()}
    arrays["model/fields"] = proposal.fields[: sampling.n_kept].cpu().numpy()
    arrays["chain/fields"] = state.fields[: sampling.n_kept].cpu().numpy()
    return arrays


def _proposals(
    flow: Flow, target: Target, sampling: SamplingSettings, generators: Generators
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
