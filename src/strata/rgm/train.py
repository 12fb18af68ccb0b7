"""Train the network on images: settings, specification and matrices in, history and model out.

Beside the outputs stands `checkpoint.pt` while the run goes on; see `strata.checkpoints`.
"""

from collections.abc import Sequence

from strata.artifacts import fingerprint
from strata.checkpoints import RunFiles
from strata.config import read_settings
from strata.devices import prepare
from strata.randomness import Generators
from strata.rgm.config import RunSettings
from strata.rgm.inputs import build_model, load_images, training_images
from strata.rgm.learner import ImageLearner
from strata.stages import run_stage, stage_arguments
from strata.training import train_to_files


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "matrices", "images"],
        outputs=["history", "model"],
        device=True,
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "train")
    device, _ = prepare(arguments.device, "float32", arguments.gpu_memory)
    data = settings.data
    training = training_images(arguments.images, data, device=device)
    validation = load_images(arguments.images, "validation", data.n_validation, device=device)
    model = build_model(arguments.specification, arguments.matrices).to(device)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{n_parameters:,} parameters; {len(training):,} training images", flush=True)
    generators = Generators(settings.seed, device)
    train_to_files(
        ImageLearner(model, training, validation, settings.training, generators),
        settings.training.loop(data.n_train),
        RunFiles(model=arguments.model, history=arguments.history),
        settings_json=settings.sections_of("train"),
        generators=generators,
        monitor="loss",
        inputs=[arguments.specification, arguments.matrices, arguments.images],
        made_of={"specification_sha256": fingerprint(arguments.specification)},
    )


if __name__ == "__main__":
    run_stage(main)
