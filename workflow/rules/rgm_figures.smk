"""rgm: figures, drawn from files alone.

Inputs: what rgm.smk and rgm_spm.smk make; some figures serve both models.
Outputs, per run, as .pdf and .png: see FIGURES and DISCRETE_FIGURES in strata.rgm.config.
Steps: each figure by itself.
"""


rule rgm_plot:
    """Draw the loss and its components, and the learning rate, against epochs."""
    input:
        modules(
            "rgm.plot",
            "rgm.figure_inputs",
            "plotting",
        ),
        history="results/{run}/history.h5",
        baselines="results/{run}/baselines.h5",
    output:
        loss="results/{run}/loss.pdf",
        loss_image=report(
            "results/{run}/loss.png",
            caption="../report/rgm_loss.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "loss components"},
        ),
        learning_rate="results/{run}/learning_rate.pdf",
        learning_rate_image=report(
            "results/{run}/learning_rate.png",
            caption="../report/rgm_learning_rate.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "learning rate"},
        ),
    log:
        "results/{run}/logs/plot.log",
    benchmark:
        "results/{run}/benchmarks/plot.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot --history {input.history:q}"
        " --baselines {input.baselines:q} --loss {output.loss:q}"
        " --loss-image {output.loss_image:q} --learning-rate {output.learning_rate:q}"
        " --learning-rate-image {output.learning_rate_image:q} > {log:q} 2>&1"


rule rgm_plot_matrices:
    """Draw the matrices that training starts from."""
    input:
        modules(
            "rgm.plot_matrices",
            "plotting",
        ),
        matrices="results/{run}/matrices.h5",
    output:
        heatmaps="results/{run}/matrices_heatmaps.pdf",
        heatmaps_image=report(
            "results/{run}/matrices_heatmaps.png",
            caption="../report/rgm_matrices_heatmaps.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "initial matrices"},
        ),
        spectra="results/{run}/matrices_spectra.pdf",
        spectra_image=report(
            "results/{run}/matrices_spectra.png",
            caption="../report/rgm_matrices_spectra.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "spectra"},
        ),
        distributions="results/{run}/matrices_distributions.pdf",
        distributions_image=report(
            "results/{run}/matrices_distributions.png",
            caption="../report/rgm_matrices_distributions.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "distributions"},
        ),
        conditions="results/{run}/matrices_conditions.pdf",
        conditions_image=report(
            "results/{run}/matrices_conditions.png",
            caption="../report/rgm_matrices_conditions.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "condition numbers"},
        ),
    log:
        "results/{run}/logs/plot_matrices.log",
    benchmark:
        "results/{run}/benchmarks/plot_matrices.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_matrices --matrices {input.matrices:q}"
        " --heatmaps {output.heatmaps:q} --heatmaps-image {output.heatmaps_image:q}"
        " --spectra {output.spectra:q} --spectra-image {output.spectra_image:q}"
        " --distributions {output.distributions:q}"
        " --distributions-image {output.distributions_image:q}"
        " --conditions {output.conditions:q}"
        " --conditions-image {output.conditions_image:q} > {log:q} 2>&1"


rule rgm_plot_reconstructions:
    """Draw test images and what every level makes of them."""
    input:
        modules(
            "rgm.plot_reconstructions",
            "rgm.figure_inputs",
            "rgm.image_grids",
            "plotting",
        ),
        states="results/{run}/states.h5",
    output:
        figure="results/{run}/reconstructions.pdf",
        image=report(
            "results/{run}/reconstructions.png",
            caption="../report/rgm_reconstructions.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "reconstructions"},
        ),
    log:
        "results/{run}/logs/plot_reconstructions.log",
    benchmark:
        "results/{run}/benchmarks/plot_reconstructions.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_reconstructions --states {input.states:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_snapshots:
    """Draw reconstructions in the course of training."""
    input:
        modules(
            "rgm.plot_snapshots",
            "rgm.figure_inputs",
            "rgm.image_grids",
            "plotting",
        ),
        history="results/{run}/history.h5",
    output:
        figure="results/{run}/training_reconstructions.pdf",
        image=report(
            "results/{run}/training_reconstructions.png",
            caption="../report/rgm_training_reconstructions.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "reconstructions while training"},
        ),
    log:
        "results/{run}/logs/plot_snapshots.log",
    benchmark:
        "results/{run}/benchmarks/plot_snapshots.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_snapshots --history {input.history:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_activations:
    """Draw what the units of every level do over images."""
    input:
        modules(
            "rgm.plot_activations",
            "rgm.figure_inputs",
            "rgm.image_grids",
            "plotting",
        ),
        states="results/{run}/states.h5",
    output:
        figure="results/{run}/activations.pdf",
        image=report(
            "results/{run}/activations.png",
            caption="../report/rgm_activations.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "activations"},
        ),
    log:
        "results/{run}/logs/plot_activations.log",
    benchmark:
        "results/{run}/benchmarks/plot_activations.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_activations --states {input.states:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_features:
    """Draw what units and categories stand for."""
    input:
        modules(
            "rgm.plot_features",
            "rgm.figure_inputs",
            "rgm.image_grids",
            "plotting",
        ),
        states="results/{run}/states.h5",
    output:
        features="results/{run}/features.pdf",
        features_image=report(
            "results/{run}/features.png",
            caption="../report/rgm_features.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "features"},
        ),
        prototypes="results/{run}/prototypes.pdf",
        prototypes_image=report(
            "results/{run}/prototypes.png",
            caption="../report/rgm_prototypes.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "prototypes"},
        ),
    log:
        "results/{run}/logs/plot_features.log",
    benchmark:
        "results/{run}/benchmarks/plot_features.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_features --states {input.states:q}"
        " --features {output.features:q} --features-image {output.features_image:q}"
        " --prototypes {output.prototypes:q}"
        " --prototypes-image {output.prototypes_image:q} > {log:q} 2>&1"


rule rgm_plot_representation:
    """Draw the states of every level on a plane."""
    input:
        modules(
            "rgm.plot_representation",
            "rgm.figure_inputs",
            "plotting",
        ),
        states="results/{run}/states.h5",
    output:
        figure="results/{run}/representation.pdf",
        image=report(
            "results/{run}/representation.png",
            caption="../report/rgm_representation.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "representation"},
        ),
    log:
        "results/{run}/logs/plot_representation.log",
    benchmark:
        "results/{run}/benchmarks/plot_representation.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_representation --states {input.states:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_errors:
    """Draw the prediction errors of every level."""
    input:
        modules(
            "rgm.plot_errors",
            "rgm.figure_inputs",
            "plotting",
        ),
        states="results/{run}/states.h5",
    output:
        figure="results/{run}/error_distributions.pdf",
        image=report(
            "results/{run}/error_distributions.png",
            caption="../report/rgm_error_distributions.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "errors"},
        ),
    log:
        "results/{run}/logs/plot_errors.log",
    benchmark:
        "results/{run}/benchmarks/plot_errors.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_errors --states {input.states:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_digits:
    """Draw generated digits and walks between images."""
    input:
        modules(
            "rgm.plot_digits",
            "rgm.figure_inputs",
            "rgm.image_grids",
            "plotting",
        ),
        digits="results/{run}/digits.h5",
        baselines="results/{run}/baselines.h5",
    output:
        generated_digits="results/{run}/generated_digits.pdf",
        generated_digits_image=report(
            "results/{run}/generated_digits.png",
            caption="../report/rgm_generated_digits.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "generated digits"},
        ),
        interpolations="results/{run}/interpolations.pdf",
        interpolations_image=report(
            "results/{run}/interpolations.png",
            caption="../report/rgm_interpolations.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "interpolations"},
        ),
    log:
        "results/{run}/logs/plot_digits.log",
    benchmark:
        "results/{run}/benchmarks/plot_digits.tsv"
    wildcard_constraints:
        run=runs_where("rgm", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_digits --digits {input.digits:q}"
        " --baselines {input.baselines:q}"
        " --generated-digits {output.generated_digits:q}"
        " --generated-digits-image {output.generated_digits_image:q}"
        " --interpolations {output.interpolations:q}"
        " --interpolations-image {output.interpolations_image:q} > {log:q} 2>&1"


rule rgm_plot_robustness:
    """Draw accuracy and error against damage, and restored images."""
    input:
        modules(
            "rgm.plot_robustness",
            "rgm.conditions",
            "rgm.scores",
            "rgm.damage_kinds",
            "plotting",
        ),
        inference="results/{run}/inference.h5",
    output:
        robustness="results/{run}/robustness.pdf",
        robustness_image=report(
            "results/{run}/robustness.png",
            caption="../report/rgm_robustness.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "robustness"},
        ),
        restoration="results/{run}/restoration.pdf",
        restoration_image=report(
            "results/{run}/restoration.png",
            caption="../report/rgm_restoration.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "restored images"},
        ),
    log:
        "results/{run}/logs/plot_robustness.log",
    benchmark:
        "results/{run}/benchmarks/plot_robustness.tsv"
    wildcard_constraints:
        run=runs_where("rgm", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_robustness --inference {input.inference:q}"
        " --robustness {output.robustness:q}"
        " --robustness-image {output.robustness_image:q}"
        " --restoration {output.restoration:q}"
        " --restoration-image {output.restoration_image:q} > {log:q} 2>&1"


rule rgm_plot_confusion:
    """Draw confusion matrices."""
    input:
        modules(
            "rgm.plot_confusion",
            "rgm.conditions",
            "rgm.scores",
            "plotting",
        ),
        inference="results/{run}/inference.h5",
    output:
        figure="results/{run}/confusion.pdf",
        image=report(
            "results/{run}/confusion.png",
            caption="../report/rgm_confusion.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "confusion"},
        ),
    log:
        "results/{run}/logs/plot_confusion.log",
    benchmark:
        "results/{run}/benchmarks/plot_confusion.tsv"
    wildcard_constraints:
        run=runs_where("rgm", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_confusion --inference {input.inference:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_free_energy:
    """Draw the free energy on its way down."""
    input:
        modules(
            "rgm.plot_free_energy",
            "rgm.conditions",
            "rgm.damage_kinds",
            "plotting",
        ),
        inference="results/{run}/inference.h5",
    output:
        figure="results/{run}/free_energy.pdf",
        image=report(
            "results/{run}/free_energy.png",
            caption="../report/rgm_free_energy.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "free energy"},
        ),
    log:
        "results/{run}/logs/plot_free_energy.log",
    benchmark:
        "results/{run}/benchmarks/plot_free_energy.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_free_energy --inference {input.inference:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_active:
    """Draw accuracy against the number of labels."""
    input:
        modules(
            "rgm.plot_active",
            "rgm.measurements",
            "rgm.scores",
            "plotting",
        ),
        active="results/{run}/active.h5",
    output:
        figure="results/{run}/active_learning.pdf",
        image=report(
            "results/{run}/active_learning.png",
            caption="../report/rgm_active_learning.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "active learning"},
        ),
    log:
        "results/{run}/logs/plot_active.log",
    benchmark:
        "results/{run}/benchmarks/plot_active.tsv"
    wildcard_constraints:
        run=runs_where("rgm", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_active --active {input.active:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_plot_baselines:
    """Draw the network beside simple methods."""
    input:
        modules(
            "rgm.plot_baselines",
            "quantities",
            "plotting",
        ),
        analysis="results/{run}/analysis.json",
    output:
        figure="results/{run}/comparison.pdf",
        image=report(
            "results/{run}/comparison.png",
            caption="../report/rgm_comparison.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "comparison"},
        ),
    log:
        "results/{run}/logs/plot_baselines.log",
    benchmark:
        "results/{run}/benchmarks/plot_baselines.tsv"
    wildcard_constraints:
        run=CONTINUOUS,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.plot_baselines --analysis {input.analysis:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_spm_plot_learning:
    """Draw how accuracy and gates of the discrete model change with the images learned."""
    input:
        modules(
            "rgm.spm.plot_learning",
            "plotting",
        ),
        history="results/{run}/history.h5",
    output:
        figure="results/{run}/learning_curve.pdf",
        image=report(
            "results/{run}/learning_curve.png",
            caption="../report/rgm_learning_curve.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "learning curve"},
        ),
    log:
        "results/{run}/logs/spm_plot_learning.log",
    benchmark:
        "results/{run}/benchmarks/spm_plot_learning.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.spm.plot_learning --history {input.history:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_spm_plot_structure:
    """Draw tiles, modes, states and exemplars of the discrete model."""
    input:
        modules(
            "rgm.spm.plot_structure",
            "rgm.figure_inputs",
            "rgm.image_grids",
            "plotting",
        ),
        structure="results/{run}/structure.h5",
    output:
        figure="results/{run}/structure.pdf",
        image=report(
            "results/{run}/structure.png",
            caption="../report/rgm_structure.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "structure"},
        ),
    log:
        "results/{run}/logs/spm_plot_structure.log",
    benchmark:
        "results/{run}/benchmarks/spm_plot_structure.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.spm.plot_structure --structure {input.structure:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_spm_plot_confidence:
    """Draw how sure the discrete model is, and whether it is right then."""
    input:
        modules(
            "rgm.spm.plot_confidence",
            "rgm.spm.confidence",
            "rgm.conditions",
            "rgm.scores",
            "plotting",
        ),
        inference="results/{run}/inference.h5",
    output:
        figure="results/{run}/confidence.pdf",
        image=report(
            "results/{run}/confidence.png",
            caption="../report/rgm_confidence.rst",
            category="rgm",
            labels={"run": "{run}", "figure": "confidence"},
        ),
    log:
        "results/{run}/logs/spm_plot_confidence.log",
    benchmark:
        "results/{run}/benchmarks/spm_plot_confidence.tsv"
    wildcard_constraints:
        run=DISCRETE,
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.rgm.spm.plot_confidence --inference {input.inference:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"


rule rgm_contrast:
    """Draw and tabulate the models of a sweep side by side."""
    input:
        modules(
            "rgm.contrast",
            "rgm.contrast_figure",
            "rgm.contrast_table",
            "rgm.damage_kinds",
            "plotting",
            "quantities",
            "summaries",
            "sweeps",
        ),
        settings=files_of_runs("settings.json"),
        analyses=files_of_runs("analysis.json"),
        histories=files_of_runs("history.h5"),
        actives=files_of_runs("active.h5"),
        benchmarks=benchmarks_of_training,
    output:
        data="results/{experiment}/models.csv",
        table="results/{experiment}/models.md",
        figure="results/{experiment}/models.pdf",
        image=report(
            "results/{experiment}/models.png",
            caption="../report/rgm_models.rst",
            category="rgm",
            labels={"run": "{experiment}", "figure": "models"},
        ),
    log:
        "results/{experiment}/logs/contrast.log",
    benchmark:
        "results/{experiment}/benchmarks/contrast.tsv"
    wildcard_constraints:
        experiment=sweeps_of("rgm"),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.rgm.contrast --runs-settings {input.settings:q}"
        " --analyses {input.analyses:q} --histories {input.histories:q}"
        " --actives {input.actives:q} --benchmarks {input.benchmarks:q} --data {output.data:q} --table {output.table:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"
