"""Chosen experiments of one family over each other, of any family.

Inputs: history.h5, settings.json, analysis.json, verdict.json of their runs, and the file of what
their curves are held against.
Outputs: results/comparison/<experiments joined by +>.{pdf,png,md,html}.
Steps: comparison. The experiments are chosen by `compare` in config/config.yaml, or with --config.
"""

refuse_empty_comparison()


rule comparison:
    """Draw the experiments over each other, and set their numbers side by side."""
    input:
        modules(
            "compare",
            "comparison_figure",
            "html_tables",
            "plotting",
            "seed_means",
            "summaries",
        ),
        runs=[f"results/{name}" for name in files_compared(COMPARED)],
    output:
        figure="results/comparison/{comparison}.pdf",
        image=report(
            "results/comparison/{comparison}.png",
            caption="../report/comparison.rst",
            category="comparison",
            labels={"run": "{comparison}", "figure": "comparison"},
        ),
        table="results/comparison/{comparison}.md",
        page=report(
            "results/comparison/{comparison}.html",
            caption="../report/comparison.rst",
            category="comparison",
            labels={"run": "{comparison}", "figure": "table"},
        ),
    log:
        "results/comparison/logs/{comparison}.log",
    benchmark:
        "results/comparison/benchmarks/{comparison}.tsv"
    wildcard_constraints:
        comparison=alternatives(COMPARISONS),
    conda:
        "../../envs/strata.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        families=FAMILIES_JSON,
        experiments=WORKFLOW.compare,
    shell:
        "python -m strata.compare --families {params.families:q} --results results"
        " --experiments {params.experiments:q} --figure {output.figure:q}"
        " --image {output.image:q} --table {output.table:q} --page {output.page:q}"
        " > {log:q} 2>&1"


rule compare:
    """The comparison of the experiments that are chosen."""
    input:
        [
            f"results/comparison/{name}.{suffix}"
            for name in COMPARISONS
            for suffix in ("pdf", "html")
        ],
