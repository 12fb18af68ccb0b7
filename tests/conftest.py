"""What holds for every test: checked shapes, one thread, no display, global state untouched."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from jaxtyping import install_import_hook

# Read once, when torch, matplotlib and the like are imported; commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["SOURCE_DATE_EPOCH"] = "0"  # the same figure is the same file

# From here on, whatever a function of strata takes and returns must have the shape it declares.
install_import_hook("strata", "beartype.beartype")

hypothesis.settings.register_profile("strata", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("strata")


@pytest.fixture(autouse=True)
def _untouched_torch() -> Iterator[None]:
    """Fail a test that leaves torch's global state changed, and put the state back."""
    if "torch" not in sys.modules:
        yield
        return
    before = torch_global_state()
    yield
    after = torch_global_state()
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        restore_torch_global_state(before)
        pytest.fail(
            f"The test changed torch's global {', '.join(changed)}; pass a generator, dtype or "
            "device on instead, or set it within a context that puts it back."
        )


def torch_global_state() -> dict[str, Any]:
    """Return what every user of torch in this process shares, in a form that compares with ==."""
    import torch

    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "number of threads": torch.get_num_threads(),
        "random state": torch.get_rng_state().numpy().tobytes(),
    }


def restore_torch_global_state(state: dict[str, Any]) -> None:
    """Undo what a test did to the state that `torch_global_state` describes."""
    import torch

    torch.set_default_dtype(state["default dtype"])
    torch.set_grad_enabled(state["gradient mode"])
    torch.set_num_threads(state["number of threads"])
    torch.set_rng_state(torch.frombuffer(bytearray(state["random state"]), dtype=torch.uint8))
