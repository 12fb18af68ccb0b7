"""Which experiments can be drawn over each other, and what their comparison is called.

Imports neither torch nor numpy.
"""

from collections.abc import Mapping, Sequence

from strata.config import nearest_names, sha256
from strata.curves import Stored
from strata.errors import UserError
from strata.experiments import Experiment

HISTORY = "history.h5"
LONGEST_NAME = 100  # characters
READ = (HISTORY, "settings.json", "analysis.json", "verdict.json")
"""What a comparison reads of each run, beside what its curve is held against."""
HOW_TO_CHOOSE = (
    "No experiments are chosen to compare; name some of one family on the command line, as in "
    "`snakemake --cores 2 compare --config compare=mera_L8,mera_best_L8`, or under `compare` in "
    "config/config.yaml."
)


def compared(names: Sequence[str], experiments: Mapping[str, Experiment]) -> list[Experiment]:
    """Return the experiments to draw over each other, in the order of the names.

    Raises:
        UserError: there is no experiment of a name, they are of different families, or one has a
            run without a history.
    """
    for name in names:
        if name not in experiments:
            raise UserError(
                f"compare: there is no experiment called {name!r}; nearest known: "
                f"{', '.join(nearest_names(name, experiments))}."
            )
    chosen = [experiments[name] for name in names]
    for experiment in chosen:
        if experiment.family != chosen[0].family:
            raise UserError(
                f"compare: {chosen[0].name} is of the family {chosen[0].family} and "
                f"{experiment.name} of {experiment.family}, whose curves have nothing in common; "
                "name experiments of one family."
            )
        without = [run for run, of in experiment.runs.items() if HISTORY not in of.products]
        if without:
            raise UserError(
                f"compare: {without[0]} was not trained here and has no {HISTORY} to draw; leave "
                "it out."
            )
    return chosen


def comparison_name(names: Sequence[str]) -> str:
    """Return what a comparison's files are called: another for other experiments or order."""
    name = "+".join(names)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{names[0]}+{len(names) - 1}_more_{sha256(name)[:12]}"


def files_compared(experiments: Sequence[Experiment]) -> list[str]:
    """Return the files that a comparison reads, below the results folder, each once."""
    files = []
    for experiment in experiments:
        for run, settings in experiment.runs.items():
            files += [f"{run}/{name}" for name in READ]
            if isinstance(settings.curve.exact, Stored):
                files.append(settings.curve.exact.file_of(run))
    return list(dict.fromkeys(files))
