from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_corpora import quiet

from autoresearch.core.data.corpora import open_corpus
from autoresearch.core.data.files import read_documents
from autoresearch.core.errors import DataError, UsageError

ODD = ["plain", "NUL \0 and\r\nCRLF", "\ufeffmark", "▁ ▁", "e\u0301\u0301", "", "日本語" * 50]


def read(*paths: Path, limit: int = 1 << 20) -> list[str]:
    return [text for block in read_documents(paths, limit) for text in block.texts()]


def test_every_kind_of_file_keeps_its_text_to_the_byte(tmp_path: Path) -> None:
    kept = [text for text in ODD if text]
    for number, text in enumerate(kept):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    (tmp_path / "a.md").write_bytes(b"# title\r\n")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"text": text, "id": 1}) for text in ODD) + "\n\n")
    pq.write_table(pa.table({"text": [*ODD, None], "n": range(len(ODD) + 1)}), tmp_path / "c.parquet")
    corpus = open_corpus(str(tmp_path), tmp_path, None, quiet)
    assert [path.name for path in corpus.files][-3:] == ["a.md", "b.jsonl", "c.parquet"]
    assert read(*corpus.files) == [*kept, "# title\r\n", *kept, *kept]


def test_parquet_of_other_string_types_and_many_row_groups_reads_alike(tmp_path: Path) -> None:
    texts = [f"document {number} é" for number in range(10_000)]
    for name, kind in (("a", pa.large_string()), ("b", pa.dictionary(pa.int32(), pa.string()))):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"text": pa.array(texts).cast(kind)}), path, row_group_size=777)
        assert read(path) == texts


def test_long_documents_are_split_at_lines(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("one\ntwo\nthree\n")
    pq.write_table(pa.table({"text": ["one\ntwo\nthree\n"]}), tmp_path / "long.parquet")
    assert read(tmp_path / "long.txt", tmp_path / "long.parquet", limit=9) == ["one\ntwo\n", "three\n"] * 2


def test_hidden_and_unknown_files_are_left_out(tmp_path: Path) -> None:
    for name in (".git/x.txt", "sub/y.txt", "z.bin", ".hidden.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.name for path in open_corpus(str(tmp_path), tmp_path, None, quiet).files] == ["y.txt"]


def test_a_folder_that_cannot_be_read_and_a_broken_link_are_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "linked.bin").symlink_to(tmp_path / "gone")
    (tmp_path / ".#a.txt").symlink_to("what an editor leaves")
    (tmp_path / "linked.txt").symlink_to(tmp_path / "a.txt")
    found = open_corpus(str(tmp_path), tmp_path, None, quiet).files
    assert [path.name for path in found] == ["a.txt", "linked.txt"]
    (tmp_path / "b.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"b\.txt is a link to a file that is not there\. Fix: restore"):
        open_corpus(str(tmp_path), tmp_path, None, quiet)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def closed(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"closed cannot be read: Permission denied\. Fix: check the folder"):
        open_corpus(str(tmp_path), tmp_path, None, quiet)


def test_linked_folders_that_are_not_walked_are_named_in_one_line(tmp_path: Path) -> None:
    for name in ("corpus/a.txt", "corpus/sub/b.txt", "elsewhere/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    corpus, told = tmp_path / "corpus", []
    (corpus / "again").symlink_to(corpus / "sub")  # read where it lies
    (corpus / ".hidden").symlink_to(tmp_path / "elsewhere")
    assert len(open_corpus(str(corpus), tmp_path, None, told.append).files) == 2 and told == []
    for name in ("one", "sub/two"):
        (corpus / name).symlink_to(tmp_path / "elsewhere")
    assert [path.name for path in open_corpus(str(corpus), tmp_path, None, told.append).files] == ["a.txt", "b.txt"]
    (line,) = told
    assert line.startswith(f"{corpus / 'one'} and 1 more: a link to a folder is not followed")


def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9 au lait")
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8 text: byte 3 is 0xE9 .* Fix: convert"):
        read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        (b'{"text": "a"}\n\n{"body": "a"}\n', "line 3 has no string 'text'"),
        (b'["text"]\n', "line 1 has no string 'text'"),
        (b'{"text": 3}\n', "line 1 has no string 'text'"),
        (b'{"text": "ab\\ud800"}\n', "line 1 holds half of a surrogate pair at character 2"),
        (b'{"text": "a"}\n' + b"[" * 100_000 + b"\n", "line 2 is not JSON"),
        (b'{"text": "\xff"}\n', "is not UTF-8 text: byte 10"),
    ],
)
def test_bad_json_lines_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.fix


def test_unreadable_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read as parquet"):
        read(path)
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
    with pytest.raises(DataError, match=r"no column 'text' \(it has body, n\)"):
        read(path)
    pq.write_table(pa.table({"text": ["x" * 1000] * 5000}), path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 2])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read(path)


def test_parquet_numbers_are_no_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [b"\xff\xfe", b"ok"]}), tmp_path / "binary.parquet")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read(tmp_path / "binary.parquet")


def test_missing_empty_and_unknown_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no corpus .*nowhere.* Fix: stdlib, climbmix, tinystories"):
        open_corpus(str(tmp_path / "nowhere"), tmp_path, None, quiet)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no text to read"):
        open_corpus(str(tmp_path / "empty"), tmp_path, None, quiet)
    (tmp_path / "x.docx").write_text("x")
    with pytest.raises(DataError, match="of no known kind"):
        open_corpus(str(tmp_path / "x.docx"), tmp_path, None, quiet)


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), ("one line only\n", "too little to split")])
def test_a_corpus_without_enough_text_is_named(tmp_path: Path, content: str, message: str) -> None:
    from autoresearch.core.data.splits import hold_out

    (tmp_path / "only.txt").write_text(content)
    corpus = open_corpus(str(tmp_path), tmp_path, None, quiet)
    with pytest.raises(DataError, match=message):
        hold_out(corpus, 1000, 1000)
