from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loop_fixtures import PRESET, TRAIN

from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import constant_lines, read_constants, write_constants, write_preset

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
    assert read_constants(SOURCE) == {**expected, "BATCH": 131072}


def test_writing_changes_the_values_and_leaves_every_other_byte():
    written = write_constants(SOURCE, {"LR": 0.5, "DECAY": 2, "NAME": "ü", "BATCH": 64, "PRESET": "cpu"})
    assert written == (
        SOURCE.replace("LR = 1e-3", "LR = 0.5")
        .replace("DECAY = -0.5", "DECAY = 2")
        .replace('NAME = "é"', 'NAME = "ü"')
        .replace("BATCH = 2**17", "BATCH = 2**6")
        .replace('PRESET = "h100"', 'PRESET = "cpu"')
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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2**18", 262144), ("-1e-3", -0.001), ("4 * 128", 512), ("3 * 4 - 1", 11), ("7 // 2", 3), ("1 / 8", 0.125),
        ("10**-3", 0.001), ("+3", 3), ("-(2**4)", -16), ("((2**4) + 1) * 2.0", 34.0), ("2_048", 2048),
        ("max(1, 2)", None), ("9**9**9", None), ("2**65", None), ("1e6**64", None), ("(10**6)**64 * (10**6)**64", None),
        ("1 / 0", None), ("0**-1", None), ("1e999", None), ("True + 1", None), ("not 1", None), ("None", None),
        (" + ".join(["1"] * 5000), None),
    ],
)  # fmt: skip
def test_arithmetic_on_literals_is_computed_within_bounds(text, value):
    source = f"# ---- constants\nFIRST = 1\nX = {text}\n# ---- end of constants\n"
    try:
        found = read_constants(source)
    except SourceError:
        found = {"FIRST": 1}  # too deep for the parser: the whole block is refused
        assert len(text) > 1000
    assert (found["FIRST"], found.get("X")) == (1, value)
    assert type(found.get("X")) is type(value)


def test_the_last_assignment_of_a_name_counts():
    source = "# ---- constants\nX = 1\nX = 2\nY = 1\nY = f()\n# ---- end of constants\n"
    assert read_constants(source) == {"X": 2}
    assert write_constants(source, {"X": 3, "Y": 4}) == source.replace("X = 2", "X = 3").replace("Y = f()", "Y = 4")


def test_lines_of_constants_come_with_their_comments():
    lines = constant_lines(SOURCE)
    assert lines["PRESET"] == 'PRESET = "h100"   # the tier'
    assert lines["LONG"] == "LONG = (\n    12  # inside\n)"
    assert "BETAS" not in lines
