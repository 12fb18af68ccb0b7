"""hmm_rnn: recurrent networks that learn to emit what a hidden Markov model emits.

Inputs: config/hmm_rnn.yaml.
Outputs, per run: hmm.h5, model.pt, history.h5, evaluation.h5, dynamics.h5, mechanism.h5,
analysis.json, verdict.json. Figures are drawn in hmm_rnn_figures.smk.
Steps: prepare -> train -> evaluate, reverse -> dissect; analyze.
"""


rule hmm_rnn_prepare:
    """Build the hidden Markov model, its exact statistics, and the losses to compare with."""
    input:
        settings="results/{run}/settings/prepare.json",
    output:
        hmm="results/{run}/hmm.h5",
    log:
        "results/{run}/logs/prepare.log",
    benchmark:
        "results/{run}/benchmarks/prepare.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.hmm_rnn.prepare --settings {input.settings:q}"
        " --hmm {output.hmm:q} --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule hmm_rnn_train:
    """Train the network; a killed run resumes from checkpoint.pt beside the outputs."""
    input:
        settings="results/{run}/settings/train.json",
        hmm="results/{run}/hmm.h5",
    output:
        history="results/{run}/history.h5",
        model="results/{run}/model.pt",
    log:
        "results/{run}/logs/train.log",
    benchmark:
        "results/{run}/benchmarks/train.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=1440,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.hmm_rnn.train --settings {input.settings:q}"
        " --hmm {input.hmm:q} --history {output.history:q} --model {output.model:q}"
        " --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule hmm_rnn_evaluate:
    """Compare what the network emits with what the model emits."""
    input:
        modules(
            "hmm_rnn.evaluate",
            "hmm_rnn.evaluation",
            "hmm_rnn.sequences",
            "hmm_rnn.likelihoods",
            "hmm_rnn.dwelling",
            "hmm_rnn.distances",
            "hmm_rnn.assignment",
            "hmm_rnn.exact",
            "hmm_rnn.filtering",
            "hmm_rnn.reference",
        ),
        settings="results/{run}/settings/evaluate.json",
        hmm="results/{run}/hmm.h5",
        model="results/{run}/model.pt",
    output:
        evaluation="results/{run}/evaluation.h5",
    log:
        "results/{run}/logs/evaluate.log",
    benchmark:
        "results/{run}/benchmarks/evaluate.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=60,
    shell:
        "python -m strata.hmm_rnn.evaluate --settings {input.settings:q}"
        " --hmm {input.hmm:q} --model {input.model:q}"
        " --evaluation {output.evaluation:q} > {log:q} 2>&1"


rule hmm_rnn_reverse:
    """Take the network's dynamics apart: orbits, exponents, Jacobians, readout."""
    input:
        modules(
            "hmm_rnn.reverse",
            "hmm_rnn.orbits",
            "hmm_rnn.lyapunov",
            "hmm_rnn.jacobians",
            "hmm_rnn.readout",
        ),
        settings="results/{run}/settings/reverse.json",
        model="results/{run}/model.pt",
    output:
        dynamics="results/{run}/dynamics.h5",
    log:
        "results/{run}/logs/reverse.log",
    benchmark:
        "results/{run}/benchmarks/reverse.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    shell:
        "python -m strata.hmm_rnn.reverse --settings {input.settings:q}"
        " --model {input.model:q} --dynamics {output.dynamics:q} > {log:q} 2>&1"


rule hmm_rnn_dissect:
    """Find how the network changes its symbol: residency, forks, kick neurons, resonance."""
    input:
        modules(
            "hmm_rnn.dissect",
            "hmm_rnn.dissection",
            "hmm_rnn.residency",
            "hmm_rnn.forks",
            "hmm_rnn.kick_neurons",
            "hmm_rnn.silencing",
            "hmm_rnn.resonance",
            "hmm_rnn.switches",
            "hmm_rnn.recorded",
            "hmm_rnn.mechanism_settings",
        ),
        settings="results/{run}/settings/dissect.json",
        model="results/{run}/model.pt",
        dynamics="results/{run}/dynamics.h5",
    output:
        mechanism="results/{run}/mechanism.h5",
    log:
        "results/{run}/logs/dissect.log",
    benchmark:
        "results/{run}/benchmarks/dissect.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    shell:
        "python -m strata.hmm_rnn.dissect --settings {input.settings:q}"
        " --model {input.model:q} --dynamics {input.dynamics:q}"
        " --mechanism {output.mechanism:q} > {log:q} 2>&1"


rule hmm_rnn_analyze:
    """Hold what the network emits, and how it moves, against the hidden Markov model."""
    input:
        modules(
            "hmm_rnn.analyze",
            "hmm_rnn.measurements",
            "quantities",
            "verdicts",
        ),
        settings="results/{run}/settings/analyze.json",
        hmm="results/{run}/hmm.h5",
        evaluation="results/{run}/evaluation.h5",
        dynamics="results/{run}/dynamics.h5",
    output:
        analysis="results/{run}/analysis.json",
        verdict="results/{run}/verdict.json",
    log:
        "results/{run}/logs/analyze.log",
    benchmark:
        "results/{run}/benchmarks/analyze.tsv"
    wildcard_constraints:
        run=runs_where("hmm_rnn", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.hmm_rnn.analyze --settings {input.settings:q}"
        " --hmm {input.hmm:q} --evaluation {input.evaluation:q}"
        " --dynamics {input.dynamics:q} --analysis {output.analysis:q}"
        " --verdict {output.verdict:q} > {log:q} 2>&1"
