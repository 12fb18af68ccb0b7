"""neural_rg: normalizing flows wired as a renormalization group, and what they are held against.

Inputs: config/neural_rg.yaml; for a run with `original`, the files named there.
Outputs, per run: model.pt, history.h5, samples.h5, hmc.h5, analysis.json, verdict.json; of an Ising
field ising_samples.h5, information.h5; of a multiscale network renormalization.h5; per target:
results/exact/*.h5. Figures are drawn in neural_rg_figures.smk.
Steps: exact, generate, train or import_original -> sample, evolve, renormalize, measure -> analyze.
"""

DISTRIBUTIONS = {
    PurePath(RUNS[run].target.exact_file).name.removesuffix(".h5"): RUNS[run].target
    for run, family in FAMILY_OF.items()
    if family == "neural_rg"
}


rule neural_rg_exact:
    """Solve a target exactly: its normalization, and the second moment it is held against."""
    input:
        modules(
            "neural_rg.solve",
            "neural_rg.exact",
            "neural_rg.kaufman",
            "neural_rg.transfer_matrix",
            "neural_rg.chain",
            "neural_rg.quadrature",
            "neural_rg.gauss_rule",
            "neural_rg.lattice",
        ),
    output:
        exact="results/exact/{target}.h5",
    log:
        "results/exact/logs/{target}.log",
    benchmark:
        "results/exact/benchmarks/{target}.tsv"
    wildcard_constraints:
        target=alternatives(DISTRIBUTIONS),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        target=lambda wildcards: DISTRIBUTIONS[wildcards.target].solve_argument,
    shell:
        "python -m strata.neural_rg.solve --target {params.target:q} --exact {output.exact:q}"
        " > {log:q} 2>&1"


rule neural_rg_generate:
    """Draw exact samples of the Ising field: cluster spins, then the field given the spins."""
    input:
        settings="results/{run}/settings/generate.json",
    output:
        samples="results/{run}/ising_samples.h5",
    log:
        "results/{run}/logs/generate.log",
    benchmark:
        "results/{run}/benchmarks/generate.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: run.has_exact_samples),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    shell:
        "python -m strata.neural_rg.generate --settings {input.settings:q}"
        " --samples {output.samples:q} > {log:q} 2>&1"


rule neural_rg_train:
    """Train the flow; a killed run resumes from checkpoint.pt beside the outputs."""
    input:
        settings="results/{run}/settings/train.json",
        data=training_data,
    output:
        history="results/{run}/history.h5",
        model="results/{run}/model.pt",
    log:
        "results/{run}/logs/train.log",
    benchmark:
        "results/{run}/benchmarks/train.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: not run.original),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=2880,
        device=WORKFLOW.device,
        gpu=gpus_of_training,
        gpu_mem_mb=8000,
    shell:
        "python -m strata.neural_rg.train --settings {input.settings:q} --data {input.data:q}"
        " --history {output.history:q} --model {output.model:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule neural_rg_import_original:
    """Take over a network that the original programs trained."""
    input:
        settings="results/{run}/settings/train.json",
        checkpoint=original_checkpoint,
        parameters=original_parameters,
    output:
        model="results/{run}/model.pt",
    log:
        "results/{run}/logs/import_original.log",
    benchmark:
        "results/{run}/benchmarks/import_original.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: run.original),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.import_original --settings {input.settings:q}"
        " --checkpoint {input.checkpoint:q} --parameters {input.parameters:q}"
        " --model {output.model:q} > {log:q} 2>&1"


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
        mem_mb=growing(4000),
        runtime=240,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.neural_rg.sample --settings {input.settings:q}"
        " --model {input.model:q} --samples {output.samples:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule neural_rg_evolve:
    """Run Hamiltonian Monte Carlo in latent and in physical space."""
    input:
        settings="results/{run}/settings/evolve.json",
        model="results/{run}/model.pt",
    output:
        hmc="results/{run}/hmc.h5",
    log:
        "results/{run}/logs/evolve.log",
    benchmark:
        "results/{run}/benchmarks/evolve.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.neural_rg.evolve --settings {input.settings:q}"
        " --model {input.model:q} --hmc {output.hmc:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule neural_rg_renormalize:
    """Look at the fields of every scale, and at their response to each latent."""
    input:
        modules("neural_rg.renormalize", "neural_rg.renormalization"),
        settings="results/{run}/settings/renormalize.json",
        model="results/{run}/model.pt",
    output:
        renormalization="results/{run}/renormalization.h5",
    log:
        "results/{run}/logs/renormalize.log",
    benchmark:
        "results/{run}/benchmarks/renormalize.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: run.flow.is_multiscale),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.neural_rg.renormalize --settings {input.settings:q}"
        " --model {input.model:q} --renormalization {output.renormalization:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule neural_rg_measure:
    """Estimate the mutual information of physical and of latent variables."""
    input:
        modules("neural_rg.measure", "neural_rg.mutual_information"),
        settings="results/{run}/settings/measure.json",
        model="results/{run}/model.pt",
        data="results/{run}/ising_samples.h5",
    output:
        information="results/{run}/information.h5",
    log:
        "results/{run}/logs/measure.log",
    benchmark:
        "results/{run}/benchmarks/measure.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: run.has_exact_samples),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=120,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.neural_rg.measure --settings {input.settings:q} --model {input.model:q}"
        " --data {input.data:q} --information {output.information:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule neural_rg_analyze:
    """Hold the flow and all chains against the exact answer."""
    input:
        modules(
            "neural_rg.analyze",
            "neural_rg.estimates",
            "neural_rg.autocorrelation",
            "neural_rg.exact",
            "neural_rg.target_settings",
            "quantities",
            "verdicts",
        ),
        settings="results/{run}/settings/analyze.json",
        samples="results/{run}/samples.h5",
        hmc="results/{run}/hmc.h5",
        data=exact_data,
        information=information,
        exact=exact_answer,
    output:
        analysis="results/{run}/analysis.json",
        verdict="results/{run}/verdict.json",
    log:
        "results/{run}/logs/analyze.log",
    benchmark:
        "results/{run}/benchmarks/analyze.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.analyze --settings {input.settings:q}"
        " --samples {input.samples:q} --hmc {input.hmc:q} --data {input.data:q}"
        " --information {input.information:q}"
        " --exact {input.exact:q} --analysis {output.analysis:q}"
        " --verdict {output.verdict:q} > {log:q} 2>&1"
