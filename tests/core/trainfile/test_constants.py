from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_fixtures import PRESET, TRAIN

from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import read_constants, write_constants, write_preset
from autoresearch.core.trainfile.fingerprint import fingerprint

SOURCE = '''"""Été."""
import math
LR = 9.0

# ---- constants: see presets.toml
PRESET = "h100"   # the tier
VOCAB_SIZE: int = 8_192
LR = 1e-3  # naïve; "é" makes bytes and characters differ
NAME = "é"; DECAY = -0.5  # two on a line
LONG = (
    12  # inside
)
FLAG = True
BETAS = (0.9, 0.95)
BATCH = 2**17
# ---- end of constants
LR_TOO = 3
'''


def test_reading_gives_the_literals_of_the_block_and_nothing_else():
    expected = {"PRESET": "h100", "VOCAB_SIZE": 8192, "LR": 0.001, "NAME": "é", "DECAY": -0.5, "LONG": 12, "FLAG": True}
    assert read_constants(SOURCE) == expected


def test_writing_changes_the_values_and_leaves_every_other_byte():
    written = write_constants(SOURCE, {"LR": 0.5, "DECAY": 2, "NAME": "ü", "BATCH": 64, "PRESET": "cpu"})
    assert written == (
        SOURCE.replace("LR = 1e-3", "LR = 0.5")
        .replace("DECAY = -0.5", "DECAY = 2")
        .replace('NAME = "é"', "NAME = 'ü'")
        .replace("BATCH = 2**17", "BATCH = 64")
        .replace('PRESET = "h100"', "PRESET = 'cpu'")
    )


def test_an_equal_value_keeps_how_it_is_written():
    assert write_constants(SOURCE, {"VOCAB_SIZE": 8192, "LR": 0.001, "FLAG": True}) == SOURCE


def test_a_value_over_several_lines_is_replaced_whole():
    assert read_constants(write_constants(SOURCE, {"LONG": 5, "FLAG": False}))["LONG"] == 5


def test_windows_line_ends_survive():
    source = SOURCE.replace("\n", "\r\n")
    assert write_constants(source, {"FLAG": False}) == source.replace("FLAG = True", "FLAG = False")


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20), st.booleans()))
def test_what_is_written_is_read_back(value):
    written = write_constants(SOURCE, {"DECAY": value})
    ast.parse(written)
    assert read_constants(written)["DECAY"] == value
    assert type(read_constants(written)["DECAY"]) is type(value)


def test_an_unknown_name_is_an_error_that_names_it():
    with pytest.raises(SourceError, match="'LR_TOO'"):
        write_constants(SOURCE, {"LR_TOO": 4})


@pytest.mark.parametrize(
    "source", ["A = 1\n", "# ---- constants\nA = 1\n", "# ---- constants\n(\n# ---- end of constants\n"]
)
def test_a_missing_block_or_a_broken_file_is_an_error(source):
    with pytest.raises(SourceError):
        read_constants(source)


def test_a_preset_is_written_once_and_then_a_persons_edits_stay():
    written = write_preset(TRAIN, PRESET)
    assert read_constants(written) == {"PRESET": "demo", "VOCAB_SIZE": 256, "WIDTH": 10}
    edited = write_constants(written, {"WIDTH": 99})
    assert write_preset(edited, PRESET) == edited


def test_a_fingerprint_sees_the_program_and_not_its_form():
    assert fingerprint(TRAIN) == fingerprint(
        TRAIN.replace('"""A train file."""', "# other words").replace("8  #", "8 #")
    )
    assert fingerprint(TRAIN) != fingerprint(TRAIN.replace("WIDTH = 8", "WIDTH = 9"))
    assert fingerprint("def f(:") != fingerprint("def f(::")
    assert fingerprint("x = " + "(" * 5000) != fingerprint("y")
