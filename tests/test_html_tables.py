"""Tables on a web page: nothing of a result can run, verdicts are told by word and colour."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from strata.html_tables import STYLE, html_table, listed, page, paragraph, unfolding
from strata.seed_means import Table

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;"


class Read(HTMLParser):
    """The texts of a page by tag, and the tags and attributes that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.texts: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.texts.setdefault(self.tags[-1], []).append(data)


def test_hostile_texts_are_shown_and_never_run() -> None:
    """Wherever they stand."""
    table = Table([HOSTILE, "checks passed"], [[HOSTILE, HOSTILE]])
    parts = [html_table(table), paragraph(HOSTILE), listed([HOSTILE]), unfolding(HOSTILE, "")]
    read = Read(page(HOSTILE, parts))
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert not [name for name in read.attributes if name.startswith("on")]
    for tag in ("title", "h1", "th", "td", "p", "li", "summary"):
        assert HOSTILE in read.texts[tag], tag


def test_the_policy_allows_the_page_s_own_script_and_style_alone() -> None:
    text = page("t", [])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    for tag in ("script", "style"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert content
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text


@pytest.mark.parametrize(("verdict", "kind", "words"), [
    ("9 of 9", "passed", "✓ 9 of 9 passed"),
    ("9 of 11", "failed", "✗ 9 of 11 passed, 2 FAILED"),
    ("0 of 2", "failed", "✗ 0 of 2 passed, 2 FAILED"),
])  # fmt: skip
def test_a_verdict_is_told_by_word_and_colour(verdict: str, kind: str, words: str) -> None:
    text = html_table(Table(["run", "checks passed"], [["a", verdict]]))
    assert f'class="{kind}"' in text
    assert words in text
    assert f".{kind} {{" in STYLE


def test_a_verdict_beside_its_heading_is_told_too() -> None:
    text = html_table(Table(["", "a", "b"], [["checks passed", "1 of 1", "0 of 1"]]))
    assert text.count('class="passed"') == text.count('class="failed"') == 1


def test_what_is_no_verdict_has_no_colour() -> None:
    text = html_table(Table(["seeds", "checks passed"], [["2 of 3", ""]]))
    assert 'class="passed"' not in text
    assert 'class="failed"' not in text


@pytest.mark.parametrize(("cell", "key"), [
    ("1.632(20)", "1.632"), ("-7.5", "-7.5"), ("1e-05", "1e-05"), ("2.0(10) (n = 2)", "2.0"),
])  # fmt: skip
def test_numbers_sort_as_numbers(cell: str, key: str) -> None:
    read = Read(html_table(Table(["gap"], [[cell]])))
    assert read.attributes["data-sort"] == [key]


def test_the_same_table_is_the_same_page() -> None:
    parts = [html_table(Table(["a"], [["1"]]))]
    assert page("t", parts) == page("t", parts)


@pytest.mark.system
def test_a_click_on_a_heading_sorts_in_a_browser(tmp_path: Path) -> None:
    """By numbers up and down, empty cells last; no word of the console."""
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    table = Table(["run", "gap"], [["a", "10.0(3)"], ["b", ""], ["c", "9.5(2)"], ["d", "-1e-05"]])
    (tmp_path / "page.html").write_text(page("t", [html_table(table)]), encoding="utf-8")
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options) as browser:
        browser.get((tmp_path / "page.html").as_uri())

        def order() -> str:
            cells = browser.find_elements(By.CSS_SELECTOR, "tbody td:first-child")
            return "".join(cell.text for cell in cells)

        _, gap = browser.find_elements(By.CSS_SELECTOR, "th button")
        assert order() == "abcd"
        gap.click()
        assert order() == "dcab"
        gap.click()
        assert order() == "acdb"
        assert not browser.get_log("browser")
