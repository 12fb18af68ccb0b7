"""Which files the stages of rgm need, run by run. No rules."""

from strata.rgm.specification import read_specification
from strata.rgm.spm.specification import read_discrete_specification

CONTINUOUS = runs_where("rgm", lambda run: run.model == "continuous")
DISCRETE = runs_where("rgm", lambda run: run.model == "spm")


def check_specifications():
    """Stop before any job if the GNN files that an experiment names specify no such model.

    Raises:
        WorkflowError: with the experiment, and the file and line of each finding.
    """
    first_with = {}
    for name, family in FAMILY_OF.items():
        if family == "rgm":
            first_with.setdefault((RUNS[name].model, RUNS[name].specification), name)
    for (model, files), name in first_with.items():
        read = read_specification if model == "continuous" else read_discrete_specification
        try:
            read([Path(file) for file in files])
        except UserError as error:
            where = f"{WORKFLOW.families['rgm']}: {name}: specification"
            raise WorkflowError(f"{where}:\n{error}") from None


check_specifications()


def image_data(wildcards):
    """Return the file of the images that a run is about."""
    return RUNS[wildcards.run].data.file


def gnn_sources(wildcards):
    """Return the GNN files that specify a run's model, the most general first."""
    return RUNS[wildcards.run].specification


def benchmarks_of_training(wildcards):
    """Return the seconds that each run of a sweep was trained for."""
    stages = {"continuous": "train", "spm": "spm_train"}
    return [
        f"results/{name}/benchmarks/{stages[run.model]}.tsv"
        for name, run in EXPERIMENTS[wildcards.experiment].runs.items()
    ]
