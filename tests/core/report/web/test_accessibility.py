"""The dashboard and the report as axe-core sees them: nothing serious, dark and light, on a desk and on a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from served import QUOTAS, served

from autoresearch.core.judge.racing import Racing
from autoresearch.core.report.document.figures import draw_progress
from autoresearch.core.report.document.gather import gather
from autoresearch.core.report.document.page import html_page
from autoresearch.core.run.loop import Limits, Loop

VIEWS = {
    "first": "#space .row",
    "first/1": "#one .diff",
    "first/story": ".story li",
    "first/findings": "#findings table",
    "first/insight": ".lineage",
    "runs": "#sides table",
}
"""Addresses, and what is there when they are shown."""
SERIOUS = ("serious", "critical")
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


CLIPPED = """() => [...document.querySelectorAll("main dt, main dd, main th, main td")]
  .filter((node) => node.clientWidth && getComputedStyle(node.closest("thead") ?? node).position !== "absolute")
  .filter((node) => node.scrollWidth > node.clientWidth + 1 || node.getBoundingClientRect().right > innerWidth + 1)
  .map((node) => node.textContent)"""
"""Cells and figures of which a part cannot be seen. Headings are out of the way where each cell has its own."""


def findings(page):
    """What is serious, and where."""
    found = Axe().run(page, options=AXE).response["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found if one["impact"] in SERIOUS]


def look(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})


@pytest.fixture
def workspace(tmp_path):
    """A run with a keep that was raced, a discard, a crash, a curve and a log."""
    folder = make_workspace(tmp_path / "w")

    def during(request):
        events = "".join(f'{{"event": "log", "t": {k}, "progress": {k / 3}, "loss": {5 - k}}}\n' for k in range(3))
        (request.folder / "events.jsonl").write_text(events)
        (request.folder / "run.log").write_text("a line\n")

    with open_run(folder, "first") as run:
        Loop(run, Widths(5, 12, 3), Racing(), Scripted({3: "crash"}, during), limits=Limits(3)).go()
    return folder


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("light", 768), ("dark", 360)])
def test_the_dashboard_has_no_serious_finding(page, workspace, scheme, width):
    look(page, scheme, width)
    with served(workspace, quotas=lambda decided: QUOTAS, actions="secret") as port:
        page.goto(f"http://127.0.0.1:{port}/?token=secret#/first")
        for view, ready in VIEWS.items():
            page.evaluate(f"location.hash = '#/{view}'")
            page.locator(ready).first.wait_for()
            assert findings(page) == [], view
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CLIPPED) == [], view
        page.goto("about:blank")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_the_report_has_no_serious_finding(page, workspace, tmp_path, scheme, width):
    with open_run(workspace, "first") as run:
        report = gather(run.ledger)
    draw_progress(report.decided, report.means, tmp_path / "progress.png")
    (tmp_path / "report.html").write_text(html_page(report, (tmp_path / "progress.png").read_bytes()))
    look(page, scheme, width)
    page.goto((tmp_path / "report.html").as_uri())
    assert findings(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_finds_what_is_wrong(page):
    page.set_content(
        "<html lang='en'><title>x</title><main><h1>x</h1><img src='data:,'><p style='color:#ccc'>faint</p>"
    )
    assert [name for name, _ in findings(page)] == ["color-contrast", "image-alt"]
