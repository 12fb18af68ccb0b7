"""rgm, the discrete model: structure from exemplars, counts, and what it is held against.

Inputs: config/rgm.yaml, config/gnn/rgm_spm.gnn, results/data/<dataset>.h5 (data.smk).
Outputs, per run: specification.gnn, structure.h5, counts.h5, history.h5, inference.h5, digits.h5,
active.h5, baselines.h5, analysis.json, verdict.json, and the figures that this model alone has;
those that both have are drawn in rgm_figures.smk.
Steps: render -> train -> execute, generate -> compare; query; analyze.
"""


rule rgm_spm_render:
    """Render the GNN specification: its resolved form, and the structure from exemplars."""
    input:
        settings="results/{run}/settings/spm_render.json",
        sources=gnn_sources,
        images=image_data,
    output:
        specification="results/{run}/specification.gnn",
        structure="results/{run}/structure.h5",
    log:
        "results/{run}/logs/spm_render.log",
    benchmark:
        "results/{run}/benchmarks/spm_render.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    shell:
        "python -m strata.rgm.spm.render --settings {input.settings:q}"
        " --sources {input.sources:q} --images {input.images:q}"
        " --specification {output.specification:q} --structure {output.structure:q}"
        " > {log:q} 2>&1"


rule rgm_spm_train:
    """Learn from the images one by one; a killed run resumes from checkpoint.pt."""
    input:
        settings="results/{run}/settings/spm_train.json",
        specification="results/{run}/specification.gnn",
        structure="results/{run}/structure.h5",
        images=image_data,
    output:
        history="results/{run}/history.h5",
        counts="results/{run}/counts.h5",
    log:
        "results/{run}/logs/spm_train.log",
    benchmark:
        "results/{run}/benchmarks/spm_train.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=120,
    shell:
        "python -m strata.rgm.spm.train --settings {input.settings:q}"
        " --specification {input.specification:q} --structure {input.structure:q}"
        " --images {input.images:q} --history {output.history:q} --counts {output.counts:q}"
        " > {log:q} 2>&1"


rule rgm_spm_execute:
    """Infer the states of test images, clean and damaged."""
    input:
        modules(
            "rgm.spm.execute",
            "rgm.spm.messages",
            "rgm.damage",
            "rgm.damage_kinds",
        ),
        settings="results/{run}/settings/spm_execute.json",
        specification="results/{run}/specification.gnn",
        counts="results/{run}/counts.h5",
        images=image_data,
    output:
        inference="results/{run}/inference.h5",
    log:
        "results/{run}/logs/spm_execute.log",
    benchmark:
        "results/{run}/benchmarks/spm_execute.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=60,
    shell:
        "python -m strata.rgm.spm.execute --settings {input.settings:q}"
        " --specification {input.specification:q} --counts {input.counts:q}"
        " --images {input.images:q} --inference {output.inference:q} > {log:q} 2>&1"


rule rgm_spm_generate:
    """Draw digits of every class, and walk between images."""
    input:
        modules(
            "rgm.spm.generate",
            "rgm.spm.messages",
        ),
        settings="results/{run}/settings/spm_generate.json",
        specification="results/{run}/specification.gnn",
        counts="results/{run}/counts.h5",
        images=image_data,
    output:
        digits="results/{run}/digits.h5",
    log:
        "results/{run}/logs/spm_generate.log",
    benchmark:
        "results/{run}/benchmarks/spm_generate.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=30,
    shell:
        "python -m strata.rgm.spm.generate --settings {input.settings:q}"
        " --specification {input.specification:q} --counts {input.counts:q}"
        " --images {input.images:q} --digits {output.digits:q} > {log:q} 2>&1"


rule rgm_spm_query:
    """Learn from few images, asked for in several ways."""
    input:
        modules(
            "rgm.spm.query",
            "rgm.spm.selection",
            "rgm.spm.learning",
            "rgm.spm.messages",
        ),
        settings="results/{run}/settings/spm_query.json",
        specification="results/{run}/specification.gnn",
        structure="results/{run}/structure.h5",
        images=image_data,
    output:
        active="results/{run}/active.h5",
    log:
        "results/{run}/logs/spm_query.log",
    benchmark:
        "results/{run}/benchmarks/spm_query.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=120,
    shell:
        "python -m strata.rgm.spm.query --settings {input.settings:q}"
        " --specification {input.specification:q} --structure {input.structure:q}"
        " --images {input.images:q} --active {output.active:q} > {log:q} 2>&1"


rule rgm_spm_compare:
    """Fit simple methods to preprocessed images, and judge the discrete model's digits."""
    input:
        modules(
            "rgm.spm.compare",
            "rgm.spm.preprocessing",
            "rgm.compare",
            "rgm.baselines",
            "rgm.judge",
        ),
        settings="results/{run}/settings/spm_compare.json",
        specification="results/{run}/specification.gnn",
        structure="results/{run}/structure.h5",
        images=image_data,
        digits="results/{run}/digits.h5",
    output:
        baselines="results/{run}/baselines.h5",
    log:
        "results/{run}/logs/spm_compare.log",
    benchmark:
        "results/{run}/benchmarks/spm_compare.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    shell:
        "python -m strata.rgm.spm.compare --settings {input.settings:q}"
        " --specification {input.specification:q} --structure {input.structure:q}"
        " --images {input.images:q} --digits {input.digits:q}"
        " --baselines {output.baselines:q} > {log:q} 2>&1"


rule rgm_spm_analyze:
    """Hold the discrete model against simple methods and against what is expected of it."""
    input:
        modules(
            "rgm.spm.analyze",
            "rgm.spm.measurements",
            "rgm.spm.confidence",
            "rgm.analyze",
            "rgm.measurements",
            "rgm.scores",
            "rgm.conditions",
            "rgm.damage_kinds",
            "quantities",
            "verdicts",
        ),
        settings="results/{run}/settings/spm_analyze.json",
        structure="results/{run}/structure.h5",
        history="results/{run}/history.h5",
        inference="results/{run}/inference.h5",
        digits="results/{run}/digits.h5",
        active="results/{run}/active.h5",
        baselines="results/{run}/baselines.h5",
    output:
        analysis="results/{run}/analysis.json",
        verdict="results/{run}/verdict.json",
    log:
        "results/{run}/logs/spm_analyze.log",
    benchmark:
        "results/{run}/benchmarks/spm_analyze.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.rgm.spm.analyze --settings {input.settings:q}"
        " --structure {input.structure:q} --history {input.history:q}"
        " --inference {input.inference:q} --digits {input.digits:q}"
        " --active {input.active:q} --baselines {input.baselines:q}"
        " --analysis {output.analysis:q} --verdict {output.verdict:q} > {log:q} 2>&1"
