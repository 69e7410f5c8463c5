import pytest
from simulated_runs import ROOT, SOURCE

from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constants import constants_of, numbers_of, unread_constants
from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import write_constants

ODD = """X = 1
# ---- constants: odd ones
NEGATIVE = -0.5  # below zero
ZERO = 0
OFF = False
NAME = "é"; AFTER = 3
POWER = 2**18
SUM: int = 3 * 4
WIDE = (1, 2)
CALL = max(1, 2)
HUGE = 9**9**9
INFINITE = 1e999
TWICE = 1
TWICE = 2
# ---- end of constants
OUTSIDE = 5
"""


def test_values_are_read_with_their_signs_and_kinds():
    assert constants_of(ODD) == {
        "NEGATIVE": -0.5, "ZERO": 0, "OFF": False, "NAME": "é", "AFTER": 3, "POWER": 262144, "SUM": 12, "TWICE": 2
    }  # fmt: skip


def test_a_file_without_a_block_has_no_constants():
    assert constants_of("DIM = 3\n") == {}
    assert constants_of("# ---- constants\nDIM = \n# ---- end of constants\n") == {}


def test_writing_changes_literals_and_nothing_else():
    edited = write_constants(ODD, {"NEGATIVE": -0.25, "AFTER": 4, "POWER": 2**17, "TWICE": 7, "OFF": True, "NAME": "ü"})
    expected = ODD.replace("-0.5", "-0.25").replace("AFTER = 3", "AFTER = 4").replace("2**18", "2**17")
    expected = expected.replace("TWICE = 2", "TWICE = 7").replace("False", "True").replace('"é"', '"ü"')
    assert edited == expected


def test_a_value_that_is_already_there_keeps_its_text():
    assert write_constants(SOURCE, {"BATCH_TOKENS": 8192}) == SOURCE


def test_an_unknown_name_is_refused():
    with pytest.raises(SourceError, match="NOT_THERE"):
        write_constants(SOURCE, {"NOT_THERE": 1})


def test_numbers_are_the_constants_that_are_neither_text_nor_switches():
    assert numbers_of(ODD) == {"NEGATIVE": -0.5, "ZERO": 0, "AFTER": 3, "POWER": 262144, "SUM": 12, "TWICE": 2}


def test_constants_that_no_line_reads_are_known():
    source = (ROOT / "backends" / "cuda" / "train.py").read_text(encoding="utf-8")
    edits = {edit.name: edit for edit in MENU}
    assert unread_constants(source) == frozenset()
    assert unread_constants(edits["momentum constant"].apply(source)) == {"MOMENTUM_START", "MOMENTUM_WARMUP_STEPS"}
    warm = edits["schedule warm-up"].apply(source)
    assert (unread_constants(warm), unread_constants(edits["schedule cosine"].apply(warm))) == (set(), {"WARMUP"})
    block = "# ---- constants: x\nPRESET = 'demo'\nA = 1\nB = 2\nC = 3 * B\n# ---- end of constants\n"
    assert unread_constants(block + "print(C)\n") == {"A"}
    assert unread_constants(block + "print(C, globals()['A'])\n") == set() == unread_constants(SOURCE)
