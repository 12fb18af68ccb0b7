"""Which experiments a view is about: all that the settings files in this folder define, or some.

Imports no torch.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from strata.config import nearest_names
from strata.errors import UserError
from strata.experiments import Experiment, load_workflow, read_yaml, workflow_settings

CONFIG = Path("config/config.yaml")
RESULTS = Path("results")
DEMO = "demo"


def require_workflow() -> None:
    """Refuse a folder that holds no workflow.

    Raises:
        UserError: there is no config/config.yaml below the working directory.
    """
    if not CONFIG.is_file():
        raise UserError(
            f"There is no {CONFIG} in {Path.cwd()}; change to the folder of the workflow first."
        )


def experiments_here() -> list[Experiment]:
    """Return the experiments of the workflow in the working directory, in the settings' order.

    Raises:
        UserError: there is no workflow here, or a setting is wrong.
    """
    require_workflow()
    return list(load_workflow(workflow_settings(read_yaml(CONFIG))).values())


def chosen(experiments: Collection[Experiment], names: Sequence[str]) -> list[Experiment]:
    """Return the experiments of these names; a family's name stands for all of its experiments.

    `demo` stands for those that are, and no names at all for every experiment.

    Raises:
        UserError: a name is neither an experiment's nor a family's.
    """
    called = {e.name: {e.name, e.family} | ({DEMO} if e.is_demo else set()) for e in experiments}
    known = set().union(*called.values())
    for name in names:
        if name not in known:
            near = ", ".join(nearest_names(name, known))
            raise UserError(
                f"There is no experiment or family called {name!r}; nearest known: {near}."
            )
    return [e for e in experiments if not names or called[e.name] & set(names)]
