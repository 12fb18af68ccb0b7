"""How a run went: an append-only table of quantities against steps, in HDF5.

Layout: one group per phase (`train`, `eval`), one dataset per quantity, all as long as the group's
`step`; units as attributes. While the run goes on the rows stand in `<name>.live.h5` beside the
final file; the file is open only for the moment of an append, so that it can be read at any time.
Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from strata.artifacts import open_h5, write_h5
from strata.errors import UserError

Table = dict[str, np.ndarray]


class History:
    """Rows of named numbers by phase, kept in memory and mirrored to a live file."""

    def __init__(self, path: Path, units: Mapping[str, str]) -> None:
        self.path = path
        self.live_path = path.with_suffix(".live.h5")
        self.units = {"step": "steps", **units}
        self._tables: dict[str, Table] = {}
        self._mirrored: dict[str, int] = {}

    def append(self, phase: str, rows: Mapping[str, np.ndarray]) -> None:
        """Add rows: `step` (integers, increasing) and quantities of the same length.

        Raises:
            ValueError: a quantity without a unit, another set of quantities than before, or
                columns of different lengths.
        """
        unknown = sorted(set(rows) - set(self.units))
        if unknown:
            raise ValueError(f"History quantities need units; none given for {unknown}.")
        if len({len(column) for column in rows.values()}) != 1:
            raise ValueError("History columns must have one length.")
        table = self._tables.get(phase)
        if table is None:
            self._tables[phase] = {name: np.asarray(column) for name, column in rows.items()}
            return
        if set(rows) != set(table):
            raise ValueError(f"Phase {phase} records {sorted(table)}; got {sorted(rows)}.")
        self._tables[phase] = {name: np.concatenate([table[name], rows[name]]) for name in table}

    def __getitem__(self, phase: str) -> Table:
        return self._tables.get(phase, {})

    def tables(self) -> dict[str, Table]:
        """Return all rows so far: phase -> quantity -> column."""
        return {phase: dict(table) for phase, table in self._tables.items()}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Go back to earlier rows; the live file is written anew at the next `mirror`."""
        self._tables = {phase: dict(table) for phase, table in tables.items()}
        self._mirrored = {}
        self.live_path.unlink(missing_ok=True)

    def mirror(self) -> None:
        """Append what is new to the live file; skipped this time if a reader holds it.

        Raises:
            UserError: the folder is full or read-only.
        """
        try:
            self.live_path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(self.live_path, "a") as file:
                for phase, table in self._tables.items():
                    done = self._mirrored.get(phase, 0)
                    for name, column in table.items():
                        self._extend(file, f"{phase}/{name}", column, done, self.units[name])
                    self._mirrored[phase] = len(table["step"])
        except BlockingIOError:
            return
        except OSError as error:
            raise UserError(f"{self.live_path} cannot be written ({error}).") from error

    @staticmethod
    def _extend(file: h5py.File, name: str, column: np.ndarray, done: int, unit: str) -> None:
        if name not in file:
            dataset = file.create_dataset(
                name, shape=(0,), maxshape=(None,), dtype=column.dtype, chunks=(4096,)
            )
            dataset.attrs["unit"] = unit
        dataset = file[name]
        dataset.resize((len(column),))
        dataset[done:] = column[done:]

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the final file in one piece and remove the live one."""
        arrays = {
            f"{phase}/{name}": column
            for phase, table in sorted(self._tables.items())
            for name, column in sorted(table.items())
        }
        units = {name: self.units[name.split("/")[1]] for name in arrays}
        write_h5(self.path, arrays, units=units, attributes=attributes)
        self.live_path.unlink(missing_ok=True)


def read_history(path: Path, phase: str) -> Table:
    """Return one phase of a history file (final or live).

    Raises:
        UserError: no such file, a damaged one.
        KeyError: no such phase.
    """
    with open_h5(path) as file:
        return {name: dataset[()] for name, dataset in file[phase].items()}
