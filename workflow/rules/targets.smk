"""Targets without files of their own: demo, verdicts, each family, each experiment."""


rule demo:
    """The small experiments named demo_* of every family."""
    input:
        everything_of(experiment for experiment in EXPERIMENTS.values() if experiment.is_demo),


rule verdicts:
    """Print the table of verdicts of the runs made so far."""
    input:
        "results/verdicts.md",
    log:
        "results/logs/verdicts_printed.log",
    conda:
        "../../envs/strata.yaml"
    shell:
        "tee {log:q} < {input:q}"


for family in config["families"]:

    rule:
        name:
            family
        input:
            everything_of(e for e in EXPERIMENTS.values() if e.family == family),


for experiment in EXPERIMENTS.values():

    rule:
        name:
            experiment.name
        input:
            files_of(experiment),
