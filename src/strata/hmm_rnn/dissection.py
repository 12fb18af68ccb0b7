"""The parts of a dissection: residency, forks, kick neurons and resonance of one network.

Conventions: arrays are those of the stage `strata.hmm_rnn.dissect`, whose docstring explains each.
"""

import torch
from torch import Tensor

from strata.errors import UserError
from strata.hmm_rnn import kick_neurons, silencing
from strata.hmm_rnn.forks import fork, of_groups
from strata.hmm_rnn.mechanism_settings import ZONES, MechanismSettings
from strata.hmm_rnn.recorded import RecordedRun, record
from strata.hmm_rnn.residency import ZoneLimits, largest_softmax, residency, zones
from strata.hmm_rnn.resonance import resonance, scaled_runs
from strata.hmm_rnn.rnn import NoiseDrivenRNN
from strata.hmm_rnn.switches import switches
from strata.randomness import Generators

Arrays = dict[str, Tensor]
Places = tuple[Tensor, Tensor]  # sequences and steps of a run

FORKED = ("transition", "kick", "cluster")
BEFORE_SWITCHES = 3  # steps before a switch in which more states to fork are looked for


class Dissection:
    """A trained network and one recorded run, from which each part of the output is made."""

    def __init__(
        self, network: NoiseDrivenRNN, settings: MechanismSettings, generators: Generators
    ) -> None:
        self.network, self.settings, self.generators = network, settings, generators
        self.run: RecordedRun = record(
            network,
            settings.n_chains,
            settings.n_steps,
            generators["mechanism run"],
            burn_in=settings.burn_in,
        )
        if not bool(self.run.hidden.isfinite().all()):
            raise UserError(
                "The network's state escapes to infinity, so that its changes of symbol cannot be "
                "looked at; train it longer, with training.activity_weight, or from another seed."
            )

    def residency(self, components: Tensor, mean: Tensor) -> tuple[Arrays, Places]:
        """Return the arrays of `residency/` and the places of their states."""
        chosen = self._some_of(self._forkable().nonzero(), self.settings.n_points)
        states = self.run.hidden[chosen]
        arrays = self._zoned(states)
        arrays["scores"] = (states[:, -1].double() - mean) @ components[:3].T
        arrays["symbols"] = self.run.symbols[chosen].to(torch.uint8)
        arrays["zone_shares"] = torch.bincount(arrays["zones"], minlength=len(ZONES)).double()
        arrays["zone_shares"] /= len(states)
        limits = self._limits
        ends = [limits.transition, limits.kick, limits.probability]
        arrays["limits"] = torch.tensor(ends, dtype=torch.float64)
        arrays["cap"] = torch.tensor(self.settings.max_steps)
        return arrays, chosen

    def forks(self, known: Places, known_zones: Tensor) -> Arrays:
        """Return the arrays of `forks/`; the zones of some states are known."""
        settings = self.settings
        more = self._some_of(self._before_switches().nonzero(), settings.n_points)
        more_zones = self._zoned(self.run.hidden[more])["zones"]
        zone = torch.cat([known_zones, more_zones])
        sequence, step = (torch.cat(places) for places in zip(known, more, strict=True))
        numbers = range(len(FORKED))  # the first of ZONES
        members = [(zone == number).nonzero()[: settings.n_fork_points, 0] for number in numbers]
        chosen = torch.cat(members)
        zone, sequence, step = zone[chosen], sequence[chosen], step[chosen]
        states = self.run.hidden[sequence, step]
        after = torch.arange(1, settings.fork_steps + 1).unsqueeze(1)
        found = fork(
            self.network,
            states,
            self.run.noise[step + after, sequence],
            gammas=settings.gammas,
            n_forks=settings.n_forks,
            generator=self.generators["mechanism forks"],
            mixture=settings.mixture,
        )
        norms = states.flatten(1).norm(dim=1)
        arrays = {
            "gammas": torch.tensor(settings.gammas, dtype=torch.float64),
            "norms": torch.stack([norms[zone == number].mean() for number in numbers]),
        }
        for name, values in (("spread", found.spread), ("variance", found.variance)):
            each = of_groups(values, zone, len(FORKED))
            arrays |= {name: each.mean, f"{name}_errors": each.error, "n_states": each.n_states}
        return arrays

    def _before_switches(self) -> Tensor:
        """Return which states of the run switch soon and are followed by enough noise."""
        found = switches(self.run.symbols)
        soon = torch.zeros_like(self.run.symbols, dtype=torch.bool)
        for ahead in range(BEFORE_SWITCHES):
            soon[:, : -1 - ahead] |= found[:, ahead:]
        return soon & self._forkable()

    def kick(self) -> Arrays:
        """Return the arrays of `kick/`."""
        settings = self.settings
        activity = self.run.hidden.flatten(2)
        found = kick_neurons.announcement(
            activity,
            self.run.symbols,
            self.network.output_size,
            window=settings.window,
            distance=settings.distance,
            min_dwell=settings.min_dwell,
            min_switches=settings.min_switches,
        )
        kinds = (found.effects, found.transience)
        groups = torch.stack([kick_neurons.leading_units(v, settings.group_size) for v in kinds])
        score, transient_score = (kick_neurons.best_of_pairs(values) for values in kinds)
        arrays = {
            "pairs": found.pairs,
            "n_switches": found.n_switches,
            "correlation": found.effects,
            "transience": found.transience,
            "score": score,
            "transient_score": transient_score,
            "neurons": score.argsort(descending=True, stable=True),
            "activity": activity.mean((0, 1)),
            "groups": groups,
        }
        return arrays | self._silenced(groups, found.pairs, arrays["activity"])

    def _silenced(self, groups: Tensor, pairs: Tensor, activity: Tensor) -> Arrays:
        """Return what silencing does to the switches; groups are [kind, pair, member]."""
        settings, n_units, n_pairs = self.settings, len(activity), len(pairs)
        silent = silencing.groups_of(groups.flatten(0, 1), n_units)
        intact, units = silent.new_zeros(1, n_units), torch.eye(n_units, dtype=torch.bool)
        controls = [self._controls(group, activity) for group in silent]
        counts = self._transitions_without(torch.cat([intact, units, silent, *controls]))
        rates, pair_rates = silencing.switch_rates(counts), silencing.pair_rates(counts, pairs)
        change, errors = silencing.relative_change(rates, rates[0])
        pair_change = pair_rates / pair_rates[0] - 1.0
        units_end = 1 + n_units
        groups_end = units_end + len(silent)
        shape = groups.shape[:2]
        group_change = change[units_end:groups_end].view(shape)
        control_change = change[groups_end:].view(*shape, settings.n_controls)
        group_pairs = pair_change[units_end:groups_end].view(*shape, n_pairs)
        control_pairs = pair_change[groups_end:].view(*shape, settings.n_controls, n_pairs)
        own_of_group = group_pairs.diagonal(dim1=1, dim2=2)
        own_of_control = control_pairs.diagonal(dim1=1, dim2=3).transpose(1, 2)
        return {
            "intact_rate": rates[0].mean(),
            "intact_pair_rates": pair_rates[0],
            "unit_change": change[1:units_end],
            "unit_errors": errors[1:units_end],
            "unit_pair_change": pair_change[1:units_end],
            "group_change": group_change,
            "group_errors": errors[units_end:groups_end].view(shape),
            "group_pair_change": group_pairs,
            "control_change": control_change,
            "control_pair_change": control_pairs,
            "p_values": share_as_low(group_change, control_change),
            "pair_p_values": share_as_low(own_of_group, own_of_control),
        }

    def _controls(self, group: Tensor, activity: Tensor) -> Tensor:
        return silencing.matched_controls(
            group,
            activity,
            n_controls=self.settings.n_controls,
            n_nearest=self.settings.n_nearest,
            generator=self.generators["mechanism controls"],
        )

    def _transitions_without(self, silent: Tensor) -> Tensor:
        settings = self.settings
        n_steps = settings.silenced_burn_in + settings.n_silenced_steps
        n_chains = settings.n_silenced_chains
        return silencing.transition_counts(
            self.network,
            silent,
            self.network.noise(n_steps, n_chains, self.generators["mechanism silencing"]),
            self.run.hidden[torch.arange(n_chains) % settings.n_chains, -1],
            burn_in=settings.silenced_burn_in,
        )

    def resonance(self) -> Arrays:
        """Return the arrays of `resonance/`."""
        settings = self.settings
        runs = scaled_runs(
            self.network,
            settings.noise_scales,
            n_sequences=settings.n_chains,
            n_steps=settings.n_steps,
            burn_in=settings.burn_in,
            generator=self.generators["mechanism resonance"],
        )
        arrays = {"scales": torch.tensor(settings.noise_scales, dtype=torch.float64)}
        for kind in ("emitted", "most_probable"):
            found = resonance(getattr(runs, kind), self.network.output_size)
            arrays |= {
                f"{kind}/switch_rate": found.switch_rate,
                f"{kind}/switch_rate_errors": found.switch_rate_error,
                f"{kind}/mean_dwell": found.mean_dwell,
                f"{kind}/regularity": found.regularity,
                f"{kind}/n_dwells": found.n_dwells,
                f"{kind}/occupancy": found.occupancy,
            }
        return arrays

    @property
    def _limits(self) -> ZoneLimits:
        settings = self.settings
        return ZoneLimits(
            settings.transition_limit, settings.kick_limit, settings.cluster_probability
        )

    def _zoned(self, states: Tensor) -> Arrays:
        found = residency(
            self.network,
            states,
            n_draws=self.settings.n_draws,
            max_steps=self.settings.max_steps,
            generator=self.generators["mechanism residency"],
        )
        probabilities = largest_softmax(self.network, states)
        return {
            "times": found.times,
            "errors": found.errors,
            "capped": found.capped.double().mean(1),
            "probabilities": probabilities,
            "zones": zones(found.times, probabilities, self._limits),
        }

    def _forkable(self) -> Tensor:
        """Return which states of the run are followed by enough recorded noise."""
        enough = torch.ones_like(self.run.symbols, dtype=torch.bool)
        enough[:, -self.settings.fork_steps :] = False
        return enough

    def _some_of(self, places: Tensor, n: int) -> Places:
        order = torch.randperm(len(places), generator=self.generators["mechanism points"])
        sequence, step = places[order[:n]].T
        return sequence, step


def share_as_low(group: Tensor, controls: Tensor) -> Tensor:
    """Return (1 + controls at most as high as their group) / (1 + controls), [kind, pair].

    Controls that are not finite do not count; NaN where the group is not.
    """
    as_low = (controls <= group.unsqueeze(-1)).sum(-1)
    shares = (1.0 + as_low.double()) / (1.0 + controls.isfinite().sum(-1))
    return shares.masked_fill(~group.isfinite(), torch.nan)
