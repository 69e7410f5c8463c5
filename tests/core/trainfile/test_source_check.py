"""What is wrong with a train file at first sight is said without running it."""

from __future__ import annotations

import pytest

from autoresearch.core.trainfile.source_check import SourceFault, check_source, vocab_size_of

GOOD = """
VOCAB_SIZE = 512
def build(spec): ...
def train(model, data, clock): ...
def logits(model, tokens): ...
"""


def test_a_complete_file_gives_its_vocabulary() -> None:
    assert check_source(GOOD, (512, 1024)) == 512


def test_an_annotated_vocabulary_counts() -> None:
    assert vocab_size_of("VOCAB_SIZE: int = 1024") == 1024


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def build(:\n", "syntax error in line 1"),
        ("x = 1\n  y = 2\n", "syntax error in line 2"),
        (GOOD.replace("def train", "def practise"), "does not define train"),
        (GOOD.replace("VOCAB_SIZE = 512", ""), "does not set VOCAB_SIZE"),
        (GOOD.replace("512", "2 ** 9"), "literal integer"),
        (GOOD.replace("512", "True"), "literal integer"),
        (GOOD.replace("512", "513"), "not a prepared vocabulary (512, 1024)"),
        (GOOD + "#" * 300_000, "the limit is 262144"),
        ("x = '\0'", "null byte"),
        ("(" * 5000, "line 1"),
    ],
)
def test_a_fault_is_named(source: str, words: str) -> None:
    with pytest.raises(SourceFault) as caught:
        check_source(source, (512, 1024))
    assert words in str(caught.value)
