"""What is the same for every family: settings of a run, summary of a sweep, table of verdicts.

Inputs: config/*.yaml; verdict.json and analysis.json of runs.
Outputs: results/<run>/settings.json, results/<run>/settings/<stage>.json, results/<sweep>/summary.csv, results/verdicts.{md,csv}.
"""


localrules:
    settings,
    stage_settings,
    summary,
    verdict_table,
    verdicts,


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
    """Gather a sweep's runs: what was varied, what was measured."""
    input:
        modules("strata.summaries"),
        settings=files_of_runs("settings.json"),
        analyses=files_of_runs("analysis.json"),
    output:
        "results/{experiment}/summary.csv",
    log:
        "results/{experiment}/logs/summary.log",
    conda:
        "../../envs/strata.yaml"
    shell:
        "python -m strata.summaries --settings {input.settings:q} --analyses {input.analyses:q}"
        " --summary {output:q} > {log:q} 2>&1"


rule verdict_table:
    """Gather the verdicts of all runs that have one."""
    input:
        modules("strata.verdicts"),
        verdicts=[f"results/{run}/verdict.json" for run in RUNS_WITH_VERDICT],
    output:
        markdown="results/verdicts.md",
        csv="results/verdicts.csv",
    log:
        "results/logs/verdicts.log",
    conda:
        "../../envs/strata.yaml"
    params:
        run=[f"--run={run}" for run in RUNS_WITH_VERDICT],
        not_run=[f"--not-run={run}" for run in RUNS if run not in RUNS_WITH_VERDICT],
    shell:
        "python -m strata.verdicts --results results {params.run:q} {params.not_run:q}"
        " --markdown {output.markdown:q} --csv {output.csv:q} > {log:q} 2>&1"
