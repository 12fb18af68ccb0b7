"""neural_rg: normalizing flows wired as a renormalization group.

Inputs: config/neural_rg.yaml.
Outputs, per run: history.h5, model.pt, samples.h5, analysis.json, verdict.json,
loss_acc.{pdf,png}; per lattice and coupling: results/exact/*.h5.
Steps: exact, train -> sample -> analyze, plot.
"""

PRODUCTS["neural_rg"] = [
    "settings.json",
    "history.h5",
    "model.pt",
    "samples.h5",
    "analysis.json",
    "verdict.json",
    "loss_acc.pdf",
    "loss_acc.png",
]

LATTICES = {
    Path(RUNS[run].target.exact_file).stem: RUNS[run].target
    for run, family in FAMILY_OF.items()
    if family == "neural_rg"
}


rule neural_rg_exact:
    """Solve the finite Ising model exactly: partition function, <m^2>, energy."""
    input:
        modules(
            "strata.neural_rg.solve",
            "strata.neural_rg.exact",
            "strata.neural_rg.kaufman",
            "strata.neural_rg.transfer_matrix",
            "strata.neural_rg.chain",
            "strata.neural_rg.lattice",
        ),
    output:
        exact="results/exact/{lattice}.h5",
    log:
        "results/exact/logs/{lattice}.log",
    benchmark:
        "results/exact/benchmarks/{lattice}.tsv"
    wildcard_constraints:
        lattice=alternatives(LATTICES),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        lattice=lambda wildcards: LATTICES[wildcards.lattice].solve_arguments,
    shell:
        "python -m strata.neural_rg.solve {params.lattice} --exact {output.exact:q} > {log:q} 2>&1"


rule neural_rg_train:
    """Train the flow; a killed run resumes from checkpoint.pt beside the outputs."""
    input:
        settings="results/{run}/settings/train.json",
    output:
        history="results/{run}/history.h5",
        model="results/{run}/model.pt",
    log:
        "results/{run}/logs/train.log",
    benchmark:
        "results/{run}/benchmarks/train.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=2880,
        device=WORKFLOW.device,
    shell:
        "python -m strata.neural_rg.train --settings {input.settings:q}"
        " --history {output.history:q} --model {output.model:q}"
        " --device {resources.device:q} > {log:q} 2>&1"


rule neural_rg_sample:
    """Draw from the trained flow and run independence Metropolis chains with it."""
    input:
        settings="results/{run}/settings/sample.json",
        model="results/{run}/model.pt",
    output:
        samples="results/{run}/samples.h5",
    log:
        "results/{run}/logs/sample.log",
    benchmark:
        "results/{run}/benchmarks/sample.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=240,
        device=WORKFLOW.device,
    shell:
        "python -m strata.neural_rg.sample --settings {input.settings:q}"
        " --model {input.model:q} --samples {output.samples:q}"
        " --device {resources.device:q} > {log:q} 2>&1"


rule neural_rg_analyze:
    """Hold the flow and its chains against the exact answer."""
    input:
        modules("strata.neural_rg.analyze", "strata.verdicts"),
        settings="results/{run}/settings/analyze.json",
        samples="results/{run}/samples.h5",
        exact=lambda wildcards: RUNS[wildcards.run].target.exact_file,
    output:
        analysis="results/{run}/analysis.json",
        verdict="results/{run}/verdict.json",
    log:
        "results/{run}/logs/analyze.log",
    benchmark:
        "results/{run}/benchmarks/analyze.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    shell:
        "python -m strata.neural_rg.analyze --settings {input.settings:q}"
        " --samples {input.samples:q} --exact {input.exact:q}"
        " --analysis {output.analysis:q} --verdict {output.verdict:q} > {log:q} 2>&1"


rule neural_rg_plot:
    """Draw loss and acceptance against training steps, with the exact line."""
    input:
        modules("strata.neural_rg.plot", "strata.plotting"),
        settings="results/{run}/settings/plot.json",
        history="results/{run}/history.h5",
        exact=lambda wildcards: RUNS[wildcards.run].target.exact_file,
    output:
        figure="results/{run}/loss_acc.pdf",
        image=report(
            "results/{run}/loss_acc.png",
            caption="../report/loss_acc.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "loss and acceptance"},
        ),
    log:
        "results/{run}/logs/plot.log",
    benchmark:
        "results/{run}/benchmarks/plot.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot --settings {input.settings:q}"
        " --history {input.history:q} --exact {input.exact:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"
