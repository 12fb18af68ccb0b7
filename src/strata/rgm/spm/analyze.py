"""Hold a discrete model against simple methods and against what is expected of it.

Two kinds of checks: those that hold for every run (the free energy of factorised beliefs lies above
-ln p(o), learning does not undo what the structure knew), and those that the settings ask for; what
was not measured fails its check. Conventions: those of `strata.rgm.spm.measurements`; errors are
one standard error. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from strata.artifacts import read_h5, settings_behind
from strata.config import read_settings
from strata.errors import UserError
from strata.quantities import Quantity
from strata.rgm.analyze import (
    HALF_HIDDEN,
    NOT_MEASURED,
    Wanted,
    check_of,
    expectations,
    judged_digits,
    write_findings,
)
from strata.rgm.conditions import CLEAN, read_conditions
from strata.rgm.config import ExpectedSettings, RunSettings
from strata.rgm.measurements import (
    LABELLED,
    Arrays,
    answer_quantities,
    baseline_quantities,
    generation_quantities,
    labelling_quantities,
)
from strata.rgm.spm.confidence import read_log_evidence
from strata.rgm.spm.measurements import (
    EVALUATED,
    STRUCTURE,
    confidence_quantities,
    evidence_quantities,
    learning_quantities,
    n_levels,
    structure_quantities,
)
from strata.stages import run_stage, stage_arguments
from strata.verdicts import Check

INPUTS = ("structure", "history", "inference", "digits", "active", "baselines")
ROUNDING = 1e-5  # of sums over a thousand terms in single precision
BOUND = "F >= -ln p(o) for all beliefs; rounding is allowed"


def checks(quantities: Mapping[str, Quantity], expected: ExpectedSettings) -> list[Check]:
    """Return the run's checks: what holds for every run, then what the settings expect."""
    top = sum(name.startswith("states_level") for name in quantities) - 1
    return [
        *_demands_of_every_run(quantities),
        *expectations(quantities, expected, wanted_with(top)),
    ]


def _demands_of_every_run(quantities: Mapping[str, Quantity]) -> list[Check]:
    found = [
        check_of(
            quantities,
            "smallest relative cost of the published messages",
            "smallest_relative_message_cost",
            "at least",
            0.0,
            BOUND,
            tolerance=ROUNDING,
        ),
        check_of(
            quantities,
            "largest relative violation of the bound on the evidence",
            "largest_relative_bound_violation",
            "at most",
            0.0,
            BOUND,
            tolerance=ROUNDING,
        ),
    ]
    if quantities["images_learned"]["value"] > 0:
        found.append(
            check_of(
                quantities,
                "accuracy with all images learned",
                "accuracy_all_learned",
                "at least",
                quantities.get("accuracy_structure_only", NOT_MEASURED)["value"],
                "accuracy of the structure alone",
            )
        )
    return found


def wanted_with(top: int) -> Wanted:
    """Return what each setting of `expected` asks of a model whose highest level is given."""
    return {
        "accuracy_structure_only": (
            "accuracy of the structure alone",
            "accuracy_structure_only",
            "at least",
        ),
        "accuracy_at_2000": ("accuracy after 2,000 images", "accuracy_at_2000", "at least"),
        "accuracy_at_10000": ("accuracy after 10,000 images", "accuracy_at_10000", "at least"),
        "accuracy": ("accuracy", "clean_accuracy_amortised", "at least"),
        "accuracy_free_energy": (
            "accuracy by exact messages",
            "clean_accuracy_inferred",
            "at least",
        ),
        "accuracy_confident_half": (
            "accuracy on the most confident half",
            "accuracy_confident_half_margin_amortised",
            "at least",
        ),
        "quantization_mse": ("squared error of quantisation", "quantization_mse", "at most"),
        "mse_top": (
            "squared error from the highest level",
            f"clean_mse_level{top}_amortised",
            "at most",
        ),
        "mse_level0": ("squared error from level 0", "clean_mse_level0_amortised", "at most"),
        "occlusion_mse_drop": (
            "share of the squared error that exact messages take off, half hidden",
            f"{HALF_HIDDEN}_mse_drop_level0",
            "at least",
        ),
        "occlusion_accuracy": (
            "accuracy by exact messages, half hidden",
            f"{HALF_HIDDEN}_accuracy_inferred",
            "at least",
        ),
        "consistency": (
            "class consistency of generated digits",
            "generated_consistency",
            "at least",
        ),
    }


def run_quantities(inputs: Mapping[str, Path], n_validation: int) -> dict[str, Quantity]:
    """Return all that the files (by the names in `INPUTS`) say.

    Args:
        inputs: name -> file.
        n_validation: images behind the accuracy on the validation part.

    Raises:
        UserError: a file is missing or is something else, or two do not belong together.
    """
    structure = read_h5(inputs["structure"], *STRUCTURE)
    history = _history(inputs["history"], n_levels(structure))
    conditions = read_conditions(inputs["inference"])
    clean = conditions[CLEAN]
    log_evidence = read_log_evidence(inputs["inference"], len(clean.labels))
    digits, baselines = judged_digits(inputs["digits"], inputs["baselines"])
    return {
        **structure_quantities(structure),
        **learning_quantities(history, n_validation),
        **answer_quantities(conditions),
        **evidence_quantities(conditions),
        **confidence_quantities(clean, log_evidence),
        **generation_quantities(digits, baselines),
        **labelling_quantities(read_h5(inputs["active"], *LABELLED)),
        **baseline_quantities(baselines),
    }


def _history(path: Path, levels: int) -> Arrays:
    history = read_h5(path, *EVALUATED)
    if not len(history["eval/step"]):
        raise UserError(f"{path} holds no rows of the phase 'eval'; train again.")
    if not len(history.get("train/step", ())):
        return history
    history = read_h5(path, "train/gate", "train/mutual_information")
    for name in ("train/gate", "train/mutual_information"):
        shape = (len(history["train/step"]), levels + 1)
        if history[name].shape != shape:
            raise UserError(
                f"{path}: {name} has the shape {history[name].shape}; {shape[0]} rows of "
                f"{levels} levels and the classes have {shape}; train again, or name the files of "
                "one run."
            )
    return history


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__, inputs=["settings", *INPUTS], outputs=["analysis", "verdict"]
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "spm_analyze")
    inputs = {name: getattr(arguments, name) for name in INPUTS}
    made_with = settings_behind(list(inputs.values()), settings.sections_of("spm_analyze"))
    quantities = run_quantities(inputs, settings.data.n_validation)
    write_findings(arguments, quantities, checks(quantities, settings.expected), made_with)


if __name__ == "__main__":
    run_stage(main)
