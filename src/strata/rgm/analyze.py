"""Hold a trained model against simple methods and against what is expected of it.

Two kinds of checks: those that hold for every run (the code beats as many principal components, the
free energy never rises, no level is idle, reconstructions differ from image to image), and those
that the settings ask for. Conventions: those of `strata.rgm.measurements`; errors are one standard
error. Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from strata.artifacts import provenance, read_h5, settings_behind
from strata.config import canonical, read_settings
from strata.errors import UserError
from strata.quantities import Quantity, quantity, write_analysis
from strata.rgm.conditions import read_conditions
from strata.rgm.config import ExpectedSettings, RunSettings
from strata.rgm.measurements import (
    COMPARED,
    DIGITS,
    LABELLED,
    STATES,
    baseline_quantities,
    generation_quantities,
    inference_quantities,
    labelling_quantities,
    state_quantities,
)
from strata.stages import run_stage, stage_arguments
from strata.verdicts import Check, Relation, write_verdict

INPUTS = ("inference", "states", "digits", "active", "baselines")
HALF_HIDDEN = "half_occlusion_0.5_known"
MIN_ACTIVE_FRACTION = 0.05
MIN_SPREAD = 0.2
RELATIVE_RISE_ALLOWED = 1e-6  # rounding of single precision
NOT_MEASURED = quantity(math.nan, None, "1")


def checks(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    """Return the run's checks: what holds for every run, then what the settings expect.

    A quantity that was not measured fails its check.
    """
    return [*_demands_of_every_run(quantities), *_expectations(quantities, expected)]


def _n_levels(quantities: Mapping[str, Quantity]) -> int:
    return sum(name.startswith("values_level") for name in quantities)


def _check(
    quantities: Mapping[str, Quantity],
    name: str,
    measured: str,
    relation: Relation,
    limit: float,
    source: str,
    *,
    tolerance: float = 0.0,
) -> Check:
    found = quantities.get(measured, NOT_MEASURED)
    return Check(name, found["value"], relation, limit, tolerance, found["unit"], source)


def _demands_of_every_run(quantities: Mapping[str, Quantity]) -> list[Check]:
    top = _n_levels(quantities) - 1
    n_values = round(quantities[f"values_level{top}"]["value"])
    components = quantities.get(f"baseline_mse_pca_{n_values}", NOT_MEASURED)["value"]
    found = [
        _check(
            quantities,
            f"squared error from {n_values} numbers",
            f"clean_mse_level{top}_amortised",
            "at most",
            components,
            f"{n_values} principal components of the same images",
        ),
        _check(
            quantities,
            "largest relative rise of the free energy",
            "largest_relative_free_energy_rise",
            "at most",
            0.0,
            "a move that raises it is refused; rounding is allowed",
            tolerance=RELATIVE_RISE_ALLOWED,
        ),
    ]
    of_levels = [
        ("share of active units", "active_fraction", MIN_ACTIVE_FRACTION),
        ("spread of the reconstructions", "reconstruction_spread", MIN_SPREAD),
    ]
    for words, measured, limit in of_levels:
        found += [
            _check(
                quantities,
                f"{words}, level {level}",
                f"{measured}_level{level}",
                "at least",
                limit,
                "a collapsed model has none",
            )
            for level in range(top + 1)
        ]
    return found


def _expectations(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    top = _n_levels(quantities) - 1
    wanted: list[tuple[str, str, Relation, float | None]] = [
        (
            "squared error from the highest level",
            f"clean_mse_level{top}_amortised",
            "at most",
            expected.mse_top,
        ),
        (
            "squared error from level 0",
            "clean_mse_level0_amortised",
            "at most",
            expected.mse_level0,
        ),
        ("accuracy", "clean_accuracy_amortised", "at least", expected.accuracy),
        (
            "accuracy by free energy",
            "clean_accuracy_inferred",
            "at least",
            expected.accuracy_free_energy,
        ),
        (
            "share of the squared error that inference takes off, half hidden",
            f"{HALF_HIDDEN}_mse_drop_level0",
            "at least",
            expected.occlusion_mse_drop,
        ),
        (
            "accuracy by free energy, half hidden",
            f"{HALF_HIDDEN}_accuracy_inferred",
            "at least",
            expected.occlusion_accuracy,
        ),
        (
            "class consistency of generated digits",
            "generated_consistency",
            "at least",
            expected.consistency,
        ),
    ]
    return [
        _check(quantities, name, measured, relation, limit, expected.source)
        for name, measured, relation, limit in wanted
        if limit is not None
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", *INPUTS], outputs=["analysis", "verdict"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    inputs = {name: getattr(arguments, name) for name in INPUTS}
    made_with = settings_behind(list(inputs.values()), settings.sections_of("analyze"))
    quantities = run_quantities(inputs)
    origin = provenance(canonical(made_with), seed=made_with.get("seed"))
    write_analysis(arguments.analysis, quantities, origin)
    write_verdict(arguments.verdict, checks(quantities, settings.expected), origin)
    for name, entry in quantities.items():
        error = "" if entry["error"] is None else f" ± {entry['error']:.2g}"
        print(f"{name}: {entry['value']:.8g}{error} {entry['unit']}")


def run_quantities(inputs: Mapping[str, Path]) -> dict[str, Quantity]:
    """Return all that the files (by the names in `INPUTS`) say.

    Raises:
        UserError: a file is missing or is something else, or two do not belong together.
    """
    states = read_h5(inputs["states"], *STATES)
    levels = [f"activations_level{level}" for level in range(len(states["reconstructions"]))]
    states = read_h5(inputs["states"], *STATES, *levels)
    as_many_components = f"mse/pca_{states[levels[-1]].shape[1]}"
    baselines = read_h5(inputs["baselines"], *COMPARED, as_many_components)
    digits = read_h5(inputs["digits"], *DIGITS)
    judged, asked = len(baselines["generated/judged"]), len(digits["generated_class"])
    if judged != asked:
        raise UserError(
            f"{inputs['baselines']} judges {judged} digits, and {inputs['digits']} holds {asked}; "
            "compare them again."
        )
    return {
        **inference_quantities(read_conditions(inputs["inference"])),
        **state_quantities(states),
        **generation_quantities(digits, baselines),
        **labelling_quantities(read_h5(inputs["active"], *LABELLED)),
        **baseline_quantities(baselines),
    }


if __name__ == "__main__":
    run_stage(main)
