"""The report of runs made with scripted trials, and of hostile words."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from loop_fixtures import CONFIG, Scripted, Widths, git, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.decision import Demotion
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.judge.racing import Racing
from autoresearch.core.proposal import Origin, Proposal
from autoresearch.core.report.document import gather as document_gather
from autoresearch.core.report.document.figures import draw_progress, quadrants
from autoresearch.core.report.document.gather import gather
from autoresearch.core.report.document.page import code_span, html_page, markdown
from autoresearch.core.report.wording import dollars, duration
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.headline import headline_of
from autoresearch.core.store.reader import LedgerReader

HOSTILE = "<script>alert(1)</script> ![x](http://evil.example/p.png) `code` @someone <img src=x onerror=alert(2)>"


class Hostile(Widths):
    def propose(self, history):
        fair = super().propose(history)
        return Proposal(fair.source, HOSTILE, "<b>shape</b>", -0.01, fair.cost, "<i>me</i>", fair.parameters)


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def reported(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Widths(9, 12, 3, 8), Greedy(), Scripted({3: "crash"}), limits=Limits(4)).go()
        return gather(run.ledger)


@pytest.fixture
def hostile(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Hostile(9, 3), Greedy(), Scripted({3: "crash"}), limits=Limits(2)).go()
        return gather(run.ledger)


def test_a_report_counts_what_was_done_and_what_it_cost(reported):
    assert [row.number for row in reported.keeps] == [1, 4]
    head = reported.headline
    assert (head.baseline.value, head.best.value, head.gain) == pytest.approx((1.0, 0.8, -0.2))
    assert reported.totals.usd == 2.0
    assert (reported.spent.trials, reported.spent.tokens, reported.spent.wall_seconds) == (5, 4000, 12.0)
    assert reported.spent.train_seconds is None
    (shape,) = reported.categories
    assert (shape.tried, shape.kept, shape.discarded, shape.failed) == (4, 2, 1, 1)
    assert shape.best_delta == pytest.approx(-0.1)


def test_a_report_is_of_one_moment_while_a_loop_writes(tmp_path, monkeypatch):
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()

    def headline_after_a_keep(reader):
        with open_run(folder, "first") as run:
            Loop(run, Widths(9, 8), Greedy(), Scripted(), limits=Limits(2)).go()
        return headline_of(reader)

    monkeypatch.setattr(document_gather, "headline_of", headline_after_a_keep)
    with LedgerReader(folder / "runs/first") as reader:
        found = gather(reader)
    assert found.best.number == found.headline.experiment == 1
    with LedgerReader(folder / "runs/first") as reader:
        assert reader.run().incumbent == 2


def test_the_page_says_what_was_kept_what_failed_and_how_to_do_it_again(reported):
    page = html_page(reported, b"picture")
    for words in ("−0.2000", "2 of 4", "$2.00", "scripted crash", "autoresearch/first", reported.best.commit):
        assert words in page
    assert "ar --backend null --preset demo train --corpus stdlib --budget 2 --seed 7" in page


@pytest.mark.parametrize("judge", ["greedy", "racing"])
def test_the_command_that_repeats_a_run_is_one_that_ar_takes(tmp_path, monkeypatch, capsys, judge):
    folder = make_workspace(tmp_path / "w")
    train = folder / "backends/null/train.py"
    train.write_text(train.read_text().replace('PRESET = "none"', 'PRESET = "demo"'))  # so that it stays as it is
    git(folder, "commit", "-q", "-a", "-m", "the preset's")
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    with open_run(folder, "first", replace(CONFIG, judge=judge, vocabularies=(256, 512))) as run:
        command = shlex.split(gather(run.ledger).reproduction.run_command)
    assert command[command.index("--vocab") + 1] == "256,512"
    assert ar([*command[1:], "--workspace", str(folder), "--tag", "again", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train_seconds"] == 2.0


def test_the_page_asks_nobody_for_anything(reported):
    for tag, attributes in Elements(html_page(reported, b"picture")).found:
        assert tag not in ("script", "link", "iframe", "object", "base", "form")
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes


def test_a_hostile_proposal_stays_text_on_the_page(hostile):
    page = html_page(hostile, None)
    tags = [tag for tag, _ in Elements(page).found]
    assert not {"script", "img", "i"} & set(tags)
    assert all(not name.startswith("on") for _, attributes in Elements(page).found for name in attributes)
    assert page.count("&lt;script&gt;alert(1)") == 4  # what was kept, what failed, and the story
    assert "default-src 'none'" in page


def test_a_hostile_proposal_stays_code_in_markdown(hostile):
    text = markdown(hostile)
    outside = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)
    assert "evil.example" in text
    for words in ("evil.example", "<script", "@someone", "<b>"):
        assert words not in outside


@pytest.fixture
def raced(tmp_path):
    """Racing keeps, an ablation, a look at the test text, and a keep that was given up."""
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Widths(7, 12, 5), Racing(), Scripted(), limits=Limits(3)).go()
        changes = [
            {"experiment": 1, "description": HOSTILE, "verdict": "idle", "delta": -0.001, "probability": 0.8},
            {"experiment": 3, "description": "y", "verdict": "conflict", "delta": None, "probability": None},
        ]
        run.ledger.note("ablated", 3, {"final_val_bpb": [0.5, 0.5], "sigma": 0.1, "changes": changes, "removed": [1]})
        look = {"experiment": 3, "seeds": 3, "delta": -0.3, "low": -0.4, "high": -0.2, "look": 1, "verdict": "better"}
        run.ledger.note("verified", 3, look)
        run.demote(Demotion(3, "demoted: measured again it stands at 1.0"))
        return gather(run.ledger)


def test_the_page_of_a_greedy_run_calls_no_single_trial_a_cautious_estimate(reported):
    page = html_page(reported, None)
    assert (
        '<td class="n good" data-label="measured">−0.1000</td><td class="n good" data-label="cautious">–</td>' in page
    )
    assert "allows for the fact" not in page
    assert "compares one trial with one trial" in page


def test_the_page_says_how_sure_each_keep_is_and_which_still_count(raced):
    page, text = html_page(raced, None), markdown(raced)
    assert [row.number for row in raced.keeps] == [1]
    sure = raced.certainty[1]
    assert sure.raw.low < sure.raw.value < sure.shrunken.value < 0
    for words in (
        f"{sure.raw.low:.4f}",
        f"{sure.shrunken.high:.4f}",
        "no worse: not needed",
        "later changes were built on it",
    ):
        assert words.replace("-", "−") in page
    assert "The file without 1 is as good, and is proposed." in page
    assert "Experiment 3 was kept and later given up: demoted: measured again" in page
    assert "−0.3000 (95 % −0.4000 to −0.2000)" in page
    assert f"95 % {sure.shrunken.low:.4f}".replace("-", "−") in text
    assert "| 1 | no worse: not needed | −0.0010 |" in text
    assert "<script" not in page.replace("&lt;script", "")


def test_the_page_scores_the_predictions(reported):
    (one,) = reported.predictions
    assert (one.researcher, one.count, one.right_sign) == ("widths", 3, pytest.approx(2 / 3))
    page = re.sub(r' data-label="[^"]*"', "", html_page(reported, None))
    assert 'widths</td><td class="n">3</td><td class="n">66.7\u00a0%' in page
    assert "`widths`: 3 predictions, 66.7\u00a0% of the right sign" in markdown(reported)


def test_a_browser_opens_the_report_without_asking_anybody(page, hostile, tmp_path):
    draw_progress(hostile.decided, hostile.means, tmp_path / "progress.png")
    (tmp_path / "report.html").write_text(html_page(hostile, (tmp_path / "progress.png").read_bytes()), "utf-8")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("document.images[0].naturalWidth") == 1600
    assert "<script>alert(1)" in page.inner_text("body")
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}


def test_a_run_without_a_keep_or_a_baseline_has_a_report_too(tmp_path):
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        assert "no baseline yet" in html_page(gather(run.ledger), None)
        Loop(run, Widths(12), Greedy(), Scripted(), limits=Limits(1)).go()
        report = gather(run.ledger)
    assert "No change was kept" in html_page(report, None)
    assert "No change was kept" in markdown(report)


@pytest.mark.parametrize("text", ["plain", "a `b` c", "``", "`start", "two\nlines", ""])
def test_a_code_span_holds_any_text(text):
    fence = re.match("`+", code_span(text)).group()
    inside = code_span(text)[len(fence) : -len(fence)]
    assert code_span(text).endswith(fence)
    assert fence not in re.findall("`+", inside)


def test_durations_and_dollars_read_well():
    assert [duration(value) for value in (0.5, 42, 150, 7260)] == ["0.5 s", "42 s", "2 min 30 s", "2 h 1 min"]
    assert [dollars(value) for value in (None, 0.0, 0.0012, 3.456)] == ["not known", "$0", "$0.0012", "$3.46"]


@pytest.fixture
def transferred(tmp_path):
    """Findings of a hostile run and of an honest one: held, not held, crashed, not tried, and given up."""
    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        origins = [Origin("mac|\n`x`", n, "mlx", HOSTILE if n == 4 else "Apple M4", -0.01 * n) for n in range(1, 6)]
        for origin in origins:
            run.ledger.note("finding", None, {**asdict(origin), "hypothesis": HOSTILE, "category": "shape"})
        run.ledger.note("finding gone", None, asdict(origins[4]))

        class Given(Widths):
            def propose(self, history):
                return replace(super().propose(history), origin=origins[len(history.attempts) - 1])

        Loop(run, Given(9, 12, 3), Greedy(), Scripted({3: "crash"}), limits=Limits(3)).go()
        return gather(run.ledger)


def test_the_page_says_what_transferred_from_other_devices(transferred):
    page, text = html_page(transferred, None, b"picture"), markdown(transferred)
    told = [(one.origin.experiment, one.outcome, one.experiment, one.gone) for one in transferred.transfers]
    apple, hostile = [one for one in told if one[0] != 4], [one for one in told if one[0] == 4]
    assert apple == [
        *((3, "crash", 3, False), (2, "discard", 2, False), (1, "keep", 1, False)),
        (5, "untried", None, True),
    ]
    assert hostile == [(4, "untried", None, False)]
    assert "1 of 4 findings of mac| `x` (mlx on Apple M4) held here, 1 not tried" in page
    for words in (">held<", ">did not hold<", ">crash<", ">not tried<", "given up there since", "−0.0200", "+0.3000"):
        assert words in page
    assert page.count("here: width 9 then") == 1, "what was tried, in the words of this run"
    assert "held | −0.1000 | 1 |" in text and "did not hold | +0.3000 | 2 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "#" in line]
    assert len(rows) == 5 and {line.count("|") for line in rows} == {7}, "a cell for each heading"
    assert "<script" not in page and page.count("<img") == 1
    outside = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text)
    assert not [words for words in ("evil.example", "<script", "@someone") if words in outside]


def test_a_run_without_findings_says_nothing_of_them(reported):
    assert "other devices" not in html_page(reported, None) + markdown(reported)


def test_gains_there_and_here_become_a_picture_when_there_are_enough(transferred):
    assert quadrants(transferred.transfers, "NVIDIA H100") is None, "two have both figures"
    more = [*transferred.transfers, *(replace(one, delta=0.0) for one in transferred.transfers)]
    assert quadrants(more, "$x_{").startswith(b"\x89PNG")
