"""`ar verify` and `ar ablate` on a real run of the null backend."""

from __future__ import annotations

import json
import sys

import pytest

from autoresearch.core.cli.main import run as ar
from autoresearch.core.followup import remeasure
from autoresearch.core.followup.ablate import Change, without
from autoresearch.core.followup.welch import welch
from autoresearch.core.proposal import Proposal
from autoresearch.core.run.merge import merge
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trial.request import TrialResult

BEFORE = "a = 1\n\n\nb = 2\n\n\nc = 3\n"


def test_a_change_is_taken_out_of_a_file_that_went_on_or_conflicts_or_is_gone():
    after = BEFORE.replace("b = 2", "b = 20")
    change = Change(1, "b", BEFORE, after)
    assert without(after.replace("c = 3", "c = 30"), change).source == BEFORE.replace("c = 3", "c = 30")
    assert without(after.replace("b = 20", "b = 20 + 1"), change).state == "conflict"
    assert without(BEFORE, change).state == "gone"
    assert merge("x\n", "x\n", "y\n") == "y\n"


def test_what_conflicts_is_put_to_whoever_repairs_and_only_a_file_that_parses_is_taken():
    after = BEFORE.replace("b = 2", "b = 20")
    change, final = Change(1, "b", BEFORE, after), after.replace("b = 20", "b = 20 + 1")
    fixed = without(final, change, lambda source, _: source.replace("b = 20 + 1", "b = 2 + 1"))
    assert (fixed.state, fixed.repaired, fixed.source) == ("removed", True, BEFORE.replace("b = 2", "b = 2 + 1"))
    for useless in ("b = (", final, None):
        assert without(final, change, lambda _source, _change, useless=useless: useless).state == "conflict"


def test_welchs_interval_is_that_of_the_textbook():
    # Two samples of equal spread and size: Welch's degrees of freedom are 2n - 2 = 4, t = 2.776.
    interval = welch([1.0, 2.0, 3.0], [11.0, 12.0, 13.0])
    assert interval.difference == pytest.approx(10.0)
    assert interval.dof == pytest.approx(4.0)
    assert interval.high - interval.difference == pytest.approx(2.776 * (2 / 3) ** 0.5, rel=0.01)
    assert interval.verdict == "worse"
    assert welch([1.0, 2.0], [1.1, 1.9]).verdict == "not certain"
    with pytest.raises(ValueError, match="two values"):
        welch([1.0], [1.0, 2.0])


@pytest.fixture
def workspace(tmp_path, prepared, monkeypatch):
    """A run of the null backend with a real baseline, and one keep whose change does nothing."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "w"
    assert ar(["init", str(folder)]) == 0
    source = (folder / "backends/null/train.py").read_text().replace("VOCAB_SIZE = 1024", "VOCAB_SIZE = 512")
    source = source.replace("VOCAB_SIZE = 256", "VOCAB_SIZE = 512")
    config = {"backend": "null", "preset": "demo", "prepared": str(prepared.folder), "eval_seq_len": 256}
    config |= {"score_rows": 32, "train_seconds": 0.5, "startup_seconds": 60.0, "seed": 0, "device": "cpu"}
    config |= {"vocabularies": [512]}
    with Ledger(folder / "runs/t") as ledger:
        ledger.create("t", config, "0" * 40)
        for number, text in enumerate((source, source + "\nUNUSED = 1\n")):
            proposal = Proposal(text, f"change {number}", "shape")
            common = {"commit": "0" * 40, "fingerprint": str(number), "program": "", "created": 0.0}
            ledger.propose(number, proposal, parent=0, **common)
            with ledger._transaction() as write:
                write("UPDATE experiments SET state = 'decided', status = 'keep' WHERE number = ?", (number,))
                write("UPDATE runs SET incumbent = ?", (number,))
    return folder


def test_verify_measures_both_on_test_and_counts_the_looks(workspace, capsys):
    assert ar(["--workspace", str(workspace), "-q", "verify", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["look"], record["experiment"], record["seeds"]) == (1, 1, 3)
    assert len(record["final_test_bpb"]) == len(record["baseline_test_bpb"]) == 3
    assert record["low"] <= record["delta"] <= record["high"]
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.events("verified") == [record]
        assert len(reader.events("verify started")) == 1
    assert not list((workspace / "runs/t/verify").glob("*/*.safetensors"))


def test_ablate_proposes_the_file_without_what_is_not_missed(workspace, capsys):
    assert ar(["--workspace", str(workspace), "-q", "ablate", "--seeds", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    (change,) = record["changes"]
    assert change["experiment"] == 1
    if change["verdict"] == "idle":  # what it measures is real, and so is its noise
        assert record["removed"] == [1]
        assert "UNUSED" not in (workspace / "runs/t/ablated_train.py").read_text()
    else:
        assert (change["verdict"], record["path"]) == ("earns", None)


def test_a_change_that_others_were_built_on_is_taken_out_by_the_researcher(workspace, tmp_path, capsys):
    with Ledger(workspace / "runs/t") as ledger:
        first = ledger.text(ledger.experiment(1).source_sha256)
        proposal = Proposal(first.replace("UNUSED = 1", "UNUSED = 1 + 1"), "change 2", "shape")
        common = {"commit": "0" * 40, "fingerprint": "2", "program": "", "created": 0.0}
        ledger.propose(2, proposal, parent=1, **common)
        with ledger._transaction() as write:
            write("UPDATE experiments SET state = 'decided', status = 'keep' WHERE number = 2")
            write("UPDATE runs SET incumbent = 2")
    arguments = ["--workspace", str(workspace), "-q", "ablate", "--seeds", "1", "--json"]
    agent = tmp_path / "agent.py"
    agent.write_text(
        "lines = [line for line in open('train.py') if not line.startswith('UNUSED')]\n"
        "assert '+UNUSED = 1' in open('program.md').read()\n"
        "open('train.py', 'w').writelines(lines)\n"
    )
    assert ar([*arguments, "--researcher", "command", "--agent-command", f"{sys.executable} {agent}"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(row["experiment"], row["repaired"]) for row in record["changes"]] == [(1, True), (2, False)]
    assert {row["verdict"] for row in record["changes"]} <= {"idle", "earns"}
    assert len(record["repairs"]) >= 1


def test_a_run_without_a_keep_has_nothing_to_verify(workspace, capsys):
    with Ledger(workspace / "runs/t") as ledger, ledger._transaction() as write:
        write("UPDATE runs SET incumbent = 0")
        write("UPDATE experiments SET status = 'discard' WHERE number = 1")
    for command in ("verify", "ablate"):
        assert ar(["--workspace", str(workspace), command]) == 3
        assert "let `ar loop` find one first" in capsys.readouterr().err


def test_a_trial_far_slower_than_its_sources_others_is_run_once_more_and_only_then_believed(tmp_path, monkeypatch):
    told, ran = [], []

    def trial(request, **_):
        ran.append(request.source)
        speed = 20.0 if len(ran) in (2, 4, 5) else 100.0
        return TrialResult(
            status="ok",
            seed=request.seed,
            backend="null",
            preset="demo",
            val_bpb=float(len(ran)),
            tokens_per_second=speed,
        )

    monkeypatch.setattr(remeasure, "run_trial", trial)
    config = {"backend": "null", "preset": "demo", "prepared": "", "eval_seq_len": 256, "score_rows": 32}
    bench = remeasure.Bench(
        {**config, "train_seconds": 1.0, "startup_seconds": 1.0},
        tmp_path,
        "test",
        say=told.append,
        usual={"a": [100.0]},
    )
    assert bench.measure("1-0-1", "a", 0) == 1.0
    assert bench.measure("1-0-2", "a", 1) == 3.0  # the second trial was slow, so there was a third
    assert bench.measure("1-1-1", "b", 0) == 5.0  # slow twice: a slow file, not a slow machine
    assert [line.split(":")[0] for line in told] == ["1-0-2 is run once more", "1-1-1 is run once more"]
    assert ran == ["a", "a", "a", "b", "b"]
