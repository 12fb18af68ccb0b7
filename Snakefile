# Strata: run `snakemake --cores 8 <target>` here. The workflow stands in workflow/Snakefile.


include: "workflow/Snakefile"


rule all:
    """Every experiment of every family but the demos (the default target)."""
    default_target: True
    input:
        everything_of(experiment for experiment in EXPERIMENTS.values() if not experiment.is_demo),


refuse_unknown_targets()
pack_no_conda_environments()
