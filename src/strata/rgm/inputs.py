"""What stages read: images of a run, the network before training and after it."""

from pathlib import Path

import torch

from strata.artifacts import fingerprint, read_h5
from strata.checkpoints import load_tensors
from strata.datasets import Part, read_images
from strata.errors import UserError
from strata.rgm.config import DataSettings, RunSettings
from strata.rgm.learner import LabelledImages
from strata.rgm.model import HierarchicalModel
from strata.rgm.specification import Specification, read_specification


def load_images(
    path: Path, part: Part, n: int, *, device: torch.device | str = "cpu"
) -> LabelledImages:
    """Return the first n images of a part.

    Raises:
        UserError: the file is missing or damaged, or holds fewer.
    """
    images, labels = read_images(path).part(part)
    if len(images) < n:
        raise UserError(f"{path} holds {len(images)} {part} images; {n} were asked for.")
    return LabelledImages(
        torch.from_numpy(images[:n]).flatten(1).to(device),
        torch.from_numpy(labels[:n]).to(device, torch.int64),
    )


def training_images(
    path: Path, data: DataSettings, *, device: torch.device | str = "cpu"
) -> LabelledImages:
    """Return the images that a run is trained on."""
    return load_images(path, "train", data.n_train, device=device)


def build_model(specification_path: Path, matrices_path: Path) -> HierarchicalModel:
    """Return the network that a rendered specification and its matrices describe.

    Raises:
        UserError: a file is missing or damaged, or a matrix has another shape than specified.
    """
    specification = read_specification([specification_path])
    shapes = matrix_shapes(specification)
    arrays = read_h5(matrices_path, *shapes)
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"{matrices_path}: {name} has the shape {arrays[name].shape}, and "
                f"{specification_path} specifies {shape}; render them together."
            )
    return HierarchicalModel(specification, {n: torch.from_numpy(arrays[n]) for n in shapes})


def matrix_shapes(specification: Specification) -> dict[str, tuple[int, ...]]:
    """Return the shape of every matrix and bias by its name in the specification."""
    shapes: dict[str, tuple[int, ...]] = {}
    for level in specification.levels:
        i, s, f = level.n_input, level.n_state, level.n_factor
        of_level = {"A": (s, i), "B": (i, s), "D": (s, s), "M": (s, f), "a": (s,), "b": (i,)}
        of_level["pi"] = (i,)
        shapes |= {f"{letter}_level{level.index}": shape for letter, shape in of_level.items()}
    return shapes


def load_model(
    path: Path, specification_path: Path, settings: RunSettings, settings_path: Path
) -> HierarchicalModel:
    """Return the trained network with its best weights, for inference alone.

    Raises:
        UserError: a file is missing or damaged, or was made with other settings or another
            specification.
    """
    trained = load_tensors(path, "train the run again")
    if trained.get("settings") != settings.sections_of("train"):
        raise UserError(
            f"{path} was trained with other settings than {settings_path} holds; train the run "
            "again, or name the settings that belong to it."
        )
    specification = read_specification([specification_path])
    if trained.get("specification_sha256") != fingerprint(specification_path):
        raise UserError(
            f"{path} holds a network of another specification than {specification_path}; name the "
            "files of one run."
        )
    blank = {name: torch.zeros(shape) for name, shape in matrix_shapes(specification).items()}
    model = HierarchicalModel(specification, blank)
    try:
        model.load_state_dict(trained["best"])
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} holds a network of other dimensions than {specification_path} specifies; "
            "name the files of one run."
        ) from error
    return model.eval().requires_grad_(False)
