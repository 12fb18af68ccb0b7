"""Targets that stand for other files: demo, each family, each experiment."""


rule demo:
    """The small experiments named demo_* of every family."""
    input:
        everything_of(experiment for experiment in EXPERIMENTS.values() if experiment.is_demo),


for family in WORKFLOW.families:

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
            everything_of([experiment]),
