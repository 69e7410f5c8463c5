import json
import random

import pytest

from autoresearch.core.cli import main

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder of small text files, and a data folder of its own."""
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "texts"
    folder.mkdir()
    draw = random.Random(0)
    for number in range(60):
        lines = [" ".join(draw.choices(WORDS, k=12)) + f" {draw.random()}\n" for _ in range(60)]
        (folder / f"{number:02}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def prepare(*arguments):
    return main.run(["--backend", "null", "--preset", "demo", "prepare", "--val-bytes", "20000", *map(str, arguments)])


def test_a_folder_of_texts_is_prepared_and_described(corpus, capsys):
    assert prepare("--corpus", corpus, "--vocab", "300,400", "--seq-len", "64,128", "--json") == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert [vocabulary["size"] for vocabulary in facts["vocabularies"]] == [300, 400]
    assert [vocabulary["seq_lens"] for vocabulary in facts["vocabularies"]] == [[64, 128]] * 2
    assert facts["splits"]["val"]["bytes"] >= 20_000
    assert 0 < facts["yardsticks"]["xz_bpb"] < 8
    assert "vocabulary 300" in captured.err

    assert prepare("--corpus", corpus, "--vocab", "300", "--quiet") == 0
    captured = capsys.readouterr()
    assert "300" in captured.out
    assert "gzip" in captured.out
    assert captured.err == ""


def test_a_missing_folder_is_named(corpus, capsys):
    assert prepare("--corpus", corpus / "nowhere") == 2
    err = capsys.readouterr().err
    assert "nowhere" in err
    assert "Fix:" in err


def test_a_file_that_is_not_utf8_is_named(corpus, capsys):
    (corpus / "latin.txt").write_bytes("caf\xe9 au lait".encode("latin-1") * 100)
    assert prepare("--corpus", corpus, "--vocab", "300") == 1
    err = capsys.readouterr().err
    assert "latin.txt" in err
    assert "UTF-8" in err
    assert "Traceback" not in err


def test_a_vocabulary_too_large_for_the_corpus_is_refused(corpus, capsys):
    assert prepare("--corpus", corpus, "--vocab", "60000") != 0
    err = capsys.readouterr().err
    assert "60000" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("value", ["many", "", "300,", "-5"])
def test_what_is_no_list_of_sizes_is_a_usage_error(corpus, capsys, value):
    assert prepare("--corpus", corpus, "--vocab", value) == 2
    assert "--vocab" in capsys.readouterr().err
