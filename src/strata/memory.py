"""How much memory a run takes: of the process, and of a CUDA device.

Conventions: MiB (2^20 bytes).
"""

import psutil
import torch

MIB = 2**20


def resident_memory() -> float:
    """Return what the process now holds in main memory, in MiB."""
    return psutil.Process().memory_info().rss / MIB


def memory_held(device: torch.device) -> tuple[float, float]:
    """Return the resident memory and the most that tensors have taken of a CUDA device, in MiB."""
    on_device = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else 0.0
    return resident_memory(), on_device


def memory_in_words(device: torch.device) -> str:
    """Return the resident memory and, on CUDA, the most that tensors have taken of the device."""
    resident, on_device = memory_held(device)
    words = f"{resident:.0f} MiB"
    if device.type == "cuda":
        words += f", at most {on_device:.0f} MiB on {device}"
    return words
