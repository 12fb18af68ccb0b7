"""The curve of a run, read from its files: evaluations, and what they are held against.

Which metric it is says `strata.curves.Curve`. Imports no torch.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer

from strata.artifacts import read_h5
from strata.curves import Constant, Curve
from strata.history import read_history


def evaluations(
    history: Path, curve: Curve
) -> tuple[Integer[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Return the steps of the evaluations and the metric at them, in the curve's unit.

    Args:
        history: `history.h5`, or `history.live.h5` while the run goes on.
        curve: of the run's family.

    Raises:
        UserError: no such file, a damaged one, or one without rows of the metric.
    """
    table = read_history(history, "eval", "step", curve.metric)
    return table["step"], table[curve.metric].astype(np.float64)


def exact_values(results: Path, run: str, curve: Curve) -> Float[np.ndarray, " value"]:
    """Return what the metric is held against, in the curve's unit: one value or several.

    There are none while the file is not made yet.

    Args:
        results: the results folder.
        run: name of the run, such as `mera_L8_seeds/seed~0`.
        curve: of the run's settings.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    if isinstance(curve.exact, Constant):
        return np.array([curve.exact.value])
    path = results / curve.exact.file_of(run)
    if not path.exists():
        return np.empty(0)
    values = read_h5(path, curve.exact.dataset)[curve.exact.dataset]
    return curve.exact.factor * np.atleast_1d(values).astype(np.float64)
