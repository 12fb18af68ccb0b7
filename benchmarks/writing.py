"""What benchmarks of several families write alike: tables as they grow, and where they ran."""

import os
import platform
from pathlib import Path


class Written:
    """Text that is printed at once and kept."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        """Print, and keep."""
        self.text += text
        print(text, end="", flush=True)


def machine() -> str:
    """Return the processor, its cores, the GPU and the version of torch in one line."""
    import torch  # a benchmark of other processes must not itself hold torch's memory

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return f"{cpu}, {os.cpu_count()} cores; {gpu}; torch {torch.__version__}"
