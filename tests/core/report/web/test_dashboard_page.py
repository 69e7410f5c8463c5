"""The dashboard in a real browser, on a run that is being written."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from served import QUOTAS, served

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.wishes import WishFile

VIEWS = {
    "first": "#space .row",
    "first/story": ".story li",
    "first/findings": "#findings table",
    "first/insight": ".lineage",
    "runs": "#sides table",
    "first/1": "#one .diff",
}
"""Addresses, and what is there when they are shown."""
SCRIPT = "window.owned=1"
HOSTILE = (
    f"</script><script>{SCRIPT}</script><img src=x onerror='{SCRIPT}'><svg onload='{SCRIPT}'>"
    f'" onmouseover="{SCRIPT}" x="<a href="javascript:{SCRIPT}">click</a> \x1b[31mred\x1b[2J\u202eesrever\u2066\u200b '
    + "long"
    * 500
)


class Hostile(Widths):
    def propose(self, history):
        fair = super().propose(history)
        source = fair.source + f"\n# {HOSTILE}\nX = {HOSTILE[:60]!r}\n"
        return Proposal(source, HOSTILE, HOSTILE, -0.01, fair.cost, HOSTILE, {HOSTILE: HOSTILE})


def go(workspace, researcher, count, tag="first", during=None):
    with open_run(workspace, tag) as run:
        Loop(run, researcher, Greedy(), Scripted({3: "crash"}, during), limits=Limits(count)).go()


@contextmanager
def opened(page, workspace, path="#/first", quotas=lambda decided: None):
    with served(workspace, quotas=quotas) as port:
        page.goto(f"http://127.0.0.1:{port}/{path}")
        yield page
        page.goto("about:blank")


def rows(page):
    return page.locator("#space .row")


def write_log(folder, text, *events):
    (folder / "run.log").write_text(text)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_the_page_follows_the_run_filters_sorts_and_shows_one_experiment(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with opened(page, workspace):
        rows(page).nth(1).wait_for()
        page.evaluate("window.before = true")
        go(workspace, Widths(9, 12, 3, 8), 4)
        rows(page).nth(4).wait_for()
        assert page.evaluate("window.before")  # without a reload
        page.get_by_text("0.8000 bpb").wait_for()
        assert page.locator("#chart .step").count() == 1
        assert page.locator("#chart .kept").count() == 1

        page.get_by_label("Status").select_option("keep")
        assert page.locator("#count").inner_text() == "3 of 5"
        page.get_by_label("Filter").fill("12")
        assert page.locator("#count").inner_text() == "0 of 5"
        page.get_by_label("Filter").fill("")
        page.get_by_label("Status").select_option("")
        page.get_by_role("button", name="bpb").click()
        assert rows(page).first.inner_text().split()[0] == "4"
        assert page.get_by_role("columnheader", name="bpb").get_attribute("aria-sort") == "ascending"

        page.get_by_role("link", name="experiment 2", exact=True).click()
        page.get_by_role("heading", name="Experiment 2: discard").wait_for()
        assert "WIDTH = 12  # channels" in page.locator("#one .diff .add").inner_text()
        assert page.locator("#one .diff .add .t-number").inner_text() == "12"
        assert "−0.0100" in page.locator("#one").inner_text()


def test_what_the_greedy_judge_measured_is_not_called_a_cautious_estimate(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with opened(page, workspace, "#/first/1"):
        page.locator("#one .diff").wait_for()
        shown = page.locator("#one").inner_text()
    assert "measured" in shown and "−0.1000" in shown
    assert "cautious" not in shown


def test_an_open_experiment_is_shown_anew_when_its_verdict_falls(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")

    def during(request):
        if request.folder.name == "1-1":
            page.goto(f"http://127.0.0.1:{port}/#/first/1")
            page.get_by_role("heading", name="Experiment 1: running").wait_for()

    with served(workspace) as port:
        go(workspace, Widths(9, 12), 2, during=during)
        page.get_by_role("heading", name="Experiment 1: keep").wait_for()
        page.goto("about:blank")
        page.goto(f"http://127.0.0.1:{port}/#/first/1")
        page.get_by_role("link", name="2 ›").wait_for()
        page.goto("about:blank")


def test_labels_of_charts_are_not_cut_off(page, tmp_path):
    workspace, name = make_workspace(tmp_path / "w"), "a-run-with-a-name-that-is-long-enough-to-run-over-the-axis"
    go(workspace, Widths(9), 1, tag=name)
    go(workspace, Widths(9, 12, 8), 3, tag="longer")
    page.set_viewport_size({"width": 700, "height": 900})
    with opened(page, workspace, "#/runs"):
        page.locator("#side-chart text.on").first.wait_for()
        lefts = page.evaluate("""async () => {
          const svg = document.getElementById("side-chart"), { axes } = await import("/assets/plot.js");
          const left = (one) => one.getBoundingClientRect().left - svg.getBoundingClientRect().left;
          svg.redraw();
          const name = left(svg.querySelector("text.on"));
          svg.replaceChildren();
          axes(svg, { x: [0, 1], y: [0.9, 0.9 + 1e-9], labelX: "", labelY: "" });
          return [name, Math.min(...[...svg.querySelectorAll("text[text-anchor=end]")].map(left))];
        }""")
    assert lefts[0] > 58, "the name covers the labels of the axis"
    assert lefts[1] >= 0, "a label of the axis begins outside the picture"


def test_every_trial_in_flight_is_shown(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")

    def during(request):
        if request.folder.name == "2-1":
            first = {"t": 0.5, "event": "first_batch"}, {"t": 0.6, "event": "log", "loss": float("nan")}
            write_log(request.folder, "", *first, *({"t": 1, "event": "log", "loss": 5 - k} for k in range(3)))
            with served(workspace) as port:
                beside(workspace)
                page.goto(f"http://127.0.0.1:{port}/#/first")
                page.locator("#now .now").nth(1).wait_for()
                seen.append(page.locator("#now").inner_text())
                assert page.locator("#now svg .loss").count() == 1
                page.goto("about:blank")

    seen = []
    go(workspace, Widths(9, 12), 2, during=during)
    assert "experiment 2: training" in seen[0]
    assert "experiment 3: waiting" in seen[0]


def beside(workspace):
    """A third experiment, proposed while the second is tried."""
    import sqlite3

    with sqlite3.connect(workspace / "runs/first/ledger.sqlite") as ledger:
        names = [
            row[1] for row in ledger.execute("PRAGMA table_info(experiments)") if row[1] not in ("number", "state")
        ]
        columns = ", ".join(names)
        ledger.execute(
            f"INSERT INTO experiments (number, state, {columns}) SELECT 3, 'proposed', {columns} FROM experiments "
            "WHERE number = 2"
        )


def test_the_page_fits_a_phone_and_has_a_dark_side(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Hostile(9, 12), 2)
    page.set_viewport_size({"width": 360, "height": 740})
    with opened(page, workspace):
        for view, ready in VIEWS.items():
            page.evaluate(f"location.hash = '#/{view}'")
            page.locator(ready).first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
        backs = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert backs == {"rgb(255, 255, 255)", "rgb(21, 24, 28)"}


def test_what_a_model_or_a_log_says_stays_text(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    values = 5.0, 1e999, 10**400, 4.0
    losses = [{"t": 1, "event": "log", "progress": k / 4, "loss": value} for k, value in enumerate(values)]
    go(workspace, Hostile(9), 1, during=lambda request: write_log(request.folder, HOSTILE, *losses))
    with opened(page, workspace):
        for view, ready in VIEWS.items():
            page.evaluate(f"location.hash = '#/{view}'")
            page.locator(ready).first.wait_for()
            page.wait_for_timeout(50)
            assert page.locator("img, iframe, object, body script, [onerror], [onload]").count() == 0
            links = page.evaluate("[...document.links].map((one) => one.protocol)")
            assert set(links) == {"http:"}
        page.locator("summary").click()
        text = page.locator("#one").inner_text()
        assert text.count(f"<script>{SCRIPT}") >= 5  # hypothesis, category, researcher, edit, log
        assert not set("\x1b\u202e\u2066\u200b") & set(page.content())
        assert "⟨U+202E⟩" in page.locator("#one .diff").inner_text()
        assert "␛[2J" in page.locator("details pre").inner_text()
        assert page.evaluate("window.owned === undefined")


def test_ten_thousand_experiments_are_shown_a_screen_at_a_time(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9, 12), 2)
    with open_run(workspace, "first") as run, run.ledger._transaction() as write:
        names = [row["name"] for row in run.ledger._rows("PRAGMA table_info(experiments)") if row["name"] != "number"]
        columns = ", ".join(names)
        write(
            "WITH RECURSIVE more(n) AS (SELECT 3 UNION ALL SELECT n + 1 FROM more WHERE n < 10000) INSERT INTO "
            f"experiments (number, {columns}) SELECT n, {columns} FROM more, experiments WHERE number = 2"
        )
    with opened(page, workspace):
        page.get_by_text("10001 of 10001").wait_for()
        assert page.evaluate("document.getElementsByTagName('*').length") < 1000
        page.evaluate("document.getElementById('scroll').scrollTop = 160000")
        page.get_by_role("link", name="experiment 5000", exact=True).wait_for()
        assert rows(page).count() < 100


def test_everything_is_reached_by_keyboard(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9, 12, 8), 3)
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
    with opened(page, workspace):
        rows(page).nth(3).wait_for()
        seen = []
        for _ in range(20):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focused))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            if seen[-1] == "experiment 3":
                break
        wanted = [
            "Skip to the content",
            "Run",
            "Insight",
            "All runs",
            "Experiments in the progress chart",
            "n ↓",
            "status",
        ]
        assert [name for name in seen if name in wanted] == wanted

        page.keyboard.press("ArrowDown")
        assert page.evaluate(focused) == "experiment 2"
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Experiment 2: discard").wait_for()
        page.keyboard.press("Escape")
        rows(page).first.wait_for()
        page.wait_for_function(f"() => ({focused}) === 'experiment 2'")

        page.locator("#chart-box").focus()
        page.keyboard.press("End")
        assert "experiment 3: keep" in page.locator("#point").inner_text()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Experiment 2: discard").wait_for()


def test_runs_of_several_backends_lie_side_by_side(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    go(workspace, Widths(8, 12), 2, "second")
    with opened(page, workspace, "#/runs"):
        page.get_by_role("link", name="second").wait_for()
        assert page.locator("#side-chart .series").count() == 2
        assert "−0.2000 (−20.0 %)" in page.locator("#sides").inner_text()
        page.get_by_label("show first").uncheck()
        assert page.locator("#side-chart .series").count() == 1
        page.get_by_label("Vertical axis").select_option("percent")
        page.get_by_label("Horizontal axis").select_option("hours")
        page.get_by_role("link", name="second").click()
        page.get_by_role("heading", name="second").wait_for()


def test_what_the_quotas_ask_for_is_shown(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with opened(page, workspace, "#/first/insight", lambda decided: QUOTAS):
        text = page.get_by_role("heading", name="Quotas").locator("..")
        assert "bold" in text.inner_text()
        assert "init" in text.inner_text()


def test_a_run_that_is_not_there_takes_the_heading_of_the_one_before_away(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with opened(page, workspace):
        rows(page).nth(1).wait_for()
        page.evaluate("location.hash = '#/none'")
        page.get_by_role("heading", name="No such run").wait_for()
        assert "first" not in page.locator("body").inner_text()
        page.get_by_role("link", name="All runs").click()
        page.get_by_role("link", name="first").click()
        rows(page).nth(1).wait_for()


def test_what_is_empty_says_what_it_waits_for(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    with open_run(workspace, "first") as run:
        run.ledger.set_state("running")
        with opened(page, workspace):
            page.get_by_text("Waits for the baseline").wait_for()
            for view in ("story", "findings", "insight"):
                page.evaluate(f"location.hash = '#/first/{view}'")
                page.wait_for_function(
                    f"() => /baseline|Nothing was kept/.test(document.getElementById('{view}').innerText)"
                )
            page.evaluate("location.hash = '#/runs'")
            page.get_by_text("Waits for the first run").wait_for()


def test_the_first_run_shown_is_the_one_that_was_asked_for(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    go(workspace, Widths(8), 1, "second")
    with served(workspace, tag="first") as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("heading", name="first").wait_for()
        page.goto("about:blank")


def test_a_person_notes_pins_pauses_and_stops_on_the_page(page, tmp_path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with open_run(workspace, "first") as run, served(workspace, actions="secret") as port:
        run.ledger.set_state("running")
        page.goto(f"http://127.0.0.1:{port}/?token=secret#/first/1")
        page.get_by_label("Note for researchers").fill("try <b>it</b> wider")
        page.get_by_role("button", name="Add the note").click()
        page.get_by_text("Note: try <b>it</b> wider").wait_for()
        page.get_by_role("button", name="Pin", exact=True).click()
        page.get_by_role("button", name="Take the pin off").wait_for()
        page.evaluate("location.hash = '#/first'")
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").wait_for()
        assert WishFile(run.folder).read() == "pause"
        page.get_by_role("button", name="Resume").click()
        page.get_by_role("button", name="Pause").wait_for()
        page.get_by_role("button", name="Stop after this trial").click()
        page.wait_for_function("() => !document.querySelector('#wishes button:disabled')")
        assert WishFile(run.folder).read() == "stop"
        page.goto("about:blank")


@pytest.mark.parametrize("path", ["#/first/99", "#/none", "#/%E0%A4%A"])
def test_an_address_of_nothing_says_so(page, tmp_path, path):
    workspace = make_workspace(tmp_path / "w")
    go(workspace, Widths(9), 1)
    with opened(page, workspace, path):
        page.wait_for_function("() => /no experiment|no run|no such|first/.test(document.body.innerText)")
