"""Samples that the dashboard's page asks for."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from served import served

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.report.web.drawing import Asked, SampleDrawer
from autoresearch.core.run.loop import Limits, Loop

SAMPLES = "/api/runs/first/samples"
JSON = {"Content-Type": "application/json"}
DRAW = """
import sys, time
from pathlib import Path
from autoresearch.core.store.samples import FileSamples, samples_of, write_samples
folder, prompts = Path(sys.argv[1]), sys.argv[sys.argv.index("--") + 1:]
if "slow" in prompts:
    (folder / "drawing").write_text("")
    while not (folder / "go on").exists():
        time.sleep(0.02)
if "bad" in prompts:
    sys.exit("ar: the run keeps no weights (--train trains it)")
texts = FileSamples(experiment=0, val_bpb=1.0, texts=tuple(" and so on" for _ in prompts))
write_samples(folder, samples_of(prompts, [texts], temperature=0.8, top_p=0.95, seed=0, tokens=3))
"""
"""A program in the place of `ar sample`, which needs trained weights."""


@pytest.fixture
def workspace(tmp_path):
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
    return folder


@pytest.fixture
def drawer(workspace):
    def command(tag, arguments):
        return [sys.executable, "-c", DRAW, str(workspace / "runs" / tag), *arguments]

    return SampleDrawer(command)


def post(port, body, path=SAMPLES, method="POST", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    connection.request(
        method, path, text, {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    )
    answer = connection.getresponse()
    told = answer.read()
    connection.close()
    return answer.status, told.decode()


def test_a_page_asks_for_samples_and_gets_them(workspace, drawer):
    with served(workspace, drawer=drawer) as port:
        status, told = post(port, {"prompts": ["--help", "def f("], "tokens": 3}, Origin=f"http://127.0.0.1:{port}")
        assert status == 200, told
        assert [one["prompt"] for one in json.loads(told)["prompts"]] == ["--help", "def f("]
        status, told = post(port, {"prompts": ["bad"]})
    assert (status, told) == (422, "the run keeps no weights (--train trains it)\n")


def test_another_site_cannot_ask(workspace, drawer):
    with served(workspace, drawer=drawer) as port:
        for headers in (
            {"Content_Type": "text/plain"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
        ):
            assert post(port, {}, **headers)[0] == 403, headers
        assert post(port, {}, Host="evil.example")[0] == 400
        assert post(port, "", method="GET")[0] == 405
    with served(workspace, token="secret", drawer=drawer) as port:
        assert post(port, {})[0] == 403
        assert post(port, {}, Cookie=f"ar_token_{port}=secret")[0] == 200
    with served(workspace) as port:
        assert post(port, {})[0] == 404, "a dashboard without the means has no such address"


def test_what_cannot_be_drawn_is_one_line(workspace, drawer):
    with served(workspace, drawer=drawer) as port:
        for body, status, words in (
            ("{", 400, "JSON"),
            ("[]", 400, "object"),
            ({"prompt": "x"}, 400, "prompt: "),
            ({"tokens": 0}, 400, "tokens: "),
            ({"tokens": 401}, 400, "tokens: "),
            ({"tokens": True}, 400, "tokens: "),
            ('{"temperature": NaN}', 400, ""),
            ({"seed": -1}, 400, "seed: "),
            ({"prompts": ["x"] * 5}, 400, "prompts: "),
            ({"prompts": ["x" * 4001]}, 400, "prompts.0: "),
            ({"prompts": ["a\0b"]}, 400, "characters that no text has"),
            ('{"prompts": ["\\ud800"]}', 400, ""),
            ("x" * 2**17, 413, "too long"),
            (b"\xff", 400, ""),
        ):
            found, told = post(port, body)
            assert found == status and words in told and told.count("\n") == 1, (body, found, told)
        assert post(port, {}, path="/api/runs/other/samples")[0] == 404
    assert not (workspace / "runs/first/samples.json").exists()


def test_one_draw_at_a_time(workspace, drawer):
    folder = workspace / "runs/first"
    with served(workspace, drawer=drawer) as port:
        first = threading.Thread(target=post, args=(port, {"prompts": ["slow"]}))
        first.start()
        while not (folder / "drawing").exists():
            time.sleep(0.02)
        assert post(port, {"prompts": ["x"]})[0] == 409
        (folder / "go on").write_text("")
        first.join()
        assert post(port, {"prompts": ["x"]})[0] == 200


def test_the_form_on_the_page_shows_what_was_drawn(page, workspace, drawer):
    with served(workspace, drawer=drawer) as port:
        page.goto(f"http://127.0.0.1:{port}/#/first/insight")
        page.get_by_label("Prompt").fill("def <b>f(")
        page.get_by_role("button", name="Draw").click()
        page.get_by_text("def <b>f( and so on").wait_for()
        page.get_by_label("Prompt").focus()
        page.evaluate("document.querySelector('.panels').id = 'before'")
        with open_run(workspace, "first") as run:  # an experiment is decided while a person types
            Loop(run, Widths(9, 12), Greedy(), Scripted(), limits=Limits(2)).go()
        page.locator("#before").wait_for(state="detached")  # the view was drawn anew
        page.keyboard.type("!")
        assert page.get_by_label("Prompt").input_value() == "def <b>f(!"
        page.get_by_label("Prompt").fill("bad")
        page.get_by_role("button", name="Draw").click()
        page.get_by_text("the run keeps no weights").wait_for()
        page.goto("about:blank")
    with served(workspace) as port:
        page.goto(f"http://127.0.0.1:{port}/#/first/insight")
        page.get_by_text("def <b>f( and so on").wait_for()
        assert page.get_by_label("Prompt").count() == 0
        page.goto("about:blank")


def test_a_draw_ends_with_the_dashboard(workspace, drawer, capfd):
    answers = []
    with served(workspace, drawer=drawer) as port:
        first = threading.Thread(target=lambda: answers.append(post(port, {"prompts": ["slow"]})))
        first.start()
        while not (workspace / "runs/first/drawing").exists():
            time.sleep(0.02)
    first.join()
    assert answers == [(503, "the dashboard has ended\n")]
    assert "Traceback" not in capfd.readouterr().err


def test_prompts_are_no_options():
    assert Asked(prompts=["--tag", "x"], baseline=False).arguments()[-3:] == ["--", "--tag", "x"]
