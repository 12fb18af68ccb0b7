"""Look at a trained network: states, reconstructions, errors and features of clean test images.

All is amortised: one pass of recognition, and descents from every level. Output: see the arrays of
`observed`, `projected` and `features`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.manifold import TSNE
from torch import Tensor

from strata.artifacts import provenance, write_h5
from strata.config import read_settings
from strata.devices import set_threads
from strata.randomness import derived_seed
from strata.rgm.calibration import Calibration, jacobians, read_calibration
from strata.rgm.config import ACTIVE_STD, RunSettings
from strata.rgm.inputs import load_images, load_model
from strata.rgm.learner import LabelledImages, first_of_each_class
from strata.rgm.losses import Pass, up_and_down
from strata.rgm.model import HierarchicalModel
from strata.stages import run_stage, stage_arguments

PERPLEXITY = 30.0
IMAGES_FOR_JACOBIANS = 100
SEEDS_OF_TSNE = 2**32


def observed(model: HierarchicalModel, images: LabelledImages) -> dict[str, Tensor]:
    """Return what one pass up and down gives.

    `activations_level{l}` [image, n_l]; `errors_level{l}` and `weighted_errors_level{l}` [image,
    n_{l-1}], the errors between levels and pi_l^(1/2) times them; `image_mse_level{l}` [image] and
    `squared_error_map` [level, pixel] of the images from every level; `images` [10, pixel] and
    `reconstructions` [level, 10, pixel] of one image a class; `active_fraction` [level].
    """
    x, labels = images.batch(torch.arange(len(images)))
    outcome = up_and_down(model, x)
    arrays = {"labels": labels.to(torch.uint8)}
    for level, state in enumerate(outcome.states):
        error = outcome.errors[level]
        squared = (outcome.images[level] - x).square()
        arrays[f"activations_level{level}"] = state
        arrays[f"errors_level{level}"] = error
        arrays[f"weighted_errors_level{level}"] = model.precisions[level].sqrt() * error
        arrays[f"image_mse_level{level}"] = squared.mean(1)
    arrays["squared_error_map"] = torch.stack([(i - x).square().mean(0) for i in outcome.images])
    shown = first_of_each_class(images.labels)
    arrays["images"] = x[shown]
    arrays["reconstructions"] = torch.stack([image[shown] for image in outcome.images])
    arrays["active_fraction"] = _active_fraction(outcome)
    return arrays


def _active_fraction(outcome: Pass) -> Tensor:
    active = [(s.std(0, correction=0) > ACTIVE_STD).to(torch.float32) for s in outcome.states]
    return torch.stack([fraction.mean() for fraction in active])


def features(
    model: HierarchicalModel, calibration: Calibration, states: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return pictures of what the units stand for.

    `decoder_fields` [n_0, pixel], the columns of B_0; `jacobian_level{l}` [n_l, pixel], dx/ds_l
    averaged over images; `prototypes_level{l}` [m_l, pixel], the images that the means of the
    factor's categories descend to.
    """
    pictures = {"decoder_fields": model.generation(0).T}
    for level in range(1, len(model.levels)):
        J = jacobians(model, level, states[level][:IMAGES_FOR_JACOBIANS])
        pictures[f"jacobian_level{level}"] = J.mean(0).T
    for level, mixture in enumerate(calibration.mixtures):
        pictures[f"prototypes_level{level}"] = model.reconstruct(level, mixture.means)
    return pictures


def projected(states: Sequence[Tensor], n: int, seed: int) -> dict[str, np.ndarray]:
    """Return the plane that t-SNE puts the first n images' states on, `projection_level{l}`."""
    embeddings = {}
    for level, state in enumerate(states):
        perplexity = min(PERPLEXITY, (n - 1) / 3)
        random_state = derived_seed(seed, f"projection {level}") % SEEDS_OF_TSNE
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=random_state)
        embeddings[f"projection_level{level}"] = tsne.fit_transform(state[:n].numpy())
    return embeddings


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage."""
    arguments = stage_arguments(
        __doc__,
        inputs=["settings", "specification", "model", "calibration", "images"],
        outputs=["states"],
    ).parse_args(argv)
    settings = read_settings(RunSettings, arguments.settings, "inspect")
    set_threads()
    model = load_model(arguments.model, arguments.specification, settings, arguments.settings)
    calibration = read_calibration(arguments.calibration, model.specification)
    calibration.free_energy(model)
    looked_at = settings.inspection
    images = load_images(arguments.images, "test", looked_at.n_images)
    with torch.no_grad():
        found = observed(model, images)
        states = [found[f"activations_level{level.index}"] for level in model.levels]
        found |= features(model, calibration, states)
    arrays = {name: array.numpy() for name, array in found.items()}
    n = min(looked_at.n_projected, looked_at.n_images)
    arrays |= projected(states, n, settings.seed)
    arrays["projection_labels"] = arrays["labels"][:n]
    arrays["image_shape"] = np.array(model.specification.image_shape)
    units = {name: "1/pixel" if "mse" in name or "squared" in name else "1" for name in arrays}
    origin = provenance(settings.sections_of("inspect"), seed=settings.seed)
    write_h5(arguments.states, arrays, units=units, attributes=origin)


if __name__ == "__main__":
    run_stage(main)
