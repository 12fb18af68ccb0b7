"""group_composition: figures, drawn from files alone.

Inputs: what group_composition.smk makes.
Outputs, per run: see FIGURES in strata.group_composition.config, and `mixing` of networks that have a
mixing matrix (as .pdf and .png); per sweep: comparison.
Steps: each figure by itself.
"""


rule group_composition_plot:
    """Draw the loss, with the predicted staircase."""
    input:
        modules(
            "group_composition.plot",
            "group_composition.figure_inputs",
            "group_composition.network_curves",
            "group_composition.staircase_panels",
            "layouts",
            "plotting",
        ),
        task="results/{run}/task.h5",
        history="results/{run}/history.h5",
    output:
        loss="results/{run}/loss.pdf",
        loss_image=report(
            "results/{run}/loss.png",
            caption="../report/group_composition_loss.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "loss"},
        ),
    log:
        "results/{run}/logs/plot.log",
    benchmark:
        "results/{run}/benchmarks/plot.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.plot --task {input.task:q}"
        " --history {input.history:q} --loss {output.loss:q}"
        " --loss-image {output.loss_image:q} > {log:q} 2>&1"


rule group_composition_plot_predictions:
    """Draw outputs beside targets over training."""
    input:
        modules(
            "group_composition.plot_predictions",
            "group_composition.figure_inputs",
            "layouts",
            "plotting",
        ),
        task="results/{run}/task.h5",
        neurons="results/{run}/neurons.h5",
    output:
        predictions="results/{run}/predictions.pdf",
        predictions_image=report(
            "results/{run}/predictions.png",
            caption="../report/group_composition_predictions.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "predictions"},
        ),
    log:
        "results/{run}/logs/plot_predictions.log",
    benchmark:
        "results/{run}/benchmarks/plot_predictions.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.plot_predictions --task {input.task:q}"
        " --neurons {input.neurons:q} --predictions {output.predictions:q}"
        " --predictions-image {output.predictions_image:q} > {log:q} 2>&1"


rule group_composition_plot_power:
    """Draw when every representation is learned."""
    input:
        modules(
            "group_composition.plot_power",
            "group_composition.figure_inputs",
            "group_composition.network_curves",
            "group_composition.staircase_panels",
            "layouts",
            "plotting",
        ),
        task="results/{run}/task.h5",
        history="results/{run}/history.h5",
    output:
        power="results/{run}/power.pdf",
        power_image=report(
            "results/{run}/power.png",
            caption="../report/group_composition_power.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "power"},
        ),
    log:
        "results/{run}/logs/plot_power.log",
    benchmark:
        "results/{run}/benchmarks/plot_power.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.plot_power --task {input.task:q}"
        " --history {input.history:q} --power {output.power:q}"
        " --power-image {output.power_image:q} > {log:q} 2>&1"


rule group_composition_plot_modes:
    """Draw the template, its parts, and the representations."""
    input:
        modules(
            "group_composition.plot_modes",
            "group_composition.function_panels",
            "group_composition.neuron_panels",
            "layouts",
            "plotting",
        ),
        task="results/{run}/task.h5",
    output:
        template="results/{run}/template.pdf",
        template_image=report(
            "results/{run}/template.png",
            caption="../report/group_composition_template.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "template"},
        ),
        fourier_modes="results/{run}/fourier_modes.pdf",
        fourier_modes_image=report(
            "results/{run}/fourier_modes.png",
            caption="../report/group_composition_fourier_modes.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "Fourier modes"},
        ),
        irreps="results/{run}/irreps.pdf",
        irreps_image=report(
            "results/{run}/irreps.png",
            caption="../report/group_composition_irreps.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "representations"},
        ),
    log:
        "results/{run}/logs/plot_modes.log",
    benchmark:
        "results/{run}/benchmarks/plot_modes.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.plot_modes --task {input.task:q}"
        " --template {output.template:q} --template-image {output.template_image:q}"
        " --fourier-modes {output.fourier_modes:q}"
        " --fourier-modes-image {output.fourier_modes_image:q}"
        " --irreps {output.irreps:q} --irreps-image {output.irreps_image:q} > {log:q} 2>&1"


rule group_composition_plot_neurons:
    """Draw what the neurons read and write."""
    input:
        modules(
            "group_composition.plot_neurons",
            "group_composition.neuron_panels",
            "group_composition.neuron_pictures",
            "group_composition.phase_panels",
            "group_composition.neurons",
            "layouts",
            "plotting",
        ),
        task="results/{run}/task.h5",
        neurons="results/{run}/neurons.h5",
    output:
        readout_neurons="results/{run}/readout_neurons.pdf",
        readout_neurons_image=report(
            "results/{run}/readout_neurons.png",
            caption="../report/group_composition_readout_neurons.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "readout"},
        ),
        input_neurons="results/{run}/input_neurons.pdf",
        input_neurons_image=report(
            "results/{run}/input_neurons.png",
            caption="../report/group_composition_input_neurons.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "inputs"},
        ),
        phases="results/{run}/phases.pdf",
        phases_image=report(
            "results/{run}/phases.png",
            caption="../report/group_composition_phases.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "phases"},
        ),
    log:
        "results/{run}/logs/plot_neurons.log",
    benchmark:
        "results/{run}/benchmarks/plot_neurons.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: True),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.plot_neurons --task {input.task:q}"
        " --neurons {input.neurons:q} --readout-neurons {output.readout_neurons:q}"
        " --readout-neurons-image {output.readout_neurons_image:q}"
        " --input-neurons {output.input_neurons:q}"
        " --input-neurons-image {output.input_neurons_image:q}"
        " --phases {output.phases:q} --phases-image {output.phases_image:q} > {log:q} 2>&1"


rule group_composition_plot_mixing:
    """Draw the mixing matrix, sorted by representation."""
    input:
        modules(
            "group_composition.plot_mixing",
            "group_composition.neuron_panels",
            "group_composition.neurons",
            "layouts",
            "plotting",
        ),
        task="results/{run}/task.h5",
        neurons="results/{run}/neurons.h5",
    output:
        mixing="results/{run}/mixing.pdf",
        mixing_image=report(
            "results/{run}/mixing.png",
            caption="../report/group_composition_mixing.rst",
            category="group_composition",
            labels={"run": "{run}", "figure": "mixing"},
        ),
    log:
        "results/{run}/logs/plot_mixing.log",
    benchmark:
        "results/{run}/benchmarks/plot_mixing.tsv"
    wildcard_constraints:
        run=runs_where("group_composition", lambda run: run.model.kind == "QuadraticRNN"),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.plot_mixing --task {input.task:q}"
        " --neurons {input.neurons:q} --mixing {output.mixing:q}"
        " --mixing-image {output.mixing_image:q} > {log:q} 2>&1"


rule group_composition_compare:
    """Draw the runs of a sweep side by side."""
    input:
        modules(
            "group_composition.compare",
            "group_composition.sweep_figures",
            "group_composition.sweep_runs",
            "summaries",
            "group_composition.width_figure",
            "layouts",
            "plotting",
        ),
        settings=files_of_runs("settings/compare.json"),
        runs_settings=files_of_runs("settings.json"),
        tasks=files_of_runs("task.h5"),
        histories=files_of_runs("history.h5"),
    output:
        comparison="results/{experiment}/comparison.pdf",
        comparison_image=report(
            "results/{experiment}/comparison.png",
            caption="../report/group_composition_comparison.rst",
            category="group_composition",
            labels={"run": "{experiment}", "figure": "comparison"},
        ),
    log:
        "results/{experiment}/logs/compare.log",
    benchmark:
        "results/{experiment}/benchmarks/compare.tsv"
    wildcard_constraints:
        experiment=sweeps_of("group_composition"),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    shell:
        "python -m strata.group_composition.compare --settings {input.settings[0]:q}"
        " --runs-settings {input.runs_settings:q} --tasks {input.tasks:q}"
        " --histories {input.histories:q} --comparison {output.comparison:q}"
        " --comparison-image {output.comparison_image:q} > {log:q} 2>&1"
