"""Estimate precisions and factors of a trained network from training images."""

from collections.abc import Sequence

import torch

from strata.artifacts import provenance, read_h5, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.errors import UserError
from strata.rgm.calibration import calibrate
from strata.rgm.config import RunSettings
from strata.rgm.inputs import load_model, training_images
from strata.stages import run_stage, stage_arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "matrices", "model", "images"],
        outputs=["calibration"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "calibrate")
    set_threads()
    model = load_model(arguments.model, arguments.specification, settings, arguments.settings)
    images = training_images(arguments.images, settings.data)
    names = [f"M_level{level.index}" for level in model.levels]
    prototypes = {k: torch.from_numpy(v) for k, v in read_h5(arguments.matrices, *names).items()}
    try:
        calibration = calibrate(model, images, prototypes)
    except ValueError as error:
        raise UserError(f"{arguments.images}: {error}") from error
    arrays = {name: array.numpy() for name, array in calibration.arrays.items()}
    origin = provenance(settings.sections_of("calibrate"), seed=settings.seed)
    write_h5(arguments.calibration, arrays, units=dict.fromkeys(arrays, "1"), attributes=origin)
    for level, precision in enumerate(calibration.precisions):
        occupied = int((calibration.mixtures[level].log_weights.exp() > 1e-4).sum())
        print(
            f"level {level}: precision of its errors {precision.median():.4g} (median); "
            f"{occupied} of {len(calibration.mixtures[level].log_weights)} categories occupied"
        )


if __name__ == "__main__":
    run_stage(main)
