"""The dashboard in a real browser, on a run that is being written."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.loop import Limits, Loop
from autoresearch.core.proposal import Proposal
from autoresearch.core.report.serve import Dashboard

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from chromium import Page, find_chromium
from loop_fixtures import Scripted, Widths, make_workspace, open_run

pytestmark = pytest.mark.skipif(
    find_chromium() is None and not os.environ.get("CI"), reason="there is no chromium on this machine"
)
HOSTILE = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>"


class Hostile(Widths):
    def propose(self, history):
        fair = super().propose(history)
        return Proposal(fair.source + f"\n# {HOSTILE}\n", HOSTILE, HOSTILE, -0.01, fair.cost, HOSTILE)


def go(workspace, researcher, count):
    with open_run(workspace, "first") as run:
        Loop(run, researcher, Greedy(), Scripted({3: "crash"}), limits=Limits(count)).go()


@contextmanager
def served(workspace):
    server = Dashboard(("127.0.0.1", 0), workspace / "runs/first", {"gzip": 0.95}, None)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(workspace, profile):
    with served(workspace) as address, Page(profile) as page:
        page.call("Page.navigate", url=address)
        page.wait("document.querySelectorAll('#space .row').length > 0")
        yield page


def test_the_page_follows_the_run_filters_and_shows_one_experiment(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with opened(workspace, tmp_path / "profile") as page:
        page.run("window.before = true")
        go(workspace, Widths(9, 12, 3, 8), 4)
        page.wait("document.querySelectorAll('#space .row').length === 5")
        assert page.run("window.before")  # without a reload
        page.wait("document.getElementById('best').textContent.includes('experiment 4')")
        assert page.run("document.querySelectorAll('#chart .step').length") == 1

        page.run("(($) => {$.value = 'keep'; $.dispatchEvent(new Event('change'))})(document.getElementById('status'))")
        assert page.run("document.getElementById('count').textContent") == "3 of 5"
        page.run("(($) => {$.value = '12'; $.dispatchEvent(new Event('input'))})(document.getElementById('filter'))")
        assert page.run("document.getElementById('count').textContent") == "0 of 5"

        page.run("location.hash = '#2'")
        page.wait("!document.getElementById('one').hidden")
        text = page.text()
        assert "Experiment 2: discard" in text
        assert "+WIDTH = 12" in text
        assert page.run("document.activeElement.textContent") == "← all experiments"
        page.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
        page.wait("document.getElementById('one').hidden")


def test_the_page_fits_a_phone_and_has_a_dark_side(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9, 12), 2)
    with opened(workspace, tmp_path / "profile") as page:
        page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
        assert page.run("document.documentElement.scrollWidth") <= 360
        backs = set()
        for scheme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            backs.add(page.run("getComputedStyle(document.body).backgroundColor"))
        assert backs == {"rgb(255, 255, 255)", "rgb(21, 24, 28)"}
        urls = page.run("performance.getEntriesByType('resource').map((one) => new URL(one.name).origin)")
        assert set(urls) == {page.run("location.origin")}


def test_a_hostile_proposal_stays_text(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Hostile(9), 1)
    with opened(workspace, tmp_path / "profile") as page:
        page.wait("document.querySelectorAll('#space .row').length === 2")
        assert "<script>window.owned" in page.text()
        page.run("location.hash = '#1'")
        page.wait("!document.getElementById('one').hidden")
        assert page.text().count("<script>window.owned") >= 3
        assert page.run("document.querySelectorAll('img').length + document.querySelectorAll('script').length") == 1
        assert page.run("window.owned === undefined")


def test_ten_thousand_experiments_are_shown_a_screen_at_a_time(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9, 12), 2)
    with open_run(workspace, "first") as run, run.ledger._transaction() as write:
        names = [row["name"] for row in run.ledger._rows("PRAGMA table_info(experiments)") if row["name"] != "number"]
        columns = ", ".join(names)
        write(
            "WITH RECURSIVE more(n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM more WHERE n < 10000) INSERT INTO "
            f"experiments (number, {columns}) SELECT n, {columns} FROM more, experiments WHERE number = 2"
        )
    with opened(workspace, tmp_path / "profile") as page:
        page.wait("document.getElementById('count').textContent === '10001 of 10001'")
        painted = page.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert painted < (5000 if os.environ.get("CI") else 2000)  # a second on a quiet machine
        assert page.run("document.getElementsByTagName('*').length") < 1000
        page.run("document.getElementById('scroll').scrollTop = 150000")
        page.wait("[...document.querySelectorAll('#space a')].some((one) => one.textContent === '5000')")
        assert page.run("document.querySelectorAll('#space .row').length") < 100
