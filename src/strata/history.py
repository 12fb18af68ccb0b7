"""How a run went: an append-only table of quantities against steps, in HDF5.

Layout: one group per phase (`train`, `eval`, `snapshots`), one dataset per quantity, all as long as
the group's `step`; units as attributes. While the run goes on the rows stand in `<name>.live.h5`
beside the final file, replaced as a whole at every checkpoint, so that it can be read at any time;
its attributes say which process writes it (see `strata.heartbeat`).
Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from strata.artifacts import damage_named, open_h5, write_h5
from strata.errors import UserError

Table = dict[str, np.ndarray]


class History:
    """Rows of named numbers by phase, kept in memory and mirrored to a live file.

    One that does not `write` belongs to a process whose peer writes: it touches no file.
    """

    def __init__(self, path: Path, units: Mapping[str, str], *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.live_path = path.with_suffix(".live.h5")
        self.units = {"step": "steps", **units}
        self._tables: dict[str, Table] = {}

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
        """Go back to earlier rows; the live file is gone until the next `mirror`."""
        self._tables = {phase: dict(table) for phase, table in tables.items()}
        if self.writes:
            self.live_path.unlink(missing_ok=True)

    def mirror(self, attributes: Mapping[str, Any] | None = None) -> None:
        """Write all rows so far to the live file, and what the process says of itself.

        Raises:
            UserError: the folder is full or read-only.
        """
        if self.writes:
            self._write(self.live_path, attributes or {})

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Write the final file and remove the live one."""
        self._write(self.path, attributes)
        self.live_path.unlink(missing_ok=True)

    def _write(self, path: Path, attributes: Mapping[str, Any]) -> None:
        arrays = {
            f"{phase}/{name}": column
            for phase, table in sorted(self._tables.items())
            for name, column in sorted(table.items())
        }
        units = {name: self.units[name.split("/")[1]] for name in arrays}
        write_h5(path, arrays, units=units, attributes=attributes)


def read_history(path: Path, phase: str, *needed: str) -> Table:
    """Return one phase of a history file (final or live).

    Raises:
        UserError: no such file, a damaged one, or one without such a phase or a needed quantity, or
            without rows of it.
    """
    with open_h5(path) as file, damage_named(path):
        if phase not in file:
            raise UserError(f"{path} holds no rows of the phase {phase!r}; name the right file.")
        table = {name: dataset[()] for name, dataset in file[phase].items()}
    missing = [f"{phase}/{name}" for name in needed if name not in table]
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}; name the right file.")
    if needed and not len(table[needed[0]]):
        raise UserError(f"{path} holds no rows of the phase {phase!r}; train for more steps.")
    return table
