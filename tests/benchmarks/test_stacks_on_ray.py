"""The count of what a run has lost or has twice finds each such fault, and none in a sound run."""

from __future__ import annotations

from collections import Counter

import pytest
from loop_fixtures import finished_run

from autoresearch.core.store.journal import JOURNAL_NAME, read_lines
from autoresearch.core.store.ledger import Ledger
from benchmarks._stacks_on_ray import count_faults

DECIDED, SCORED = "UPDATE experiments SET state = 'decided'", "UPDATE trials SET ended"


@pytest.fixture
def folder(tmp_path):
    return finished_run(tmp_path / "w")


def faults(folder, cut=()):
    return {name: count for name, count in count_faults(folder, Counter(cut)).items() if count}


def change(folder, sql):
    with Ledger(folder) as ledger, ledger._transaction() as write:
        write(sql)


def test_a_sound_run_has_no_fault(folder):
    assert faults(folder) == {}


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE experiments SET state = 'proposed' WHERE number = 2", "accepted proposals without a decision"),
        ("UPDATE trials SET status = NULL WHERE experiment = 2", "trials without a result"),
        (
            "UPDATE trials SET val_bpb = 5.0 WHERE experiment = 1",
            "decisions that do not follow from the recorded trials",
        ),
        ("UPDATE trials SET starts = 3 WHERE experiment = 2", "starts of trials beyond what was lost"),
    ],
)
def test_a_fault_in_the_ledger_is_counted(folder, sql, fault):
    change(folder, sql)
    assert fault in faults(folder)


def test_a_start_that_is_known_to_be_cut_off_is_no_fault(folder):
    change(folder, "UPDATE trials SET starts = 2 WHERE experiment = 2")
    assert faults(folder) == {"starts of trials beyond what was lost": 1}
    assert faults(folder, {(2, 1): 1}) == {}


def test_what_the_journal_has_twice_is_counted(folder):
    written = [write for _, writes, _ in read_lines(folder / JOURNAL_NAME) for write in writes]
    again = [next(write for write in written if write[0].startswith(start)) for start in (DECIDED, SCORED)]
    with Ledger(folder) as ledger, ledger._transaction() as write:
        for sql, values in again:
            write(sql, values)
    found = faults(folder)
    assert (found["experiments decided twice"], found["trials scored twice"]) == (1, 1)
