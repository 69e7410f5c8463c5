"""Edits with their syntax told apart, and text that cannot steer who shows it."""

from __future__ import annotations

import json

import pytest

from autoresearch.core.report.web.highlight import MAX_CHARACTERS, MAX_LINES, highlighted_diff
from autoresearch.core.report.web.server import encode
from autoresearch.core.report.wording import visible


def text(line):
    return "".join(piece for _, piece in line.parts)


def test_a_diff_has_marks_numbers_and_kinds():
    before = "".join(f"x{k} = {k}\n" for k in range(20))
    lines = highlighted_diff(before, before.replace("x9 = 9", "def x9():  # why\n    return 'nine'"))
    assert "".join(line.mark for line in lines) == "@   -++   "
    (cut,), added = [line for line in lines if line.mark == "-"], [line for line in lines if line.mark == "+"]
    assert (cut.number, text(cut)) == (10, "x9 = 9")
    assert [(line.number, text(line)) for line in added] == [(10, "def x9():  # why"), (11, "    return 'nine'")]
    assert ("comment", "# why") in added[0].parts
    assert ("name", "x9") in added[0].parts
    assert ("string", "'nine'") in added[1].parts


def test_the_same_file_has_no_diff():
    assert highlighted_diff("x = 1\n", "x = 1\n") == ()


def test_an_edit_that_is_asked_for_again_is_not_marked_again():
    before = "a = 1\n"
    assert highlighted_diff(before, "a = 2\n") is highlighted_diff(before, "a = 2\n")


def test_a_string_that_began_above_the_edit_is_a_string():
    before = '"""\none\ntwo\nthree\nfour\nfive\n"""\n'
    lines = highlighted_diff(before, before.replace("five", "5"))
    assert {kind for line in lines for kind, _ in line.parts} == {"string"}


@pytest.mark.parametrize(
    "after",
    ["x = 'a'\n" * 50_000, "(" * 250_000, "\n" * 250_000, "".join(f"y{k % 97}\n" for k in range(30_000)), "\x00\ud800"],
    ids=["many lines", "one line", "empty lines", "a pattern", "no text"],
)
def test_a_hostile_file_is_bounded(after):
    lines = highlighted_diff("x = 1\n", after)
    assert 0 < len(lines) <= MAX_LINES
    assert max(len(text(line)) for line in lines) <= MAX_CHARACTERS + 30


def test_what_could_steer_the_reader_is_seen():
    assert visible("\x1b[1;31mred\x1b[0m") == "red"
    assert visible("a\x1b[2Jb\x07\x9b") == "a␛[2Jb␇⟨U+009B⟩"
    assert visible("one\r\ntwo\rthree\tfour") == "one\ntwo\nthree\tfour"
    assert visible("a\u202eb\u2066c\u200bd\u2028e\ud800") == "a⟨U+202E⟩b⟨U+2066⟩c⟨U+200B⟩d⟨U+2028⟩e⟨U+D800⟩"
    assert visible("ünï 漢字") == "ünï 漢字"


def test_numbers_that_json_does_not_know_are_null():
    data = {"a": [1.5, float("nan")], "b": (float("-inf"), "NaN"), "c": {"d": float("inf")}}
    assert json.loads(encode(data)) == {"a": [1.5, None], "b": [None, "NaN"], "c": {"d": None}}
