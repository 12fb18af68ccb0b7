"""The report: every figure is in it, its first page holds the verdicts, and a browser opens it.

In the report of the tests each figure is a picture with a width of its own, so that what the
browser shows says which file it is.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from docutils.core import publish_parts
from PIL import Image

from strata.config import sha256
from strata.errors import UserError
from strata.experiments import known_families, load_experiments
from strata.hmm_rnn.trajectory_page import trajectory, write_page
from strata.hmm_rnn.trajectory_panels import look_of
from strata.report_page import verdict_page
from strata.verdicts import Check, write_verdict

REPOSITORY = Path(__file__).parents[1]
WORKFLOW = REPOSITORY / "workflow"
CHROMIUM = (Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver"))
SHOWN = {".png", ".gif", ".html"}  # a .pdf is the same figure in print

# --- every figure is in the report --------------------------------------------------------------


def outputs_of_rules() -> dict[str, ast.Call]:
    """Return what each rule says under `output:`, as the call of a function."""
    found = {}
    for file in sorted((WORKFLOW / "rules").glob("*.smk")):
        for rule in re.split(r"^(?=rule |use rule )", file.read_text(), flags=re.MULTILINE)[1:]:
            block = re.search(r"^    output:\n((?:        .*\n)+)", rule, re.MULTILINE)
            if block:
                name = rule.split(":")[0].split()[-1]
                (statement,) = ast.parse(f"f(\n{block[1]})").body
                assert isinstance(statement, ast.Expr)
                assert isinstance(statement.value, ast.Call)
                found[f"{file.name}: {name}"] = statement.value
    return found


RULES = outputs_of_rules()


def marked_and_bare(rule: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return a rule's outputs: those in the report with what is said of them, and the others."""
    call = RULES[rule]
    marked, bare = {}, []
    for value in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if isinstance(value, ast.Call):
            assert isinstance(value.func, ast.Name)
            assert value.func.id == "report"
            said = {str(k.arg): constant(k.value) for k in value.keywords}
            marked[ast.literal_eval(value.args[0])] = said
        else:
            bare.append(ast.literal_eval(value))
    return marked, bare


def constant(value: ast.expr) -> Any:
    """Return a constant; of what only a function of wildcards knows, the function's name."""
    return value.id if isinstance(value, ast.Name) else ast.literal_eval(value)


def reported() -> list[dict[str, Any]]:
    """Return what is said of each figure in the report."""
    return [said for rule in RULES for said in marked_and_bare(rule)[0].values()]


def test_there_are_figures_to_look_at() -> None:
    assert len(RULES) > 50
    assert len(reported()) > 50


@pytest.mark.parametrize("rule", RULES)
def test_every_figure_of_a_rule_is_in_the_report(rule: str) -> None:
    marked, bare = marked_and_bare(rule)
    assert not [path for path in bare if Path(path).suffix in SHOWN]
    for path in bare:
        if path.endswith(".pdf"):
            assert path.removesuffix("pdf") + "png" in marked
    for path, said in marked.items():
        assert set(said) == {"caption", "category", "labels"}
        assert (WORKFLOW / "rules" / said["caption"]).is_file()
        assert said["category"] in (*known_families(), "family_of_experiment", "comparison")
        assert list(said["labels"]) == ["run", "figure"]
        assert said["labels"]["run"] in (path.split("/")[1], Path(path).stem)


def test_no_two_figures_of_a_run_are_called_alike() -> None:
    """The report shows one of them alone."""
    called = [
        (said["category"], said["labels"]["run"], said["labels"]["figure"]) for said in reported()
    ]
    assert len(set(called)) == len(called)


def test_every_caption_belongs_to_a_figure() -> None:
    used = {Path(said["caption"]).name for said in reported()}
    assert used | {"workflow.rst"} == {path.name for path in (WORKFLOW / "report").iterdir()}


# --- the table of verdicts ----------------------------------------------------------------------

SIGNS = r"*a* |b|, `c` <x1^2>_ at `T`_ \ l_2_"


def verdict(path: Path, *checks: Check, settings: str = "{}") -> str:
    write_verdict(path / "verdict.json", checks, {"settings_sha256": sha256(settings)})
    return sha256(settings)


def html_of(page: str) -> str:
    return str(publish_parts(page, writer="html", settings_overrides={"report_level": 1})["body"])


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of the page's table as a browser would show them."""
    html = html_of(page)
    assert "system-message" not in html
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [
        [
            re.sub(r"<[^>]*>", "", cell).strip()
            .replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&nbsp;", "")
            for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        ]
        for row in rows
    ]  # fmt: skip


def test_a_row_for_every_check_whatever_its_name_is(tmp_path: Path) -> None:
    first = verdict(
        tmp_path / "one",
        Check(SIGNS, 1.0, "at most", 2.0, 0.5, "nats", "theory"),
        Check("gap", 3.0, "at most", 2.0, 0.5, "1", "theory"),
    )
    second = verdict(tmp_path / "two_/lr~0.1", Check("m_2", 1.0, "equals", 1.0, 0.0, "1", ""))
    page = verdict_page(tmp_path, {"one": first, "two_/lr~0.1": second})
    assert rows_of(page) == [
        ["run", "check", "measured", "expected", "verdict"],
        ["one", SIGNS, "1.000", "<= 2.000 ± 0.500 nats", "passed"],
        ["", "gap", "3.000", "<= 2.000 ± 0.500", "FAILED"],
        ["two_/lr~0.1", "m_2", "1.000", "= 1.000", "passed"],
    ]
    assert "2 of 3 checks passed" in html_of(page)


def test_what_the_table_lacks_is_named(tmp_path: Path) -> None:
    verdict(tmp_path / "old_run", Check("gap", 1.0, "at most", 2.0, 0.0, "1", ""))
    page = verdict_page(tmp_path, {"old_run": "0", "later_run": "0"})
    html = html_of(page)
    assert "Made before the settings last changed: old_run." in html
    assert "Not run yet: later_run." in html
    nothing = html_of(verdict_page(tmp_path, {"later_run": "0"}))
    assert "0 of 0 checks passed." in nothing
    assert "<table" not in nothing


def test_a_damaged_verdict_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "verdict.json").write_text("{")
    with pytest.raises(UserError, match=r"run/verdict\.json: cannot be read as JSON"):
        verdict_page(tmp_path, {"run": "0"})


# --- a report of the demo -----------------------------------------------------------------------


def demo_figures() -> dict[str, list[str]]:
    """Return the figures that `snakemake demo` ends in: family -> paths below results/."""
    return {
        family: [
            f"{name}/{product}"
            for experiment in load_experiments(
                family, REPOSITORY / "config" / f"{family}.yaml"
            ).values()
            if experiment.is_demo
            for name, run in experiment.runs.items()
            for product in run.products
            if Path(product).suffix in SHOWN
        ]
        for family in known_families()
    }


FIGURES = demo_figures()
PAGES = [path for paths in FIGURES.values() for path in paths if path.endswith(".html")]
PICTURES = sorted(path for paths in FIGURES.values() for path in paths if path not in PAGES)
DEMOS = sorted({path.split("/")[0] for path in PICTURES})
WIDTHS = {path: 20 + number for number, path in enumerate(PICTURES)}  # pixels


def dynamics() -> dict[str, np.ndarray]:
    """Return a circle of three symbols, as the stage `reverse` writes it."""
    angle = np.linspace(0.0, 4.0 * np.pi, 301)
    circle = np.stack([np.cos(angle), np.sin(angle), 0.1 * angle], axis=1).astype(np.float32)
    return {
        "run/scores": circle,
        "run/symbols": (np.arange(301) // 20) % 3,
        "noise_free/scores": 0.3 * circle[None, :60],
        "pca/mean": np.zeros(3, dtype=np.float32),
        "pca/components": np.eye(3, dtype=np.float32),
        "pca/explained": np.array([0.5, 0.3, 0.2]),
    }


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "GIT_DIR": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the demo's settings and figures, and with three verdicts."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("workflow", "profiles", "config", "envs", "src"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    results = folder / "results"
    for path, width in WIDTHS.items():
        (results / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, 10), "white").save(results / path)
    for path in PAGES:
        write_page(trajectory(dynamics()), results / path)
    answer = snakemake(folder, *(f"results/{name}/settings.json" for name in DEMOS))
    assert answer.returncode == 0, answer.stderr
    verdict(results / "demo_group", Check("loss_", 1.0, "at most", 2.0, 0.0, "1", "theory"))
    verdict(results / "demo_hmm", Check("skill", 0.1, "at least", 0.9, 0.0, "1", "theory"))
    verdict(results / "mera_L4", Check("gap", 0.1, "at most", 0.9, 0.0, "1", "theory"))
    return folder


@pytest.mark.system
def test_a_report_without_all_figures_is_refused(demo: Path) -> None:
    answer = snakemake(demo, "--report", "results/mera.zip", "mera_L4")
    assert answer.returncode != 0
    assert "marked for report but does not exist" in answer.stderr


@pytest.fixture(scope="module")
def report(demo: Path) -> Path:
    """The page of the report, unpacked."""
    answer = snakemake(demo, "--report", "results/report.zip", "demo")
    assert answer.returncode == 0, answer.stderr
    with zipfile.ZipFile(demo / "results" / "report.zip") as packed:
        packed.extractall(demo / "unpacked")
    return demo / "unpacked" / "report" / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, and with a log of all that it asks for."""
    missing = [str(program) for program in CHROMIUM if not program.exists()]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: install with `make system-packages`.")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM[0])
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-background-networking", "disable-component-update", "disable-sync",
                 "enable-unsafe-swiftshader", "window-size=1600,1000",
                 f"user-data-dir={tmp_path_factory.mktemp('profile')}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(CHROMIUM[1])))
    driver.implicitly_wait(10)
    yield driver
    driver.quit()


def opened(browser: Any, page: Path) -> None:
    """Open a page of this machine, in logs of its own."""
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def asked_for(browser: Any) -> set[str]:
    """Return the schemes of the addresses that were asked for since the page was opened."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return {
        urlsplit(event["params"]["request"]["url"]).scheme
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }


def wait_until(browser: Any, script: str, *arguments: Any) -> Any:
    """Return what a script gives, as soon as it gives something that holds."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, 0.05).until(
        lambda driver: driver.execute_script(script, *arguments)
    )


def click(browser: Any, text: str) -> None:
    wait_until(
        browser,
        "const found = [...document.querySelectorAll('nav a')]"
        ".filter(a => a.textContent.trim() === arguments[0]);"
        "found.forEach(a => a.click()); return found.length",
        text,
    )


@pytest.mark.system
def test_the_first_page_begins_with_the_verdicts_of_its_runs(report: Path, browser: Any) -> None:
    opened(browser, report)
    text = wait_until(browser, "return document.querySelector('table.verdicts')?.innerText")
    assert [row.split("\t") for row in text.splitlines()] == [
        ["run", "check", "measured", "expected", "verdict"],
        ["demo_hmm", "skill", "0.100", ">= 0.900", "FAILED"],
        ["demo_group", "loss_", "1.000", "<= 2.000", "passed"],
    ]
    place = "const place = document.querySelector('.prose p').getBoundingClientRect();"
    menu = "document.querySelector('nav').getBoundingClientRect().right"
    assert 0 <= browser.execute_script(f"{place} return place.top") < 200
    assert browser.execute_script(f"{place} return place.left - {menu}") >= 0
    said = browser.execute_script("return document.querySelector('.prose').innerText")
    assert "1 of 2 checks passed." in said
    assert "Not run yet: demo_mera_L4, demo_rgm, demo_rgm_spm." in said
    assert "mera_L4 " not in said
    assert complaints(browser) == []
    assert asked_for(browser) <= {"file", "data"}


@pytest.mark.system
@pytest.mark.parametrize("family", FIGURES)
def test_every_figure_of_a_category_shows_under_its_name(
    report: Path, browser: Any, family: str
) -> None:
    opened(browser, report)
    click(browser, family)
    shown = {}
    rows = "return document.querySelectorAll('nav tbody tr').length"
    for number in range(wait_until(browser, rows)):
        row = "const row = document.querySelectorAll('nav tbody tr')[arguments[0]];"
        browser.execute_script(f"{row} row.querySelector('a').click()", number)
        path = browser.execute_script("return app.state.resultPath").removeprefix("results/")
        labels = browser.execute_script(
            f"{row} return [...row.querySelectorAll('td')].map(cell => cell.textContent)", number
        )
        assert labels[0] == path.split("/")[0]
        if path in PAGES:
            source = wait_until(browser, "return document.querySelector('iframe')?.src")
            assert source.endswith(".html")
            shown[path] = 0
        else:
            shown[path] = wait_until(
                browser,
                "const image = document.querySelector('#app img:not(nav img)');"
                "return image && image.complete && image.naturalWidth === arguments[0]"
                " ? image.naturalWidth : 0",
                WIDTHS[path],
            )
    assert shown == {path: WIDTHS.get(path, 0) for path in FIGURES[family]}
    assert complaints(browser) == []
    assert asked_for(browser) <= {"file", "data", "blob"}


@pytest.mark.system
def test_a_figure_has_its_caption_and_the_workflow_its_statistics(
    report: Path, browser: Any
) -> None:
    opened(browser, report)
    click(browser, "group_composition")
    wait_until(browser, "return document.querySelectorAll('nav tbody tr').length")
    browser.execute_script("document.querySelectorAll('nav tbody tr a')[1].click()")
    caption = wait_until(browser, "return document.querySelector('nav .prose')?.innerText")
    assert "demo_group" in caption
    captions = browser.execute_script("return Object.values(results).map(file => file.caption)")
    assert len(captions) == len(PICTURES + PAGES)
    assert all("<p>" in text and "system-message" not in text for text in captions)
    browser.execute_script("app.setView({navbarMode: 'menu'})")
    click(browser, "Statistics")
    assert wait_until(browser, "return document.querySelectorAll('.vega-embed canvas').length") == 2
    rules = browser.execute_script("return runtimes_spec.data.values.map(job => job.rule)")
    assert rules == ["settings"] * len(DEMOS)
    assert complaints(browser) == []


@pytest.mark.system
def test_the_page_of_a_trajectory_draws_it(demo: Path, browser: Any) -> None:
    opened(browser, demo / "results" / PAGES[0])
    canvas = "return document.querySelectorAll('.gl-container canvas').length"
    assert wait_until(browser, canvas)
    wait_until(browser, "return document.querySelector('.legend')?.textContent")
    picture = Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    colors = {color for _, color in picture.crop((0, 100, 1200, 800)).getcolors(1 << 24) or []}
    for name in (look_of(symbol).color for symbol in range(3)):
        rgb = [int(name[place : place + 2], 16) for place in (1, 3, 5)]
        assert min(max(abs(a - b) for a, b in zip(c, rgb, strict=True)) for c in colors) < 30
    assert complaints(browser) == []
    assert asked_for(browser) <= {"file", "data", "blob"}
