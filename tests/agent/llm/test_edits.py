"""Replies as models write them, well and badly formed, in tests/agent/replies."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from autoresearch.agent.llm.edits import apply_reply
from autoresearch.agent.llm.replies import EditError, read_header
from autoresearch.core.trainfile.fingerprint import fingerprint

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPLIES = Path(__file__).parent / "replies"
BASE = (REPLIES / "base_train.text").read_text(encoding="utf-8")
OUTCOMES = tomllib.loads((REPLIES / "outcomes.toml").read_text(encoding="utf-8"))
TRIED = {fingerprint(BASE.replace("\nLR = 0.1", "\nLR = 0.77"))}


def reply_of(name: str) -> str:
    return (REPLIES / f"{name}.txt").read_bytes().decode()


@pytest.mark.parametrize("name", [name for name, one in OUTCOMES.items() if "applied" in one])
def test_a_reply_that_is_applied_gives_exactly_the_intended_file(name):
    intended = BASE
    for old, new in OUTCOMES[name]["changes"]:
        assert intended.count(old) == 1
        intended = intended.replace(old, new)
    edited = apply_reply(reply_of(name), BASE, tried=TRIED)
    assert edited.source == intended
    assert list(edited.rungs) == OUTCOMES[name]["applied"]


@pytest.mark.parametrize("name", [name for name, one in OUTCOMES.items() if "refused" in one])
def test_a_reply_that_cannot_be_trusted_is_refused_with_its_reason(name):
    with pytest.raises(EditError) as caught:
        apply_reply(reply_of(name), BASE, tried=TRIED)
    assert caught.value.kind == OUTCOMES[name]["refused"]


def test_the_corpus_is_large_and_every_reply_in_it_has_an_outcome():
    assert {path.stem for path in REPLIES.glob("*.txt")} == set(OUTCOMES)
    kinds = Counter(one["applied"][0] if "applied" in one else "refused" for one in OUTCOMES.values())
    assert sum(kinds.values()) >= 90
    assert min(kinds[rung] for rung in ("exact", "trailing whitespace", "indentation", "whole file")) >= 3


def test_lines_that_are_not_found_are_answered_with_the_nearest_ones():
    with pytest.raises(EditError, match=r"9: MUON_LR = 0\.02"):
        apply_reply("<<<<<<< SEARCH\nMUON_LR = 0.03\n=======\nMUON_LR = 1\n>>>>>>> REPLACE\n", BASE)


def test_lines_that_fit_twice_are_answered_with_where():
    with pytest.raises(EditError, match=r"2 places \(lines 17, 29\)"):
        apply_reply("<<<<<<< SEARCH\n        self.dim = dim\n=======\n>>>>>>> REPLACE\n", BASE)


@pytest.mark.parametrize(
    "reply", ["<think>" * 50_000, "```" + "a" * 200_000 + "`", "<<<<<<< SEARCH" + " " * 200_000 + "x y"]
)
def test_a_reply_that_is_long_and_broken_is_refused_at_once(reply):
    with pytest.raises(EditError):
        apply_reply(reply, BASE, tried=TRIED)


def test_a_file_above_the_size_limit_is_refused():
    large = BASE + "\nX = [\n" + "    123456789,\n" * 20_000 + "]\n"
    with pytest.raises(EditError) as caught:
        apply_reply(f"```python\n{large}```\n", BASE)
    assert caught.value.kind == "too large"


def test_a_whole_file_is_refused_where_only_blocks_are_wanted():
    with pytest.raises(EditError):
        apply_reply("```python\n" + BASE.replace("0.02", "0.03") + "```\n", BASE, whole=False)


@pytest.mark.parametrize(
    "comment",
    [
        "# other parameters use AdamW, as is usual",
        "# remaining steps: the rate is constant",
        "# existing rows stay frozen; new ones are learned",
        "# the rest of the batch is dropped",
        "# same as above but for values",
        "# other heads remain in fp32",
        "# the same code path serves both",
    ],
)
def test_a_comment_that_only_begins_like_an_omission_is_applied(comment):
    reply = f"<<<<<<< SEARCH\nMUON_LR = 0.02\n=======\n{comment}\nMUON_LR = 0.03\n>>>>>>> REPLACE\n"
    assert apply_reply(reply, BASE).source == BASE.replace("MUON_LR = 0.02", f"{comment}\nMUON_LR = 0.03")


@pytest.mark.parametrize(
    "comment",
    [
        "# (rest of the file remains the same)",
        "# existing code here",
        "# The rest of the model stays exactly as it is.",
        "# rest of code omitted for brevity",
        "... existing code ...",
        "# same as before",
    ],
)
def test_a_line_in_place_of_others_is_refused(comment):
    reply = f"<<<<<<< SEARCH\nMUON_LR = 0.02\n=======\nMUON_LR = 0.03\n{comment}\n>>>>>>> REPLACE\n"
    with pytest.raises(EditError, match="left out"):
        apply_reply(reply, BASE)


def test_windows_line_ends_and_a_byte_order_mark_leave_the_header_as_it_is():
    header = "HYPOTHESIS: more\nFINDING: night#12\nDROP:\nRISK: low\n"
    assert read_header("\ufeff" + header.replace("\n", "\r\n")) == read_header(header)
    assert (read_header(header).finding, read_header(header).drop) == ("night#12", "")
    block = "\ufeff<<<<<<< SEARCH\r\nMUON_LR = 0.02\r\n=======\r\nMUON_LR = 0.03\r\n>>>>>>> REPLACE\r\n"
    assert apply_reply(block, BASE).source == BASE.replace("MUON_LR = 0.02", "MUON_LR = 0.03")
