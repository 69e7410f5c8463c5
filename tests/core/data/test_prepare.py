from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_corpora import SEQ, VOCAB, options, prose, quiet, write_corpus

from autoresearch.core.data.build import yardsticks
from autoresearch.core.data.corpora import open_corpus
from autoresearch.core.data.manifest import Prepared, PrepareOptions
from autoresearch.core.data.prepare import prepare, prepared_folder
from autoresearch.core.data.prepared_files import MANIFEST
from autoresearch.core.data.shards import open_shard
from autoresearch.core.data.tokenizer import Tokenizer
from autoresearch.core.errors import DataError, UsageError


class Told:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, message: str) -> None:
        self.lines.append(message)

    def __contains__(self, part: str) -> bool:
        return any(part in line for line in self.lines)


def texts(prepared: Prepared, split: str) -> list[bytes]:
    records = prepared.manifest.splits[split].files  # type: ignore[index]
    return [document for record in records for document in open_shard(prepared.folder / record.path).documents()]


def test_every_document_goes_to_exactly_one_split(small_prepared: Prepared) -> None:
    splits = {name: texts(small_prepared, name) for name in ("train", "val", "test")}
    everything = sorted(document for documents in splits.values() for document in documents)
    assert everything == sorted(prose(number, 12).encode() for number in range(60))
    for name in ("val", "test"):
        record = small_prepared.manifest.splits[name]  # type: ignore[index]
        assert 0.9 * 12_000 <= record.bytes <= 1.1 * 12_000
        assert record.bytes == sum(map(len, splits[name]))


def test_every_byte_of_a_held_out_split_is_scored(small_prepared: Prepared) -> None:
    tokenizer = Tokenizer.open(small_prepared.tokenizer_path(VOCAB))
    for split in ("val", "test"):
        scored = small_prepared.scored_rows(split, VOCAB, SEQ)  # type: ignore[arg-type]
        documents = texts(small_prepared, split)
        encoded = tokenizer.encode([document.decode() for document in documents])
        assert scored.total_bytes == sum(map(len, documents))
        assert int(scored.mask.sum()) == sum(map(len, encoded))
        counted = np.bincount(scored.rows[:, 1:][scored.mask], minlength=VOCAB)
        assert np.array_equal(counted, np.bincount(np.concatenate(encoded), minlength=VOCAB))


def test_a_second_call_does_nothing_and_additions_do_only_what_is_missing(tmp_path: Path) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"
    first = prepare(options(corpus), data, quiet)
    told = Told()
    again = prepare(options(corpus), data, told)
    assert told.lines == []
    assert again.manifest == first.manifest
    added = prepare(options(corpus, (VOCAB, 400), (SEQ, 64)), data, told)
    assert "splitting" not in told
    assert f"vocabulary {VOCAB}: learning" not in told
    assert "vocabulary 400: learning" in told
    assert f"vocabulary {VOCAB}: rows of val at T = 64" in told
    assert added.vocabularies == (VOCAB, 400)
    assert added.manifest.splits == first.manifest.splits
    added.verify()
    for vocab in added.vocabularies:
        for seq in (SEQ, 64):
            assert added.scored_rows("val", vocab, seq).rows.shape[1] == seq + 1


def test_preparing_elsewhere_gives_the_same_checksums(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    sums = []
    for name in ("a", "b"):
        prepared = prepare(options(corpus), tmp_path / name, quiet)
        sums.append([record.sha256 for record in prepared.manifest.files()])
    assert sums[0] == sums[1]


def test_a_changed_input_is_noticed_and_prepared_again(tmp_path: Path) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"
    before = prepare(options(corpus), data, quiet)
    status = (corpus / "007.txt").stat()
    text = (corpus / "007.txt").read_text()
    (corpus / "007.txt").write_text(text.swapcase())
    os.utime(corpus / "007.txt", ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time
    told = Told()
    after = prepare(options(corpus), data, told)
    assert "has changed. Preparing again." in told
    assert after.manifest.source.content_sha256 != before.manifest.source.content_sha256
    (corpus / "new.txt").write_text(prose(99, 5))
    prepare(options(corpus), data, told := Told())
    assert "has changed. Preparing again." in told


def test_a_touched_input_with_the_same_content_is_not_prepared_again(tmp_path: Path) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"
    prepare(options(corpus), data, quiet)
    (corpus / "007.txt").touch()
    told = Told()
    prepare(options(corpus), data, told)
    assert told.lines == []


def test_an_input_that_changes_while_it_is_read_is_refused_and_read_anew(tmp_path: Path) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"

    def download_goes_on(message: str) -> None:
        if message.startswith("splitting"):
            (corpus / "007.txt").write_text(prose(700, 12))

    with pytest.raises(DataError, match="has changed while it was read"):
        prepare(options(corpus), data, download_goes_on)
    prepared = prepare(options(corpus), data, quiet)
    everything = {document for split in ("train", "val", "test") for document in texts(prepared, split)}
    assert prose(700, 12).encode() in everything


def test_other_split_sizes_have_a_folder_of_their_own(tmp_path: Path) -> None:
    one = options("stdlib")
    assert prepared_folder(one, tmp_path) == prepared_folder(options("stdlib", (9,), (7,)), tmp_path)
    other = PrepareOptions("stdlib", (VOCAB,), (SEQ,), val_bytes=1, test_bytes=12_000)
    assert prepared_folder(one, tmp_path) != prepared_folder(other, tmp_path)


@pytest.mark.parametrize("damage", ["byte", "missing", "short"])
def test_a_changed_artifact_is_found_and_made_again(tmp_path: Path, damage: str) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"
    prepared = prepare(options(corpus), data, quiet)
    for record in [prepared.manifest.splits["train"].files[0], prepared.vocabulary(VOCAB).train[0]]:
        path = prepared.folder / record.path
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(content[:-1] if damage == "short" else content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DataError, match=r"Fix: run `ar prepare` again") as caught:
            prepared.verify()
        assert str(path) in str(caught.value)
        told = Told()
        prepared = prepare(options(corpus), data, told)
        assert "again" in told
        prepared.verify()
        assert path.read_bytes() == content


def test_changed_rows_are_not_scored(tmp_path: Path, small_prepared: Prepared) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_prepared.folder, folder)
    copy = Prepared.open(folder)
    path = folder / copy.vocabulary(VOCAB).rows[0].file.path
    with np.load(path) as stored:
        rows, mask = stored["rows"].copy(), stored["mask"]
    rows[0, 1] ^= 1
    with path.open("wb") as file:
        np.savez(file, rows=rows, mask=mask)
    with pytest.raises(DataError, match="has changed since it was prepared"):
        copy.scored_rows("val", VOCAB, SEQ)
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        copy.scored_rows("val", VOCAB, SEQ)


def test_a_copy_with_other_times_passes_the_quick_check(tmp_path: Path, small_prepared: Prepared) -> None:
    shutil.copytree(small_prepared.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = Prepared.open(tmp_path / "copy")
    copy.quick_check(VOCAB)
    copy.verify()


def test_what_is_not_prepared_is_named_with_what_is(small_prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"vocabulary 999 is not prepared \(there is: {VOCAB}\)"):
        small_prepared.train_shards(999)
    with pytest.raises(DataError, match=r"no scored rows of test .* T = 5"):
        small_prepared.scored_rows("test", VOCAB, 5)
    with pytest.raises(DataError, match="is not a prepared corpus"):
        Prepared.open(tmp_path)
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        Prepared.open(tmp_path)


def test_duplicates_and_shared_runs_are_removed_from_train_and_counted(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    held = texts(prepare(options(corpus), tmp_path / "first", quiet), "val")
    (corpus / "again.txt").write_bytes(held[0])
    run = held[1][200:900]
    quotes = prose(500, 3).encode() + run + b"\n" + prose(501, 3).encode()
    (corpus / "quotes.txt").write_bytes(quotes)
    told = Told()
    prepared = prepare(options(corpus), tmp_path / "second", told)
    train = b"\xff".join(texts(prepared, "train"))
    for document in texts(prepared, "val") + texts(prepared, "test"):
        assert document not in train
    held_now = texts(prepared, "val") + texts(prepared, "test")
    assert held[1] in held_now and quotes not in held_now, "choose other texts: this test needs one on each side"
    assert run[250:450] not in train
    assert prepared.manifest.removed.overlap_documents == 1
    assert prepared.manifest.removed.overlap_bytes >= 600
    removed = prepared.manifest.removed
    assert (removed.duplicate_documents, removed.duplicate_bytes) == (1, len(held[0]))
    assert "1 duplicates" in told


def test_one_huge_file_is_split_in_three_without_loss(tmp_path: Path) -> None:
    text = prose(1, 900)
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8", newline="")
    prepared = prepare(options(path), tmp_path / "data", quiet)
    parts = [document.decode() for split in ("train", "val", "test") for document in texts(prepared, split)]
    assert sorted("".join(parts)) == sorted(text)
    assert all(part in text for part in parts)
    assert prepared.manifest.splits["val"].documents >= 1


def test_the_library_corpus_leaves_tests_out() -> None:
    from autoresearch.core.data.corpora import open_corpus

    corpus = open_corpus("stdlib", Path(), None, quiet)
    names = {path.relative_to(corpus.root).as_posix() for path in corpus.files}
    assert {"argparse.py", "json/decoder.py"} <= names
    assert not {part for name in names for part in name.split("/")} & {"test", "tests", "idle_test", "site-packages"}
    assert 400 < len(names) < 1500


def test_yardsticks_are_bits_per_byte_of_the_val_text() -> None:
    marks = yardsticks(b"a" * 100_000)
    assert 0 < marks.gzip_bpb < 0.02
    assert 0 < marks.xz_bpb < 0.02
    noise = yardsticks(np.random.default_rng(0).bytes(100_000))
    assert noise.gzip_bpb == pytest.approx(8.0, abs=0.05)


def test_impossible_options_are_usage_errors(tmp_path: Path) -> None:
    for wrong in [
        PrepareOptions("stdlib", (), (SEQ,), 9, 9),
        PrepareOptions("stdlib", (VOCAB,), (0,), 9, 9),
        PrepareOptions("stdlib", (VOCAB,), (SEQ,), 0, 9),
        PrepareOptions("climbmix", (VOCAB,), (SEQ,), 9, 9, shards=0),
    ]:
        with pytest.raises(UsageError):
            prepare(wrong, tmp_path, quiet)


def test_a_vocabulary_too_large_for_the_corpus_leaves_the_others(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", documents=40, paragraphs=4)
    with pytest.raises(DataError, match="is too large for this corpus"):
        prepare(options(corpus, (VOCAB, 50_000)), tmp_path / "data", quiet)
    folder = prepared_folder(options(corpus), tmp_path / "data")
    assert Prepared.open(folder).vocabularies == (VOCAB,)
    assert not [path for path in folder.iterdir() if "building" in path.name]


RUN = """
import sys
from pathlib import Path
from autoresearch.core.data.manifest import PrepareOptions
from autoresearch.core.data.prepare import prepare
if len(sys.argv) > 3:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
prepare(PrepareOptions(sys.argv[1], (384,), (32,), 12_000, 12_000), Path(sys.argv[2]), lambda m: print(m, flush=True))
"""


def test_an_interrupted_prepare_leaves_nothing_that_is_believed(tmp_path: Path) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"
    for stop_at in ("splitting", "learning", "rows of val"):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(corpus), str(data)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if stop_at in line:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    prepared = prepare(options(corpus), data, quiet)
    prepared.verify()
    clean = prepare(options(corpus), tmp_path / "clean", quiet)
    assert [r.sha256 for r in prepared.manifest.files()] == [r.sha256 for r in clean.manifest.files()]
    assert not [path for path in data.rglob("*") if path.name.endswith((".building", ".partial"))]


def test_two_prepares_at_once_wait_for_each_other(tmp_path: Path) -> None:
    corpus, data = write_corpus(tmp_path / "corpus"), tmp_path / "data"
    argv = [sys.executable, "-c", RUN, str(corpus), str(data)]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("splitting" in output for output in outputs) == 1
    Prepared.open(prepared_folder(options(corpus), data)).verify()


def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    argv = [sys.executable, "-c", RUN, str(corpus), str(tmp_path / "data"), "50000"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "DataError: the disk is full" in result.stderr
    assert "AR_DATA_DIR" in result.stderr
    assert not [path for path in (tmp_path / "data").rglob("*") if path.name == MANIFEST]


def test_the_manifest_is_plain_json_with_every_checksum(small_prepared: Prepared) -> None:
    manifest = json.loads((small_prepared.folder / MANIFEST).read_text())
    listed = {record.path for record in small_prepared.manifest.files()}
    there = {path.relative_to(small_prepared.folder).as_posix() for path in small_prepared.folder.rglob("*.*")}
    assert there - {MANIFEST} == listed
    assert manifest["format"] == 1
    assert manifest["splits"]["val"]["bytes"] > 0


def test_a_link_inside_is_replaced_by_a_file_and_a_linked_folder_stays_on_its_disk(tmp_path: Path) -> None:
    wanted = options(write_corpus(tmp_path / "corpus", documents=20))
    first = prepare(wanted, tmp_path / "data", quiet)
    folder, other = first.folder, tmp_path / "other-disk" / "text"
    other.parent.mkdir()
    folder.rename(other)
    folder.symlink_to(other)
    assert prepare(wanted, tmp_path / "data", quiet).folder == folder
    shard = first.train_shards(VOCAB)[0]
    kept = shard.rename(tmp_path / "kept")
    shard.symlink_to(kept)
    told = Told()
    again = prepare(wanted, tmp_path / "data", told)
    assert "is a link" in told and not shard.is_symlink() and shard.read_bytes() == kept.read_bytes()
    assert folder.is_symlink() and folder.resolve() == other and again.folder == folder
    assert [path.name for path in other.parent.iterdir()] == ["text"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is UTF-8")
def test_a_texts_file_may_have_any_name_and_its_folder_one_that_a_record_can_hold(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/a\xe9.txt")).write_text("some text\n")
    corpus = open_corpus(str(folder), tmp_path, None, lambda _: None)
    assert len(corpus.content_sha256()) == len(corpus.stamp) == 64
    other = folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/texts\xff"))
    with pytest.raises(DataError, match="not UTF-8, which no record can hold"):
        open_corpus(str(other), tmp_path, None, lambda _: None)
