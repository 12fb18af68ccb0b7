"""Trained flows, back from the file that training left."""

from pathlib import Path

import torch

from strata.checkpoints import load_tensors
from strata.errors import UserError
from strata.neural_rg.config import RunSettings
from strata.neural_rg.flows import GaussianFlow, Symmetrized, build_flow


def load_flow(
    path: Path,
    settings: RunSettings,
    settings_path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> GaussianFlow | Symmetrized:
    """Return the flow of a `model.pt`, with the weights that `sampling.weights` names.

    Raises:
        UserError: the file is missing or damaged, or was trained with other settings.
    """
    trained = load_tensors(path, "train the run again")
    if trained.get("settings") != settings.sections_of("train"):
        raise UserError(
            f"{path} was trained with other settings than {settings_path} holds; train the run "
            "again, or name the settings that belong to it."
        )
    flow = build_flow(settings, torch.Generator().manual_seed(0)).to(device, dtype)
    flow.load_state_dict(trained[settings.sampling.weights])
    return flow
