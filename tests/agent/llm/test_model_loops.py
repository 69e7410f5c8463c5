"""`ar loop` with a language model and with an outside agent, as people run it: real processes, the null backend."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import sys
from collections import Counter

import pytest
from model_server import TOKENS_IN, TOKENS_OUT, ModelServer, reply
from warm_ar import run_ar

from autoresearch.agent.llm.providers import Price
from autoresearch.core.store.reader import LedgerReader

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TIMEOUT_SECONDS = 850
ONE = Price(2e-6, 10e-6).of(TOKENS_IN, TOKENS_OUT)
PRICED = ("--model", "openai/test-model", "--price", "openai/test-model=2/10")


@pytest.fixture
def loop(library, baseline_run, tmp_path):
    """Go on with a run that has its baseline; gives code, JSON lines and stderr."""
    workspace = shutil.copytree(baseline_run, tmp_path / "w")
    environment = {**os.environ, "AR_DATA_DIR": str(library / "data"), "OPENAI_API_KEY": "sk-test-key-that-is-secret"}

    def run(*arguments):
        argv = ["--backend", "null", "--preset", "demo", "--workspace", str(workspace), "--json", "loop"]
        done = run_ar([*argv, "--tag", "t", *arguments], environment, TIMEOUT_SECONDS)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    run.folder = workspace / "runs" / "t"
    return run


def file_in(body):
    """The train file that the prompt shows."""
    return re.search(r"```python\n(.*?)\n```", body["messages"][1]["content"], re.S).group(1)


CODE = {
    "schedule": ("    return LEARNING_RATE * (FINAL_LR", "    left = left**1.{n}\n{line}"),
    "loss": ("    total = probs.sum(", "    probs = probs * 1.{n}\n{line}"),
    "init": ("    V = spec.vocab_size", "{line}\n    rng.random()\n    rng.standard_normal({n} % 9)"),
    "optimizer": ("            squares[name] += grad", "            grad = grad * 1.{n}\n{line}"),
}
NUMBERS = {"schedule": "WARMDOWN", "init": "INIT_SCALE", "optimizer": "UNIGRAM_RATE"}


def good(number, body):
    """A fitting edit: of code, or of much code, where the quotas ask for it; of a number otherwise."""
    if len(body["messages"]) == 1:
        return {"text": "Numbers matter little here (#1)."}
    source, (_, _, rule) = file_in(body), body["messages"][1]["content"].partition("A rule for this turn")
    wanted = CODE if "structural" in rule or "bold" in rule else NUMBERS
    free = [category for category in wanted if category not in rule.partition("rest now:")[2]]
    if not free:
        wanted, free = CODE, ["loss"]
    chosen = list(CODE) if "bold" in rule else [free[number % len(free)]]
    parts = []
    for category in chosen:
        if wanted is CODE:
            line = next(line for line in source.split("\n") if line.startswith(CODE[category][0]))
            parts.append(
                reply(
                    line,
                    CODE[category][1].replace("{n}", f"{number + 1000}").replace("{line}", line),
                    category=category if len(chosen) == 1 else free[0],
                )
            )
        else:
            line = re.search(rf"^{NUMBERS[category]} = .*$", source, re.M).group()
            parts.append(reply(line, f"{NUMBERS[category]} = 0.{number + 100}", category=category))
    return {"text": "\n".join(parts)}


FAULTS = (
    {"status": 429},
    {"status": 500},
    {"cut": True, "text": "HYPOTHESIS"},
    {"text": ""},
    {"text": "I would try a larger learning rate."},
    {"text": "```rust\nfn main() {}\n```"},
    {"text": "<<<<<<< SEARCH\nWARMDOWN = 0.5\n>>>>>>> REPLACE"},
    {"text": "runtime.py\n" + reply("WARMDOWN = 0.5", "WARMDOWN = 0.6")},
    {"text": "spam " * 200_000},
    {"raw": "<html>gateway</html>"},
    {"sleep": 4, "text": "late"},
)


def usd_of_no_experiment(folder):
    """Paid for proposals that became no experiment."""
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        decided = "SELECT number FROM experiments WHERE state = 'decided'"
        query = f"SELECT coalesce(sum(usd), 0.0) FROM proposals WHERE coalesce(experiment, -1) NOT IN ({decided})"
        return ledger.execute(query).fetchone()[0]


def test_ten_experiments_with_a_faulty_model_end_well_with_dollars_right_to_the_cent(loop):
    digests = []

    def script(number, body):
        if len(body["messages"]) == 1:
            digests.append(number)  # answered well: whether one is asked for depends on how far ahead the loop thinks
        elif number % 2 == 0:
            return FAULTS[number // 2 % len(FAULTS)]  # each way that there is
        return good(number, body)

    with ModelServer(script) as server:
        more = ("--max-usd", "5", "--model-timeout", "2", "--api-base", server.url)
        code, lines, errors = loop("-n", "10", "--researcher", "llm", *PRICED, *more)
        assert code == 0, errors
        decided, summary = lines[:-1], lines[-1]["summary"]
        assert summary["experiments"] == 10 and len(decided) == 10
        assert summary["usd"] == pytest.approx(server.billed * ONE, abs=1e-9)
        # A proposal that was thought of ahead and then refused or withdrawn is paid for too, and is no experiment.
        paid = sum(one["usd"] for one in decided) + usd_of_no_experiment(loop.folder)
        assert paid == pytest.approx(server.billed * ONE, abs=1e-9)
        assert summary["tokens_in"] == server.billed * TOKENS_IN
        assert len({json.dumps(request["messages"]) for request in server.requests}) > 10
    with LedgerReader(loop.folder) as reader:
        rows = [row for row in reader.experiments() if row.number]
    by = Counter(row.researcher for row in rows)
    assert by["llm"] >= 7
    kinds = [row.parameters["kind"] for row in rows]
    assert sum(kind != "knob" for kind in kinds) >= 3
    everything = (loop.folder / "calls.jsonl").read_text() + errors + json.dumps(lines)
    assert "sk-test-key" not in everything
    page = loop.folder / "digest.md"
    assert not page.exists() or (digests and page.read_text().startswith("<!-- after experiment"))


def test_a_limit_on_dollars_ends_the_run_before_it_is_passed(loop):
    with ModelServer(good) as server:
        more = ("--max-usd", "0.145", "--api-base", server.url)
        code, lines, errors = loop("-n", "20", "--researcher", "llm", *PRICED, *more)
        assert code == 4 and "--max-usd" in errors
        assert 0 < lines[-1]["summary"]["usd"] <= 0.145
        assert lines[-1]["summary"]["usd"] == pytest.approx(server.billed * ONE)


def test_a_mix_goes_on_when_the_model_is_gone(loop):
    with ModelServer(lambda number, body: {"status": 401, "message": "bad key sk-test-key-that-is-secret"}) as server:
        code, lines, errors = loop("-n", "2", "--researcher", "mix", *PRICED, "--api-base", server.url)
    assert code == 0, errors
    assert {one["researcher"] for one in lines[:-1]} == {"tuner"}
    assert "sk-test-key" not in errors + json.dumps(lines)


def test_a_wrong_model_name_and_a_bad_key_end_with_what_to_do(loop):
    with ModelServer(lambda number, body: {"status": 404, "message": "no such model"}) as server:
        code, lines, errors = loop("-n", "3", "--researcher", "llm", *PRICED, "--api-base", server.url)
    assert code == 4 and "openai/test-model: model" in errors
    assert lines[-1]["summary"]["experiments"] == 0


def test_what_failed_proposals_cost_is_in_the_ledger(loop):
    with ModelServer(lambda number, body: {"text": ""}) as server:
        code, lines, _ = loop("-n", "3", "--researcher", "llm", *PRICED, "--api-base", server.url)
    assert code == 4 and server.billed == 12
    assert lines[-1]["summary"]["usd"] == pytest.approx(server.billed * ONE)
    assert lines[-1]["summary"]["failed_proposals"] == 3


def test_an_outside_agent_researches(loop, tmp_path):
    agent = tmp_path / "agent.py"
    agent.write_text(
        "import re, time\nfrom pathlib import Path\np = Path('train.py')\n"
        "value = f'WARMDOWN = 0.{time.time_ns() % 10**6:06}'\n"
        "p.write_text(re.sub(r'^WARMDOWN = .*$', value, p.read_text(), flags=re.M))\n"
        "Path('program.md').write_text('mine')\n"
    )
    code, lines, errors = loop("-n", "2", "--researcher", "command", "--agent-command", f"{sys.executable} {agent}")
    assert code == 0, errors
    assert [one["researcher"] for one in lines[:-1]] == ["command", "command"]
    assert lines[-1]["summary"]["usd"] is None
    assert (loop.folder.parent.parent / "program.md").read_text() != "mine"
