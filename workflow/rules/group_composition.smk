"""group_composition: networks that learn to multiply in a finite group.

Inputs: config/group_composition.yaml; results/data/mnist.h5 for templates that are images.
Outputs, per run: task.h5, theory.md (before training), model.pt, history.h5, neurons.h5,
analysis.json, seeds.csv, staircase.md, verdict.json; per sweep: statistics.csv and .md.
Figures are drawn in group_composition_figures.smk.
Steps: predict -> train -> inspect, analyze; summarize.
"""


rule group_composition_predict:
    """Say what will be learned when, and what speaks against it."""
    input:
        settings="results/{run}/settings/predict.json",
        images=image_of_template,
        table=table_of_group,
    output:
        task="results/{run}/task.h5",
        theory="results/{run}/theory.md",
    log:
        "results/{run}/logs/predict.log",
    benchmark:
        "results/{run}/benchmarks/predict.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=30,
    shell:
        "python -m strata.group_composition.predict --settings {input.settings:q}"
        " --images {input.images:q} --task {output.task:q} --theory {output.theory:q} > {log:q} 2>&1"


rule group_composition_train:
    """Train all networks of a run; a killed run resumes from checkpoint.pt beside the outputs."""
    input:
        settings="results/{run}/settings/train.json",
        task="results/{run}/task.h5",
        table=table_of_group,
    output:
        history="results/{run}/history.h5",
        model="results/{run}/model.pt",
    log:
        "results/{run}/logs/train.log",
    benchmark:
        "results/{run}/benchmarks/train.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=1440,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.group_composition.train --settings {input.settings:q}"
        " --task {input.task:q} --history {output.history:q} --model {output.model:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule group_composition_inspect:
    """Look at the first network's neurons and outputs over training."""
    input:
        modules(
            "group_composition.inspect",
            "group_composition.neurons",
        ),
        settings="results/{run}/settings/inspect.json",
        task="results/{run}/task.h5",
        history="results/{run}/history.h5",
    output:
        neurons="results/{run}/neurons.h5",
    log:
        "results/{run}/logs/inspect.log",
    benchmark:
        "results/{run}/benchmarks/inspect.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    shell:
        "python -m strata.group_composition.inspect --settings {input.settings:q}"
        " --task {input.task:q} --history {input.history:q}"
        " --neurons {output.neurons:q} > {log:q} 2>&1"


rule group_composition_analyze:
    """Hold the staircase of every network against the prediction."""
    input:
        modules(
            "group_composition.analyze",
            "group_composition.measurements",
            "group_composition.staircase",
            "layouts",
            "quantities",
            "verdicts",
        ),
        settings="results/{run}/settings/analyze.json",
        task="results/{run}/task.h5",
        history="results/{run}/history.h5",
    output:
        analysis="results/{run}/analysis.json",
        seeds="results/{run}/seeds.csv",
        staircase="results/{run}/staircase.md",
        verdict="results/{run}/verdict.json",
    log:
        "results/{run}/logs/analyze.log",
    benchmark:
        "results/{run}/benchmarks/analyze.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.analyze --settings {input.settings:q}"
        " --task {input.task:q} --history {input.history:q}"
        " --analysis {output.analysis:q} --seeds {output.seeds:q}"
        " --staircase {output.staircase:q} --verdict {output.verdict:q} > {log:q} 2>&1"


rule group_composition_summarize:
    """Statistics over the networks of every run of a sweep, and over all of them."""
    input:
        modules(
            "group_composition.summarize",
            "group_composition.sweep_runs",
            "summaries",
        ),
        settings=files_of_runs("settings.json"),
        seeds=files_of_runs("seeds.csv"),
    output:
        statistics="results/{experiment}/statistics.csv",
        table="results/{experiment}/statistics.md",
    log:
        "results/{experiment}/logs/summarize.log",
    benchmark:
        "results/{experiment}/benchmarks/summarize.tsv"
    wildcard_constraints:
        experiment=sweeps_of("group_composition"),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.group_composition.summarize --runs-settings {input.settings:q}"
        " --seeds {input.seeds:q} --statistics {output.statistics:q}"
        " --table {output.table:q} > {log:q} 2>&1"
