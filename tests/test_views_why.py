"""`strata why`: Snakemake's reasons in plain sentences, its refusals as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strata.command_line import main
from strata.dry_runs import DryRun, Job, Kind, Reason, complaint_of_snakemake, jobs_in, reasons_in
from strata.experiments import load_experiments
from strata.views.reasons import changes, explanation

# As Snakemake 9.27 prints it.
SAID = """\
Building DAG of jobs...
Job stats:
job               count
--------------  -------
hmm_rnn_train         1
total                 1


[Mon Nov 23 06:08:09 2026]
localrule stage_settings:
    output: results/tiny/settings/train.json
    log: results/tiny/logs/settings_train.log
    jobid: 6
    reason: Params have changed since last execution: Union of exclusive params before and now \
across all output: before: {"training":{"lr":0.001}} now: {"training":{"lr":0.002}}
    wildcards: run=tiny, stage=train
    resources: tmpdir=/tmp
Shell command: printf '%s' '{"training":{"lr":0.002}}' > results/tiny/settings/train.json

[Mon Nov 23 06:08:09 2026]
rule hmm_rnn_train:
    input: results/tiny/settings/train.json, results/tiny/hmm.h5
    output: results/tiny/history.h5, results/tiny/model.pt
    jobid: 1
    reason: Updated input files: results/tiny/hmm.h5; \
Input files updated by another job: results/tiny/settings/train.json; \
Code has changed since last execution
    wildcards: run=tiny

[Mon Nov 23 06:08:09 2026]
rule tiny:
    input: results/tiny/model.pt
    jobid: 0
    reason: Input files updated by another job: results/tiny/model.pt
Job stats:
2 jobs have missing provenance/metadata so that it in part cannot be used to trigger re-runs.
"""
WORKFLOW = """\
configfile: "config/config.yaml"

rule stage_settings:
    output: "results/{run}/settings/{stage}.json"
    params: settings='{"target":{"name":"mog2"},"training":{"lr":0.25}}'
    shell: "printf '%s' {params.settings:q} > {output}"

rule train:
    input: settings="results/{run}/settings/train.json", code="train.py"
    output: "results/{run}/model.pt"
    shell: "cp {input.settings} {output}"

rule analyze:
    input: "results/{run}/model.pt"
    output: "results/{run}/verdict.json", "results/{run}/analysis.json"
    shell: "cp {input} {output[0]}; cp {input} {output[1]}"

rule tiny:
    input: "results/tiny/verdict.json"
"""
EXPERIMENT = "tiny: {target: {name: mog2}, flow: {name: realnvp}, training: {lr: 0.5}}\n"
VERDICT = "results/tiny/verdict.json"


def job(rule: str, *reasons: Reason, output: tuple[str, ...] = ("a",)) -> Job:
    return Job(rule, output, reasons)


# --- Snakemake's words --------------------------------------------------------------------------


def test_jobs_are_read_with_what_they_make_and_why() -> None:
    assert jobs_in(SAID) == (
        Job(
            "stage_settings", ("results/tiny/settings/train.json",), (Reason(Kind.SETTINGS),)
        ),
        Job(
            "hmm_rnn_train",
            ("results/tiny/history.h5", "results/tiny/model.pt"),
            (
                Reason(Kind.UPDATED, ("results/tiny/hmm.h5",)),
                Reason(Kind.FOLLOWS, ("results/tiny/settings/train.json",)),
                Reason(Kind.COMMAND),
            ),
        ),
        Job("tiny", (), (Reason(Kind.FOLLOWS, ("results/tiny/model.pt",)),)),
    )  # fmt: skip


def test_a_setting_that_looks_like_the_end_of_a_reason_ends_none() -> None:
    """Behind changed parameters stands whatever their text is."""
    said = f'{Kind.SETTINGS.value}: before: "a; b, c" now: "d"; {Kind.MISSING.value}: x, y'
    assert reasons_in(said) == (Reason(Kind.SETTINGS), Reason(Kind.MISSING, ("x", "y")))


def test_a_refusal_is_told_without_where_in_the_workflow_it_came_up() -> None:
    said = (
        'Using workflow specific profile.\nWorkflowError in file "/w/common.smk", line 108:\n'
        "There is no file called 'x'.\n  File \"/w/Snakefile\", line 14, in <module>\n"
    )
    assert complaint_of_snakemake(said) == "There is no file called 'x'."
    assert complaint_of_snakemake("Killed\n") == "Killed"


# --- sentences ----------------------------------------------------------------------------------


def test_what_follows_is_told_apart_from_what_is_the_cause() -> None:
    follows = Reason(Kind.FOLLOWS, ("results/x",))
    jobs = (
        job("train", Reason(Kind.UPDATED, ("hmm.h5",))),
        job("sample", follows, Reason(Kind.UPDATED, ("hmm.h5",))),
        job("analyze", follows),
        job("plot", follows),
        job("plot", follows),
        job("tiny", follows, output=()),
    )
    assert explanation("tiny", DryRun(jobs, 0), {}) == [
        "tiny: 5 jobs would run: train, sample, analyze, plot (2). Because:",
        "- hmm.h5 is newer than what train and sample made of it.",
        "What is made of these follows: analyze, plot (2).",
    ]


def test_many_files_that_are_missing_are_one_sentence() -> None:
    files = tuple(f"results/{number}" for number in range(7))
    lines = explanation("tiny", DryRun((job("train", Reason(Kind.MISSING, files)),), 0), {})
    assert lines[1:] == ["- results/0, results/1, results/2 and 4 more are not there."]
    lines = explanation("tiny", DryRun((job("train", Reason(Kind.MISSING, files[:1])),), 0), {})
    assert lines[1:] == ["- results/0 is not there."]


@pytest.mark.parametrize(("kind", "words"), [
    (Kind.INCOMPLETE, "x is left half-made"),
    (Kind.OTHER_INPUTS, "rule train reads other files"),
    (Kind.COMMAND, "rule train has another command"),
    (Kind.ENVIRONMENT, "rule train names another software environment"),
    (Kind.NO_FILES, "rule train makes no file and runs whenever"),
    (Kind.SETTINGS, "parameters of the rule train changed"),
    (Kind.FORCED, "rule train is forced"),
])  # fmt: skip
def test_every_reason_has_a_sentence(kind: Kind, words: str) -> None:
    reason = Reason(kind, ("x",) if kind is Kind.INCOMPLETE else ())
    lines = explanation("tiny", DryRun((job("train", reason),), 0), {})
    assert len(lines) == 2
    assert words in lines[1]


def test_nothing_to_do_is_said_and_so_are_missing_records() -> None:
    assert explanation("tiny", DryRun((), 0), {}) == ["tiny: nothing to do, it is up to date."]
    assert explanation("tiny", DryRun((), 1), {})[1:] == [
        "Snakemake has no record of how the files of 1 job were made: a change of their settings "
        "or commands would go unnoticed."
    ]


def test_changed_settings_are_named_by_key() -> None:
    old = {"training": {"lr": 0.001, "steps": 5, "old": None}, "seed": 0}
    new = {"training": {"lr": 0.002, "steps": 5, "new": [1, 2]}, "seed": 0}
    assert changes(old, new) == [
        ("training.lr", "0.001", "0.002"),
        ("training.old", "null", "not set"),
        ("training.new", "not set", "[1, 2]"),
    ]
    assert changes(new, new) == []


def test_a_change_in_many_runs_and_stages_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "neural_rg.yaml"
    text = "sweep: {target: {name: mog2}, flow: {name: realnvp}, sweep: {seed: [0, 1]}"
    path.write_text(f"{text}}}\n")
    before = load_experiments("neural_rg", path)["sweep"].runs
    path.write_text(f"{text}, training: {{lr: 0.25}}}}\n")
    now = load_experiments("neural_rg", path)["sweep"].runs
    files = []
    for run, settings in before.items():
        for stage in ("train", "sample"):
            files.append(f"results/{run}/settings/{stage}.json")
            Path(files[-1]).parent.mkdir(parents=True, exist_ok=True)
            Path(files[-1]).write_text(settings.sections_of(stage))
        files.append(f"results/{run}/settings.json")
        Path(files[-1]).write_text(settings.canonical_json())
    rules = {True: "settings", False: "stage_settings"}
    jobs = tuple(
        job(rules[file.endswith("settings.json")], Reason(Kind.SETTINGS), output=(file,))
        for file in files
    )
    lr = before["sweep/seed~0"].training.lr
    assert explanation("sweep", DryRun(jobs, 0), now)[1:] == [
        f"- The setting training.lr changed: {lr} -> 0.25 (in sweep/seed~0 and sweep/seed~1; "
        "read by train and sample)."
    ]


# --- with Snakemake (tests/test_workflow.py asks it about the real workflow) ---------------------


def said(capsys: pytest.CaptureFixture[str], target: str) -> list[str]:
    """Return what `strata why <target>` prints, exit status 2 and all."""
    with pytest.raises(SystemExit) as leaving:
        main(["why", target])
    captured = capsys.readouterr()
    assert (leaving.value.code or 0) == (2 if captured.err else 0)
    return (captured.out + captured.err).splitlines()


@pytest.mark.slow
def test_the_causes_of_a_real_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(
        "families: {neural_rg: config/neural_rg.yaml}\n"
    )
    (tmp_path / "config" / "neural_rg.yaml").write_text(EXPERIMENT)
    (tmp_path / "Snakefile").write_text(WORKFLOW)
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    build = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all", "--", "tiny"]
    subprocess.run(build, check=True, capture_output=True)
    absolute = os.fspath(tmp_path / VERDICT)
    assert said(capsys, absolute) == [f"{VERDICT}: nothing to do, it is up to date."]

    (tmp_path / "Snakefile").write_text(WORKFLOW.replace("0.25", "0.5"))
    lines = said(capsys, "tiny")
    assert lines[0] == "tiny: 3 jobs would run: stage_settings, train, analyze. Because:"
    assert "- The setting training.lr changed: 0.25 -> 0.5 (in tiny; read by train)." in lines
    assert lines[-1] == "What is made of these follows: train, analyze."

    assert said(capsys, "results/tiny/verdikt.json") == [
        "strata: No rule to produce results/tiny/verdikt.json (if you use input functions make "
        "sure that they don't raise unexpected exceptions)."
    ]
