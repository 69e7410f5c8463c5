"""A report as one offline HTML file, or as Markdown for a pull request."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoresearch.core.report.document.gather import ReportData
from autoresearch.core.report.wording import compact, dollars, duration, file_name, one_line, visible

TEMPLATES = Path(__file__).with_name("templates")
MAX_STORY = 300
"""Most experiments of which the report tells hypothesis, prediction and outcome, the latest ones."""
MAX_FAILURES = 50
"""Most failures, and most offered changes, listed one by one; the others are only counted."""
VERDICTS = {
    "idle": "no worse: not needed",
    "earns": "worse: still needed",
    "undecided": "not certain: it stays",
    "conflict": "not possible: later changes were built on it",
    "gone": "the same file: later changes replaced it",
}
"""Verdicts of `ar ablate` on the best file without a change, as text."""
TRANSFERRED = {"keep": "held", "discard": "did not hold", "untried": "not tried"}
"""Outcomes of a change offered by another device's run, as text."""


def html_page(
    report: ReportData,
    picture: bytes | None,
    transfer_picture: bytes | None = None,
    scale_picture: bytes | None = None,
    narrow_picture: bytes | None = None,
) -> str:
    """Write the report as one HTML file that loads nothing.

    The pictures are PNG: the run, the transferred changes, the improvement at other budgets and widths, and the run
    again for a phone. Text from a proposal or a log is escaped, and the page allows no script.
    """
    return _render(
        "report.html",
        report,
        picture=_embedded(picture),
        narrow_picture=_embedded(narrow_picture),
        transfer_picture=_embedded(transfer_picture),
        scale_picture=_embedded(scale_picture),
    )


def _embedded(picture: bytes | None) -> str | None:
    return None if picture is None else f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def markdown(report: ReportData) -> str:
    """Write the report in GitHub's Markdown. Text from a proposal stands in code spans: no link, mention or HTML."""
    return re.sub(r"\n{3,}", "\n\n", _render("report.md", report))


def code_span(text: str) -> str:
    """Write a text on one line as Markdown code, whatever backticks are in it."""
    words = one_line(text) or "-"
    longest = max((len(run) for run in re.findall("`+", words)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if "`" in words else ""
    return f"{fence}{pad}{words}{pad}{fence}"


def condition_text(row: Mapping[str, Any]) -> str:
    """Name a condition of `ar scale`: "60 s (0.5 times)", or "DIM 128 (2 times)"."""
    what = f"{row['train_seconds']:g} s"
    if row["axis"] == "width":
        what = f"{row['constant']} {', '.join(str(value) for value in dict.fromkeys(row['values']))}"
    return one_line(what, 80) + (", the run's own" if row["factor"] == 1.0 else f" ({row['factor']:g} times)")


def _render(name: str, report: ReportData, **more: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "bpb": lambda value: "–" if value is None else f"{value:.4f}",
        "delta": lambda value: "–" if value is None else f"{value:+.4f}".replace("-", "−"),
        "percent": lambda value: "–" if value is None else f"{100 * value:.1f}\u00a0%".replace("-", "−"),
        "half": lambda value: "" if value is None else f" ± {value:.4f}",
        "span": lambda value: "not known" if value is None else duration(value),
        "compact": lambda value: "not known" if value is None else compact(value),
        "dollars": dollars,
        "line": one_line,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "visible": visible,
        "file_name": file_name,
        "code": code_span,
        "condition": condition_text,
        "verdict": lambda value: VERDICTS.get(value, one_line(str(value), 60)),
        "transferred": lambda value: TRANSFERRED.get(value, value),
        "day": lambda value: time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value)),
    }
    return environment.get_template(name).render(report=report, max_failures=MAX_FAILURES, max_story=MAX_STORY, **more)
