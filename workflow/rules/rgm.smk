"""rgm: the renormalization generative model of images, and what it is held against.

The continuous model; the discrete one has its stages in rgm_spm.smk.

Inputs: config/rgm.yaml, config/gnn/*.gnn, results/data/<dataset>.h5 (data.smk).
Outputs, per run: specification.gnn, matrices.h5, model.pt, history.h5, calibration.h5, inference.h5,
states.h5, digits.h5, active.h5, baselines.h5, analysis.json, verdict.json. Figures are drawn in
rgm_figures.smk.
Steps: render -> train -> calibrate -> execute, inspect, generate -> compare; query; analyze.
"""


rule rgm_render:
    """Render the GNN specification: its resolved form, and the matrices that training starts from."""
    input:
        settings="results/{run}/settings/render.json",
        sources=gnn_sources,
        images=image_data,
    output:
        specification="results/{run}/specification.gnn",
        matrices="results/{run}/matrices.h5",
    log:
        "results/{run}/logs/render.log",
    benchmark:
        "results/{run}/benchmarks/render.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.render --settings {input.settings:q}"
        " --sources {input.sources:q} --images {input.images:q}"
        " --specification {output.specification:q} --matrices {output.matrices:q}"
        " > {log:q} 2>&1"


rule rgm_train:
    """Train the network; a killed run resumes from checkpoint.pt beside the outputs."""
    input:
        settings="results/{run}/settings/train.json",
        specification="results/{run}/specification.gnn",
        matrices="results/{run}/matrices.h5",
        images=image_data,
    output:
        history="results/{run}/history.h5",
        model="results/{run}/model.pt",
    log:
        "results/{run}/logs/train.log",
    benchmark:
        "results/{run}/benchmarks/train.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=720,
        device=WORKFLOW.device,
        gpu=GPUS,
        gpu_mem_mb=4000,
    shell:
        "python -m strata.rgm.train --settings {input.settings:q}"
        " --specification {input.specification:q} --matrices {input.matrices:q}"
        " --images {input.images:q} --history {output.history:q}"
        " --model {output.model:q} --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule rgm_calibrate:
    """Estimate precisions and factors of the trained network from training images."""
    input:
        modules(
            "rgm.calibrate",
            "rgm.calibration",
            "rgm.factors",
        ),
        settings="results/{run}/settings/calibrate.json",
        specification="results/{run}/specification.gnn",
        matrices="results/{run}/matrices.h5",
        model="results/{run}/model.pt",
        images=image_data,
    output:
        calibration="results/{run}/calibration.h5",
    log:
        "results/{run}/logs/calibrate.log",
    benchmark:
        "results/{run}/benchmarks/calibrate.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.calibrate --settings {input.settings:q}"
        " --specification {input.specification:q} --matrices {input.matrices:q}"
        " --model {input.model:q} --images {input.images:q}"
        " --calibration {output.calibration:q} > {log:q} 2>&1"


rule rgm_execute:
    """Infer the states of test images, clean and damaged."""
    input:
        modules(
            "rgm.execute",
            "rgm.calibration",
            "rgm.factors",
            "rgm.inference",
            "rgm.relaxation",
            "rgm.free_energy",
            "rgm.damage",
            "rgm.damage_kinds",
        ),
        settings="results/{run}/settings/execute.json",
        specification="results/{run}/specification.gnn",
        model="results/{run}/model.pt",
        calibration="results/{run}/calibration.h5",
        images=image_data,
    output:
        inference="results/{run}/inference.h5",
    log:
        "results/{run}/logs/execute.log",
    benchmark:
        "results/{run}/benchmarks/execute.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
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
        "python -m strata.rgm.execute --settings {input.settings:q}"
        " --specification {input.specification:q} --model {input.model:q}"
        " --calibration {input.calibration:q} --images {input.images:q}"
        " --inference {output.inference:q} --device {resources.device:q}"
        " --gpu-memory {resources.gpu_mem_mb} > {log:q} 2>&1"


rule rgm_inspect:
    """Look at states, errors and features of clean test images."""
    input:
        modules(
            "rgm.inspect",
            "rgm.calibration",
            "rgm.factors",
        ),
        settings="results/{run}/settings/inspect.json",
        specification="results/{run}/specification.gnn",
        model="results/{run}/model.pt",
        calibration="results/{run}/calibration.h5",
        images=image_data,
    output:
        states="results/{run}/states.h5",
    log:
        "results/{run}/logs/inspect.log",
    benchmark:
        "results/{run}/benchmarks/inspect.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=60,
    shell:
        "python -m strata.rgm.inspect --settings {input.settings:q}"
        " --specification {input.specification:q} --model {input.model:q}"
        " --calibration {input.calibration:q} --images {input.images:q}"
        " --states {output.states:q} > {log:q} 2>&1"


rule rgm_generate:
    """Draw digits of every class, and walk between images."""
    input:
        modules(
            "rgm.generate",
            "rgm.calibration",
            "rgm.factors",
        ),
        settings="results/{run}/settings/generate.json",
        specification="results/{run}/specification.gnn",
        model="results/{run}/model.pt",
        calibration="results/{run}/calibration.h5",
        images=image_data,
    output:
        digits="results/{run}/digits.h5",
    log:
        "results/{run}/logs/generate.log",
    benchmark:
        "results/{run}/benchmarks/generate.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.generate --settings {input.settings:q}"
        " --specification {input.specification:q} --model {input.model:q}"
        " --calibration {input.calibration:q} --images {input.images:q}"
        " --digits {output.digits:q} > {log:q} 2>&1"


rule rgm_query:
    """Learn the classes from few labels, asked for in several ways."""
    input:
        modules(
            "rgm.query",
            "rgm.acquisition",
            "rgm.few_labels",
            "rgm.factors",
        ),
        settings="results/{run}/settings/query.json",
        specification="results/{run}/specification.gnn",
        matrices="results/{run}/matrices.h5",
        images=image_data,
    output:
        active="results/{run}/active.h5",
    log:
        "results/{run}/logs/query.log",
    benchmark:
        "results/{run}/benchmarks/query.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=120,
    shell:
        "python -m strata.rgm.query --settings {input.settings:q}"
        " --specification {input.specification:q} --matrices {input.matrices:q}"
        " --images {input.images:q} --active {output.active:q} > {log:q} 2>&1"


rule rgm_compare:
    """Fit simple methods to the same images, and judge the generated digits."""
    input:
        modules(
            "rgm.compare",
            "rgm.baselines",
            "rgm.judge",
        ),
        settings="results/{run}/settings/compare.json",
        specification="results/{run}/specification.gnn",
        images=image_data,
        digits="results/{run}/digits.h5",
    output:
        baselines="results/{run}/baselines.h5",
    log:
        "results/{run}/logs/compare.log",
    benchmark:
        "results/{run}/benchmarks/compare.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=60,
    shell:
        "python -m strata.rgm.compare --settings {input.settings:q}"
        " --specification {input.specification:q} --images {input.images:q}"
        " --digits {input.digits:q} --baselines {output.baselines:q} > {log:q} 2>&1"


rule rgm_analyze:
    """Hold the network against simple methods on the same images."""
    input:
        modules(
            "rgm.analyze",
            "rgm.measurements",
            "rgm.scores",
            "rgm.conditions",
            "rgm.damage_kinds",
            "quantities",
            "verdicts",
        ),
        settings="results/{run}/settings/analyze.json",
        inference="results/{run}/inference.h5",
        states="results/{run}/states.h5",
        digits="results/{run}/digits.h5",
        active="results/{run}/active.h5",
        baselines="results/{run}/baselines.h5",
    output:
        analysis="results/{run}/analysis.json",
        verdict="results/{run}/verdict.json",
    log:
        "results/{run}/logs/analyze.log",
    benchmark:
        "results/{run}/benchmarks/analyze.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.rgm.analyze --settings {input.settings:q}"
        " --inference {input.inference:q} --states {input.states:q}"
        " --digits {input.digits:q} --active {input.active:q}"
        " --baselines {input.baselines:q} --analysis {output.analysis:q}"
        " --verdict {output.verdict:q} > {log:q} 2>&1"
