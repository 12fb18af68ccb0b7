"""How much memory a run takes: of the process, and of a CUDA device.

Conventions: MiB (2^20 bytes).
"""

import psutil
import torch

MIB = 2**20


def resident_memory() -> float:
    """Return what the process now holds in main memory, in MiB."""
    return psutil.Process().memory_info().rss / MIB


def memory_in_words(device: torch.device) -> str:
    """Return the resident memory and, on CUDA, the most that tensors have taken of the device."""
    words = f"{resident_memory():.0f} MiB"
    if device.type == "cuda":
        words += f", at most {torch.cuda.max_memory_allocated(device) / MIB:.0f} MiB on {device}"
    return words
