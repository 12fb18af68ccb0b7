"""Tables on a web page of its own: no network, readable without JavaScript, sortable with it.

Conventions: every text is escaped. A policy in the page's head allows its own style and script by
their hashes and nothing else, so that no text of a result can run. Imports no torch.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape

from strata.seed_means import Table

VERDICT = re.compile(r"(\d+) of (\d+)")
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
CHECKS = "checks passed"

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
summary { cursor: pointer; font-weight: 600; margin-top: 1.4rem; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
td { white-space: nowrap; }
th { vertical-align: bottom; background: #f3f3f3; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th:first-child { background: #f3f3f3; }
th button { font: inherit; background: none; border: 0; padding: 0; cursor: pointer; color: inherit;
  text-align: inherit; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.passed { background: #cfe3f3 !important; }
.failed { background: #fbdfb0 !important; }
.note { color: #555; max-width: 50rem; }
img { max-width: 100%; }
"""
# Rows sort by the numbers that cells begin with, texts after them; empty cells come last.
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyOf = row => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const rows = [...body.rows].sort((first, second) => {
        const [a, b] = [keyOf(first), keyOf(second)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const [x, y] = [Number(a), Number(b)];
        const texts = Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b);
        return (up ? 1 : -1) * (Number.isNaN(x) || Number.isNaN(y) ? texts : x - y);
      });
      body.append(...rows);
    });
  });
}
"""


def html_table(table: Table) -> str:
    """Return a table as HTML; cells below or beside `checks passed` have a word and a colour."""
    headings = "".join(f'<th scope="col">{_breakable(cell)}</th>' for cell in table.header)
    rows = [
        "<tr>"
        + "".join(
            _cell(text, is_verdict=CHECKS in (head, row[0]))
            for text, head in zip(row, table.header, strict=True)
        )
        + "</tr>"
        for row in table.rows
    ]
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{headings}</tr></thead>\n<tbody>\n{body}\n'
        "</tbody></table></div>"
    )


def _breakable(text: str) -> str:
    """Return a heading that may be broken after underscores."""
    return escape(text).replace("_", "_<wbr>")


def _cell(text: str, *, is_verdict: bool) -> str:
    number = NUMBER.match(text)
    sort = f' data-sort="{number[0]}"' if number else ""
    verdict = VERDICT.fullmatch(text) if is_verdict else None
    if verdict is None:
        return f"<td{sort}>{escape(text)}</td>"
    n_passed, n_checks = int(verdict[1]), int(verdict[2])
    if n_passed == n_checks:
        kind, text = "passed", f"✓ {text} passed"
    else:
        kind, text = "failed", f"✗ {text} passed, {n_checks - n_passed} FAILED"
    share = n_passed / max(1, n_checks)
    return f'<td class="{kind}" data-sort="{share:.6f}">{escape(text)}</td>'


def unfolding(title: str, content: str) -> str:
    """Return a part of a page that opens at a click."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{content}\n</details>"


def paragraph(text: str) -> str:
    """Return a remark."""
    return f'<p class="note">{escape(text)}</p>'


def listed(texts: Iterable[str]) -> str:
    """Return a list of texts."""
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole page: its title, then parts that are HTML already."""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}"
    )
    content = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{content}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
