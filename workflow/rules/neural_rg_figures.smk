"""neural_rg: figures, drawn from files alone.

Inputs: what neural_rg.smk makes.
Outputs, per run: loss_acc, configurations, hmc, mutual_information, renormalized_fields and
response_<kind>_scale<k> as .pdf and .png; configurations.gif, animation.gif. Per sweep: quality as
.pdf, .png and .md.
Steps: each figure by itself.
"""

from strata.neural_rg.config import RESPONSES


rule neural_rg_plot:
    """Draw loss and acceptance against training steps, with the exact line."""
    input:
        modules("neural_rg.plot", "neural_rg.target_settings", "plotting"),
        settings="results/{run}/settings/plot.json",
        history="results/{run}/history.h5",
        exact=exact_answer,
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
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: not run.original),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot --settings {input.settings:q}"
        " --history {input.history:q} --exact {input.exact:q}"
        " --figure {output.figure:q} --image {output.image:q}"
        " > {log:q} 2>&1"


rule neural_rg_plot_snapshots:
    """Draw the training as an animation."""
    input:
        modules(
            "neural_rg.plot_snapshots",
            "neural_rg.field_pictures",
            "neural_rg.target_settings",
            "animation",
            "plotting",
        ),
        settings="results/{run}/settings/plot.json",
        history="results/{run}/history.h5",
    output:
        animation=report(
            "results/{run}/animation.gif",
            caption="../report/animation.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "training (animation)"},
        ),
    log:
        "results/{run}/logs/plot_snapshots.log",
    benchmark:
        "results/{run}/benchmarks/plot_snapshots.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: not run.original),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot_snapshots --settings {input.settings:q}"
        " --history {input.history:q} --animation {output.animation:q} > {log:q} 2>&1"


rule neural_rg_plot_configurations:
    """Draw proposed and accepted configurations of one chain, as a page and as an animation."""
    input:
        modules(
            "neural_rg.plot_configurations",
            "neural_rg.field_pictures",
            "neural_rg.target_settings",
            "animation",
            "plotting",
        ),
        settings="results/{run}/settings/plot.json",
        samples="results/{run}/samples.h5",
    output:
        figure="results/{run}/configurations.pdf",
        image=report(
            "results/{run}/configurations.png",
            caption="../report/configurations.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "configurations"},
        ),
        animation=report(
            "results/{run}/configurations.gif",
            caption="../report/configurations.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "configurations (animation)"},
        ),
    log:
        "results/{run}/logs/plot_configurations.log",
    benchmark:
        "results/{run}/benchmarks/plot_configurations.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot_configurations --settings {input.settings:q}"
        " --samples {input.samples:q}"
        " --figure {output.figure:q} --image {output.image:q} --animation {output.animation:q}"
        " > {log:q} 2>&1"


rule neural_rg_plot_hamiltonian:
    """Draw Hamiltonian Monte Carlo in both spaces, with the exact line."""
    input:
        modules(
            "neural_rg.plot_hamiltonian",
            "neural_rg.autocorrelation",
            "neural_rg.target_settings",
            "plotting",
        ),
        settings="results/{run}/settings/plot.json",
        hmc="results/{run}/hmc.h5",
        exact=exact_answer,
    output:
        figure="results/{run}/hmc.pdf",
        image=report(
            "results/{run}/hmc.png",
            caption="../report/hmc.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "Hamiltonian Monte Carlo"},
        ),
    log:
        "results/{run}/logs/plot_hamiltonian.log",
    benchmark:
        "results/{run}/benchmarks/plot_hamiltonian.tsv"
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot_hamiltonian --settings {input.settings:q}"
        " --hmc {input.hmc:q} --exact {input.exact:q}"
        " --figure {output.figure:q} --image {output.image:q}"
        " > {log:q} 2>&1"


rule neural_rg_plot_information:
    """Draw the mutual information of physical and of latent variables."""
    input:
        modules("neural_rg.plot_information", "neural_rg.target_settings", "plotting"),
        settings="results/{run}/settings/plot.json",
        information="results/{run}/information.h5",
    output:
        figure="results/{run}/mutual_information.pdf",
        image=report(
            "results/{run}/mutual_information.png",
            caption="../report/mutual_information.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "mutual information"},
        ),
    log:
        "results/{run}/logs/plot_information.log",
    benchmark:
        "results/{run}/benchmarks/plot_information.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: run.has_exact_samples),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot_information --settings {input.settings:q}"
        " --information {input.information:q}"
        " --figure {output.figure:q} --image {output.image:q}"
        " > {log:q} 2>&1"


rule neural_rg_plot_renormalization:
    """Draw the fields of every scale."""
    input:
        modules(
            "neural_rg.plot_renormalization",
            "neural_rg.field_pictures",
            "neural_rg.renormalization_file",
            "neural_rg.target_settings",
            "plotting",
        ),
        settings="results/{run}/settings/plot.json",
        renormalization="results/{run}/renormalization.h5",
    output:
        figure="results/{run}/renormalized_fields.pdf",
        image=report(
            "results/{run}/renormalized_fields.png",
            caption="../report/renormalized_fields.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "renormalized fields"},
        ),
    log:
        "results/{run}/logs/plot_renormalization.log",
    benchmark:
        "results/{run}/benchmarks/plot_renormalization.tsv"
    wildcard_constraints:
        run=runs_where("neural_rg", lambda run: run.flow.is_multiscale),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot_renormalization --settings {input.settings:q}"
        " --renormalization {input.renormalization:q}"
        " --figure {output.figure:q} --image {output.image:q}"
        " > {log:q} 2>&1"


rule neural_rg_plot_responses:
    """Draw how the field of one scale responds to each latent variable."""
    input:
        modules(
            "neural_rg.plot_responses",
            "neural_rg.field_pictures",
            "neural_rg.renormalization_file",
            "neural_rg.target_settings",
            "plotting",
        ),
        settings="results/{run}/settings/plot.json",
        renormalization="results/{run}/renormalization.h5",
    output:
        figure="results/{run}/response_{kind}_scale{scale}.pdf",
        image=report(
            "results/{run}/response_{kind}_scale{scale}.png",
            caption="../report/response.rst",
            category="neural_rg",
            labels={"run": "{run}", "figure": "response ({kind}) of scale {scale}"},
        ),
    log:
        "results/{run}/logs/plot_response_{kind}_scale{scale}.log",
    benchmark:
        "results/{run}/benchmarks/plot_response_{kind}_scale{scale}.tsv"
    wildcard_constraints:
        kind=alternatives(RESPONSES),
        scale=r"\d+",
        run=runs_where("neural_rg", lambda run: run.flow.is_multiscale),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.plot_responses --settings {input.settings:q}"
        " --renormalization {input.renormalization:q}"
        " --kind {wildcards.kind:q} --scale {wildcards.scale:q}"
        " --figure {output.figure:q} --image {output.image:q}"
        " > {log:q} 2>&1"


rule neural_rg_compare:
    """Draw and tabulate how good the flows of a sweep are."""
    input:
        modules(
            "neural_rg.compare",
            "neural_rg.quality_figure",
            "neural_rg.sweep_quality",
            "neural_rg.target_settings",
            "plotting",
            "quantities",
            "summaries",
            "sweeps",
        ),
        settings=files_of_runs("settings.json"),
        analyses=files_of_runs("analysis.json"),
    output:
        table="results/{experiment}/quality.md",
        figure="results/{experiment}/quality.pdf",
        image=report(
            "results/{experiment}/quality.png",
            caption="../report/quality.rst",
            category="neural_rg",
            labels={"run": "{experiment}", "figure": "quality"},
        ),
    log:
        "results/{experiment}/logs/compare.log",
    benchmark:
        "results/{experiment}/benchmarks/compare.tsv"
    wildcard_constraints:
        experiment=sweeps_of("neural_rg"),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=30,
    shell:
        "python -m strata.neural_rg.compare --runs-settings {input.settings:q}"
        " --analyses {input.analyses:q} --table {output.table:q}"
        " --figure {output.figure:q} --image {output.image:q} > {log:q} 2>&1"
