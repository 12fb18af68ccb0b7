"""Which files the stages of rgm need, run by run. No rules."""

from strata.rgm.specification import read_specification


def check_specifications():
    """Stop before any job if the GNN files that an experiment names specify no network.

    Raises:
        WorkflowError: with the experiment, and the file and line of each finding.
    """
    first_with = {}
    for name, family in FAMILY_OF.items():
        if family == "rgm":
            first_with.setdefault(RUNS[name].specification, name)
    for files, name in first_with.items():
        try:
            read_specification([Path(file) for file in files])
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
