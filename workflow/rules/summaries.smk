"""What is the same for every family: settings of a run, summary of a sweep, table of verdicts.

Inputs: config/*.yaml; verdict.json and analysis.json of runs.
Outputs: results/<run>/settings.json, results/<run>/settings/<stage>.json,
results/<sweep>/summary.{csv,md,html}; as a by-product of the target `verdicts`,
results/verdicts.{md,csv}, of `summaries`, the summaries of all sweeps from the runs there are, of
`crate`, results/ro-crate-metadata.json.
"""


localrules:
    settings,
    stage_settings,
    summary,
    summaries,
    verdicts,
    crate,


rule settings:
    """Write the full settings of a run, defaults included."""
    output:
        "results/{run}/settings.json",
    log:
        "results/{run}/logs/settings.log",
    conda:
        "../../envs/strata.yaml"
    params:
        settings=settings_of_run,
    shell:
        "printf '%s' {params.settings:q}"
        " | python -m json.tool --no-ensure-ascii --indent 2 - {output:q} 2> {log:q}"


rule stage_settings:
    """Write what one stage of a run reads, so that only a change there runs the stage again."""
    output:
        "results/{run}/settings/{stage}.json",
    log:
        "results/{run}/logs/settings_{stage}.log",
    wildcard_constraints:
        stage="[a-z_]+",
    conda:
        "../../envs/strata.yaml"
    params:
        settings=settings_of_stage,
    shell:
        "printf '%s' {params.settings:q}"
        " | python -m json.tool --no-ensure-ascii --indent 2 - {output:q} 2> {log:q}"


rule summary:
    """Gather a sweep's runs: what was varied, what was measured, what the verdicts say."""
    input:
        modules(
            "tabulate",
            "summaries",
            "sweeps",
            "seed_means",
            "summary_pages",
            "html_tables",
        ),
        settings=files_of_runs("settings.json"),
        analyses=files_of_runs("analysis.json"),
        verdicts=files_of_runs("verdict.json"),
    output:
        table="results/{experiment}/summary.csv",
        markdown="results/{experiment}/summary.md",
        page=report(
            "results/{experiment}/summary.html",
            caption="../report/summary.rst",
            category=family_of_experiment,
            labels={"run": "{experiment}", "figure": "summary"},
        ),
    log:
        "results/{experiment}/logs/summary.log",
    wildcard_constraints:
        experiment=alternatives(e.name for e in EXPERIMENTS.values() if e.is_sweep),
    conda:
        "../../envs/strata.yaml"
    params:
        families=FAMILIES_JSON,
    shell:
        "python -m strata.tabulate --families {params.families:q} --results results"
        " --sweep {wildcards.experiment:q} > {log:q} 2>&1"


rule summaries:
    """Write the summaries of all sweeps from the runs made so far; runs nothing else."""
    log:
        "results/logs/summaries.log",
    conda:
        "../../envs/strata.yaml"
    params:
        families=FAMILIES_JSON,
    shell:
        "python -m strata.tabulate --families {params.families:q} --results results 2> {log:q}"


rule verdicts:
    """Print the verdicts of the runs made so far; runs nothing else."""
    log:
        "results/logs/verdicts.log",
    conda:
        "../../envs/strata.yaml"
    params:
        families=FAMILIES_JSON,
    shell:
        "python -m strata.verdicts --families {params.families:q} --results results"
        " --markdown results/verdicts.md --csv results/verdicts.csv 2> {log:q}"


rule crate:
    """Describe every result so far, and the job that made it, as an RO-Crate; runs nothing else."""
    log:
        "results/logs/crate.log",
    conda:
        "../../envs/strata.yaml"
    shell:
        "python -m strata.provenance_crate --results results --records .snakemake/metadata"
        " --crate results/ro-crate-metadata.json 2> {log:q}"
