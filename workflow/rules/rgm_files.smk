"""Which files the stages of rgm need, run by run. No rules."""


def image_data(wildcards):
    """Return the file of the images that a run is about."""
    return RUNS[wildcards.run].data.file


def gnn_sources(wildcards):
    """Return the GNN files that specify a run's model, the most general first."""
    return RUNS[wildcards.run].specification
