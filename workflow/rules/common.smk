"""Experiments and the functions that rules ask about them. No rules."""

import importlib.util
import mimetypes
import os
import sys
from dataclasses import replace
from pathlib import Path, PurePath

from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError

from strata.comparisons import HOW_TO_CHOOSE, compared, comparison_name, files_compared
from strata.config import canonical, nearest_names, sha256
from strata.errors import UserError
from strata.experiments import load_workflow, workflow_settings
from strata.name_patterns import alternatives

# Jobs start `python` of the environment that Snakemake itself runs in, activated or not.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.getenv("PATH", "")]))

try:
    WORKFLOW = workflow_settings(config)
    EXPERIMENTS = load_workflow(WORKFLOW)
    COMPARED = compared(WORKFLOW.compare, EXPERIMENTS)
except UserError as error:
    raise WorkflowError(str(error)) from None

# Snakemake hands on what it was asked for only after the rules are read.
ASKED, _ = get_argument_parser().parse_known_args(
    sys.argv[1:] if "snakemake" in sys.argv[0] else []
)

RUNS = {name: run for e in EXPERIMENTS.values() for name, run in e.runs.items()}
# What a stage asks for that computes on a GPU if it can; counted under --resources gpu=<number>.
GPUS = 0 if WORKFLOW.device == "cpu" else 1
FAMILY_OF = {name: e.family for e in EXPERIMENTS.values() for name in e.runs}
FAMILIES_JSON = canonical(WORKFLOW.families)
COMPARISONS = [comparison_name(WORKFLOW.compare)] if COMPARED else []


def gpus_of_training(wildcards):
    """Return on how many GPUs a run trains at once."""
    return GPUS * RUNS[wildcards.run].training.devices


def everything_of(experiments):
    """Return a function of wildcards: every file that the given experiments end in.

    A list would cost each Snakemake call the files of all experiments, asked for or not.
    """
    asked = list(experiments)

    def files(wildcards):
        return [file for experiment in asked for file in files_of(experiment)]

    return files


def files_of(experiment):
    """Return the files that one experiment ends in."""
    of_runs = [
        f"results/{name}/{product}"
        for name in experiment.runs
        for product in experiment.products_of(name)
    ]
    return of_runs + [f"results/{name}" for name in experiment.sweep_files]


def settings_of_run(wildcards):
    """Return all settings of a run, defaults included, as canonical JSON."""
    return RUNS[wildcards.run].canonical_json()


def settings_of_stage(wildcards):
    """Return the settings that one stage of a run reads, as canonical JSON."""
    return RUNS[wildcards.run].sections_of(wildcards.stage)


def verdicts_of_report(categories):
    """Return the verdicts of the runs whose figures a report shows, in reStructuredText."""
    from strata.report_page import verdict_page  # slow to import, and of use in reports alone

    figures = [f for groups in categories.values() for group in groups.values() for f in group]
    shown = {figure.labels["run"] for figure in figures}
    runs = {
        name: sha256(run.verdict_json())
        for name, run in RUNS.items()
        if {name, name.partition("/")[0]} & shown
    }
    try:
        return verdict_page(Path("results"), runs)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def modules(*names):
    """Return the files of strata's modules: inputs of the stages that are cheap to run again."""
    return [os.path.relpath(importlib.util.find_spec(f"strata.{name}").origin) for name in names]


def runs_where(family, holds):
    """Return the runs of a family whose settings fulfil a condition, as a regular expression."""
    return alternatives(name for name, f in FAMILY_OF.items() if f == family and holds(RUNS[name]))


def sweeps_of(family):
    """Return the sweeps of a family, as a regular expression."""
    return alternatives(e.name for e in EXPERIMENTS.values() if e.family == family and e.is_sweep)


def growing(megabytes):
    """Return a function of wildcards and attempt: more memory (MB) each time a job is tried again."""

    def mem_mb(wildcards, attempt):
        return megabytes * attempt

    return mem_mb


def family_of_experiment(wildcards):
    """Return the family of an experiment."""
    return EXPERIMENTS[wildcards.experiment].family


def files_of_runs(name):
    """Return a function of wildcards: this file of every run of a sweep."""

    def files(wildcards):
        return [f"results/{run}/{name}" for run in EXPERIMENTS[wildcards.experiment].runs]

    return files


def refuse_empty_comparison():
    """Stop before any job if a comparison is asked for and nothing is chosen to compare.

    Raises:
        WorkflowError: with how to choose.
    """
    asked = [t for t in requested_targets() if t == "compare" or "results/comparison/" in t]
    if asked and not COMPARED:
        raise WorkflowError(HOW_TO_CHOOSE)


def refuse_unknown_targets():
    """Stop before any job if a target on the command line is nothing that the workflow makes.

    Raises:
        WorkflowError: with the nearest known names.
    """
    names = [known.name for known in workflow.rules if not known.has_wildcards()]
    for target in requested_targets():
        if target in names or Path(target).is_file():
            continue
        if any(known.is_producer(target) for known in workflow.rules):
            continue
        folder = (PurePath(target).parts[1:] or PurePath(target).parts)[0]
        if folder not in EXPERIMENTS:
            what, asked, known = "experiment or target", folder, names
        else:
            in_full = replace(EXPERIMENTS[folder], is_large=False)
            what, asked, known = "file", target, files_of(in_full)
        raise WorkflowError(
            f"There is no {what} called {asked!r} (asked for: {target}); nearest known: "
            f"{', '.join(nearest_names(asked, known))}. Experiments are defined in "
            f"{', '.join(WORKFLOW.families.values())}."
        )


def requested_targets():
    """Return the targets on Snakemake's command line, none where it is used as a library."""
    return sorted(map(str, ASKED.targets or ()))


def pack_no_conda_environments():
    """Where an archive is asked for, take the conda environments from the rules.

    Snakemake would create them and pack the packages that conda itself installs; ours are installed
    by pip, from pins (envs/) that are in the archive.
    """
    if ASKED.archive:
        for known in workflow.rules:
            known.conda_env = None


# A report's first page, workflow/report/workflow.rst, is given the settings and nothing else. Its
# viewer shows pictures of few kinds, GIF not among them; browsers go by the content.
if ASKED.report:
    config["verdicts_of_report"] = verdicts_of_report
    mimetypes.add_type("image/png", ".gif")
