"""Hold a trained model against simple methods and against what is expected of it.

Two kinds of checks: those that hold for every run (the code beats as many principal components, the
free energy never rises, no level is idle, reconstructions differ from image to image), and those
that the settings ask for. Conventions: those of `strata.rgm.measurements`; errors are one standard
error. Imports no torch.
"""

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    Arrays,
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
Wanted = Mapping[str, tuple[str, str, Relation]]  # a setting -> check, quantity, relation


def checks(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    """Return the run's checks: what holds for every run, then what the settings expect.

    A quantity that was not measured fails its check.
    """
    top = _n_levels(quantities) - 1
    wanted = _wanted(top)
    return [*_demands_of_every_run(quantities), *expectations(quantities, expected, wanted)]


def _n_levels(quantities: Mapping[str, Quantity]) -> int:
    return sum(name.startswith("values_level") for name in quantities)


def check_of(
    quantities: Mapping[str, Quantity],
    name: str,
    measured: str,
    relation: Relation,
    limit: float,
    source: str,
    *,
    tolerance: float = 0.0,
) -> Check:
    """Return the check of one quantity, which is NaN if it was not measured."""
    found = quantities.get(measured, NOT_MEASURED)
    return Check(name, found["value"], relation, limit, tolerance, found["unit"], source)


def _demands_of_every_run(quantities: Mapping[str, Quantity]) -> list[Check]:
    top = _n_levels(quantities) - 1
    n_values = round(quantities[f"values_level{top}"]["value"])
    components = quantities.get(f"baseline_mse_pca_{n_values}", NOT_MEASURED)["value"]
    found = [
        check_of(
            quantities,
            f"squared error from {n_values} numbers",
            f"clean_mse_level{top}_amortised",
            "at most",
            components,
            f"{n_values} principal components of the same images",
        ),
        check_of(
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
            check_of(
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


def expectations(
    quantities: Mapping[str, Quantity], expected: ExpectedSettings, wanted: Wanted
) -> list[Check]:
    """Return the checks of those settings that give a limit, in the order in which they stand."""
    limits = {setting: getattr(expected, setting) for setting in wanted}
    return [
        check_of(quantities, name, measured, relation, limits[setting], expected.source)
        for setting, (name, measured, relation) in wanted.items()
        if limits[setting] is not None
    ]


def _wanted(top: int) -> Wanted:
    return {
        "mse_top": (
            "squared error from the highest level",
            f"clean_mse_level{top}_amortised",
            "at most",
        ),
        "mse_level0": ("squared error from level 0", "clean_mse_level0_amortised", "at most"),
        "accuracy": ("accuracy", "clean_accuracy_amortised", "at least"),
        "accuracy_free_energy": (
            "accuracy by free energy",
            "clean_accuracy_inferred",
            "at least",
        ),
        "occlusion_mse_drop": (
            "share of the squared error that inference takes off, half hidden",
            f"{HALF_HIDDEN}_mse_drop_level0",
            "at least",
        ),
        "occlusion_accuracy": (
            "accuracy by free energy, half hidden",
            f"{HALF_HIDDEN}_accuracy_inferred",
            "at least",
        ),
        "consistency": (
            "class consistency of generated digits",
            "generated_consistency",
            "at least",
        ),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", *INPUTS], outputs=["analysis", "verdict"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "analyze")
    inputs = {name: getattr(arguments, name) for name in INPUTS}
    made_with = settings_behind(list(inputs.values()), settings.sections_of("analyze"))
    quantities = run_quantities(inputs)
    write_findings(arguments, quantities, checks(quantities, settings.expected), made_with)


def write_findings(
    arguments: Namespace,
    quantities: Mapping[str, Quantity],
    found: Sequence[Check],
    made_with: Mapping[str, Any],
) -> None:
    """Write and print the quantities and write the verdict, where the arguments say.

    `made_with` holds all settings behind them, by section.
    """
    origin = provenance(canonical(made_with), seed=made_with.get("seed"))
    write_analysis(arguments.analysis, quantities, origin)
    write_verdict(arguments.verdict, found, origin)
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
    digits, baselines = judged_digits(inputs["digits"], inputs["baselines"], as_many_components)
    return {
        **inference_quantities(read_conditions(inputs["inference"])),
        **state_quantities(states),
        **generation_quantities(digits, baselines),
        **labelling_quantities(read_h5(inputs["active"], *LABELLED)),
        **baseline_quantities(baselines),
    }


def judged_digits(digits_path: Path, baselines_path: Path, *needed: str) -> tuple[Arrays, Arrays]:
    """Return generated digits, and what simple methods say of them and of real ones.

    Raises:
        UserError: a file is missing or is something else, the second lacks what is needed, or it
            judges another number of digits than the first one holds.
    """
    baselines = read_h5(baselines_path, *COMPARED, *needed)
    digits = read_h5(digits_path, *DIGITS)
    judged, asked = len(baselines["generated/judged"]), len(digits["generated_class"])
    if judged != asked:
        raise UserError(
            f"{baselines_path} judges {judged} digits, and {digits_path} holds {asked}; compare "
            "them again."
        )
    return digits, baselines


if __name__ == "__main__":
    run_stage(main)
