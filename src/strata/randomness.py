"""Randomness as an argument: one integer seed gives named, independent generators.

Conventions: a name stands for a purpose (`init`, `data`, `train`, `eval`, ...). Drawing more from
one name never changes what another gives. Nothing here touches torch's global generator.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def derived_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed that depends on the run's seed and the purpose."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Generators:
    """Named `torch.Generator`s of one run, made when first asked for.

    `generators["data"]` lives on `device`. What must not depend on the device (the weights that a
    network starts from) is drawn from `generators.on_cpu("init")`, afresh at every call.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = self._fresh(name, self.device)
        return self._generators[name]

    def on_cpu(self, name: str) -> torch.Generator:
        """Return a new CPU generator at the start of this name's stream."""
        return self._fresh(name, torch.device("cpu"))

    def afresh(self, name: str) -> torch.Generator:
        """Return a new generator on `device` at the start of this name's stream."""
        return self._fresh(name, self.device)

    def _fresh(self, name: str, device: torch.device) -> torch.Generator:
        generator = torch.Generator(device)
        generator.manual_seed(derived_seed(self.seed, name))
        return generator

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of every generator made so far (uint8 tensors)."""
        return {name: generator.get_state() for name, generator in self._generators.items()}

    def load_state_dict(self, states: Mapping[str, Tensor]) -> None:
        """Continue every stored stream where it stood; names not stored start afresh.

        Generators that were handed out before go on with the restored streams.
        """
        for name, generator in self._generators.items():
            generator.manual_seed(derived_seed(self.seed, name))
        for name, state in states.items():
            self[name].set_state(state)
