"""`ar verify`, `ar ablate` and `ar scale` on a real run of the null backend."""

from __future__ import annotations

import json
import sys

import pytest

from autoresearch.core.cli.main import run as ar
from autoresearch.core.proposal import Proposal
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.trial.device import usable_cores


@pytest.fixture
def workspace(tmp_path, prepared, monkeypatch):
    """A run of the null backend with a real baseline, and one keep whose change does nothing."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "w"
    assert ar(["init", str(folder)]) == 0
    source = (folder / "backends/null/train.py").read_text().replace("VOCAB_SIZE = 1024", "VOCAB_SIZE = 512")
    source = source.replace("VOCAB_SIZE = 256", "VOCAB_SIZE = 512")
    config = {"backend": "null", "preset": "demo", "prepared": str(prepared.folder), "eval_seq_len": 256}
    config |= {"score_rows": 32, "train_seconds": 0.3, "startup_seconds": 60.0, "seed": 0, "device": "cpu"}
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
    assert ar(["--workspace", str(workspace), "-q", "verify", "--max-seeds", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["look"], record["experiment"], record["seeds"]) == (1, 1, 3)
    assert len(record["final_test_bpb"]) == len(record["baseline_test_bpb"]) == 3
    assert record["low"] <= record["delta"] <= record["high"]
    with LedgerReader(workspace / "runs/t") as reader:
        assert reader.events("verified") == [record]
        assert len(reader.events("verify started")) == 1
    assert not list((workspace / "runs/t/verify").glob("*/*.safetensors"))


def test_ablate_proposes_the_file_without_what_is_not_missed(workspace, capsys):
    slots = ["--slots", "2"] if len(usable_cores()) > 1 else []  # both trials at once
    assert ar(["--workspace", str(workspace), "-q", "ablate", "--seeds", "1", *slots, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    with LedgerReader(workspace / "runs/t") as reader:
        noted = reader.events("followup trial")
        assert len(noted) >= 2 and all(("(1 of 2 slots)" in note["machine"]) is bool(slots) for note in noted)
    (change,) = record["changes"]
    assert change["experiment"] == 1
    if change["verdict"] == "idle":  # what it measures is real, and so is its noise
        assert record["removed"] == [1]
        assert "UNUSED" not in (workspace / "runs/t/ablated_train.py").read_text()
    else:
        assert record["path"] is None
        assert change["verdict"] == ("earns" if change["low"] > 0 else "undecided")


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
    assert {row["verdict"] for row in record["changes"]} <= {"idle", "earns", "undecided"}
    assert len(record["repairs"]) >= 1


def test_scale_says_its_plan_measures_draws_and_is_interrupted_without_a_loss(workspace, capsys):
    call = ["--workspace", str(workspace), "scale", "--seeds", "2", "--budgets", "none"]
    assert ar([*call, "--plan", "-q"]) == 0
    told = capsys.readouterr().out  # what was asked for, and no message
    assert "no widths: the files share no constant with a known name for one (--constant names another)" in told
    assert "4 trials, about 41 s" in told  # the run has recorded no trial to learn the overhead from
    with Ledger(workspace / "runs/t") as ledger:
        assert not ledger.events("followup trial")
    assert ar([*call, "--json", "-q"]) == 0
    record = json.loads(capsys.readouterr().out)
    (own,) = record["conditions"]
    assert len(own["baseline_val_bpb"]) == len(own["final_val_bpb"]) == 2
    assert own["low"] <= own["delta"] <= own["high"]
    assert (workspace / "runs/t/scale.png").read_bytes().startswith(b"\x89PNG")
    with Ledger(workspace / "runs/t") as ledger:  # as if it had been stopped before the record was written
        with ledger._transaction() as write:
            write("DELETE FROM events WHERE kind = 'scaled'")
        assert len(ledger.events("followup trial")) == 4
    assert ar([*call, "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["conditions"] == record["conditions"]
    with LedgerReader(workspace / "runs/t") as reader:
        assert len(reader.events("followup trial")) == 4
    assert not list((workspace / "runs/t/scale").glob("*/*/*.safetensors"))


def test_scale_says_its_plan_while_a_loop_writes_the_run(workspace, capsys):
    call = ["--workspace", str(workspace), "scale", "--seeds", "2", "--budgets", "none", "--widths", "none"]
    with Ledger(workspace / "runs/t"):
        assert ar([*call, "--plan", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["trials"] == 4
        assert ar(call) == 1
        assert "the run 't' is being written by" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "ablate", "scale"])
def test_options_of_a_cluster_need_a_cluster(workspace, command, capsys):
    assert ar(["--workspace", str(workspace), command, "--address", "x:1"]) == 2
    assert "add --fleet ray" in capsys.readouterr().err
    with LedgerReader(workspace / "runs/t") as reader:
        assert not reader.events("verify started") and not reader.events("followup trial")


def test_a_picture_without_a_place_is_refused_before_scale_measures(workspace, capsys):
    (workspace / "runs/t/scale.png").mkdir()
    call = ["--workspace", str(workspace), "-q", "scale", "--budgets", "none", "--widths", "none"]
    assert ar(call) == 2
    assert "scale.png cannot be written: it is a folder" in capsys.readouterr().err
    with LedgerReader(workspace / "runs/t") as reader:
        assert not reader.events("followup trial")


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "x", "1,,2", "65"])
def test_a_factor_that_is_none_is_refused_before_anything_runs(workspace, wrong, capsys):
    assert ar(["--workspace", str(workspace), "scale", f"--budgets={wrong}"]) == 2
    assert "such as 0.5,2" in capsys.readouterr().err


def test_a_run_without_a_keep_has_nothing_to_verify(workspace, capsys):
    with Ledger(workspace / "runs/t") as ledger, ledger._transaction() as write:
        write("UPDATE runs SET incumbent = 0")
        write("UPDATE experiments SET status = 'discard' WHERE number = 1")
    for command in ("verify", "ablate", "scale"):
        assert ar(["--workspace", str(workspace), command]) == 3
        assert "let `ar loop` find one first" in capsys.readouterr().err
