"""Two runs of one workspace that count as two devices, with real trials: what one keeps, the other tries."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from loop_fixtures import CONFIG, PRESET, git, make_workspace
from null_trials import NULL_SOURCE

from autoresearch.agent.tuner.researcher import Tuner
from autoresearch.core.cli.main import run as ar
from autoresearch.core.cli.run.session import findings_words
from autoresearch.core.findings.peers import PeerRuns, folders_of
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.proposal import Proposal, Researcher
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.run.run import Run
from autoresearch.core.store.exports import summarise
from autoresearch.core.store.reader import LedgerReader

DEMO = PRESET.model_copy(update={"constants": {"LEARNING_RATE": 1e-6}})
"""A start so bad that whatever learns at all is better, on the busiest machine."""


class Rate(Researcher):
    """One proposal: a rate that learns."""

    name = "rate"

    def propose(self, history):
        source = re.sub(r"LEARNING_RATE = \S+", "LEARNING_RATE = 0.5", history.incumbent.source)
        return Proposal(source, "A rate that learns.", "optimizer", researcher=self.name)


@pytest.fixture
def drive(tmp_path, prepared):
    workspace = make_workspace(tmp_path / "w")
    (workspace / "backends/null/train.py").write_text(NULL_SOURCE.replace('PRESET = "demo"', 'PRESET = ""'))
    git(workspace, "commit", "-q", "-a", "-m", "the null backend's file")
    common = replace(CONFIG, prepared=str(prepared.folder), eval_seq_len=256, score_rows=16, train_seconds=0.6)

    def drive(tag, device, researcher, experiments):
        look, executor = PeerRuns(folders_of(workspace, ("auto",)), drive.said.append), LocalExecutor()
        try:
            with Run(workspace, tag, replace(common, device=device), DEMO, peers=look) as run:
                Loop(run, researcher, Greedy(), executor, limits=Limits(experiments)).go()
        finally:
            executor.close()
        with LedgerReader(workspace / "runs" / tag) as reader:
            return list(reader.experiments()), summarise(reader)["findings"]

    drive.workspace, drive.said = workspace, []
    return drive


def test_a_keep_of_one_device_is_tried_on_the_other_and_the_report_says_what_became_of_it(drive, capsys):
    rows, findings = drive("night", "NVIDIA H100", Rate(), 1)
    assert [row.status for row in rows] == ["keep", "keep"] and findings == []

    rows, findings = drive("night-mac", "Apple M4", Tuner(), 1)
    assert str(rows[1].origin) == "night#1" and rows[1].status == "keep"
    assert rows[1].hypothesis.startswith("LEARNING_RATE 1e-06 -> 0.5; kept by null on NVIDIA H100 (-")
    assert drive.said == ["night (null on NVIDIA H100) has kept a change: offered here as proposals"]
    about = {"run": "night", "backend": "null", "device": "NVIDIA H100"}
    assert findings == [{**about, "offered": 1, "tried": 1, "held": 1}]
    assert findings_words(findings[0]) == "1 of 1 finding of night (null on NVIDIA H100) held here"

    rows, findings = drive("night", "NVIDIA H100", Tuner(), 2)
    assert rows[2].origin is None and findings == [], "its own finding does not come back"

    def said(*arguments):
        assert ar(["--workspace", str(drive.workspace), *arguments]) == 0
        return capsys.readouterr().out

    text = said("report", "--tag", "night-mac", "--markdown")
    gains = [f"{row.delta:+.4f}".replace("-", "−") for row in (rows[1], rows_of(drive, "night-mac")[1])]
    assert "1 of 1 finding of `night` (null on `NVIDIA H100`) held here." in text
    assert (
        f"| `night#1` | {gains[0]} | held | {gains[1]} | 1 | `A rate that learns.`, here `LEARNING_RATE 1e-06 -> 0.5;"
        in text
    )
    assert "Findings from other devices" not in said("report", "--tag", "night", "--markdown")
    assert said("results", "--tag", "night-mac").rstrip().endswith("[night#1]")
    last = json.loads(said("--json", "results", "--tag", "night-mac", "--last", "1"))
    assert (last["origin"]["run"], last["origin"]["experiment"], last["origin"]["device"]) == (
        "night",
        1,
        "NVIDIA H100",
    )


def rows_of(drive, tag):
    with LedgerReader(drive.workspace / "runs" / tag) as reader:
        return list(reader.experiments())
