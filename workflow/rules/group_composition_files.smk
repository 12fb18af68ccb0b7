"""Which files the stages of group_composition need, run by run. No rules."""


def image_of_template(wildcards):
    """Return the file of the images that a run's template is taken from, nothing for the others."""
    return ["results/data/mnist.h5"] if RUNS[wildcards.run].template.name == "mnist" else []


def table_of_group(wildcards):
    """Return the file of a run's multiplication table, nothing for named groups."""
    group = RUNS[wildcards.run].group
    return [group.file] if group.name == "table" else []
