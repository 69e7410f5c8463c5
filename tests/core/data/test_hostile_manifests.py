"""Whatever lies in the place of manifest.json, readers say in one line what is wrong, and stay in the folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoresearch.core.cli.checks import check_data
from autoresearch.core.data.manifest import Manifest, Prepared
from autoresearch.core.data.prepared_files import MANIFEST, check_file, checked_shards
from autoresearch.core.data.scored_rows import rows_sha256
from autoresearch.core.errors import DataError

VOCAB = 512
HUGE = 10**400


@pytest.fixture(scope="module")
def good(prepared: Prepared) -> dict[str, Any]:
    """What a sound manifest holds."""
    found: dict[str, Any] = json.loads((prepared.folder / MANIFEST).read_bytes())
    return found


def put(good: dict[str, Any], place: str, value: object) -> dict[str, Any]:
    """Return the manifest with another value at a place such as `splits.val.bytes`; Ellipsis takes it out."""
    at: Any = (changed := copy.deepcopy(good))
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        at = at[part]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return changed


FAULTS = (
    ("splits.val", ..., "it names no text of val"),
    ("splits.val.files", [], "it names no text of val"),
    ("splits", "x", "splits: Input should be"),
    ("source", ..., "source: Field required"),
    ("more", 1, "more: Extra inputs"),
    ("vocabularies", "x", "vocabularies: Input should be"),
    ("vocabularies.0.size", HUGE, r"vocabularies\.0\.size: Input should be"),
    ("vocabularies.0.size", -5, r"vocabularies\.0\.size: Input should be"),
    ("vocabularies.0.size", "512", r"vocabularies\.0\.size: Input should be"),
    ("vocabularies.0.train_tokens", True, r"train_tokens: Input should be"),
    ("vocabularies.0.rows.0.total_bytes", 0, r"total_bytes: Input should be"),
    ("vocabularies.0.rows.0.seq_len", -256, r"seq_len: Input should be"),
    ("vocabularies.0.train", [], r"vocabularies\.0\.train: Tuple should have at least 1"),
    ("vocabularies.0.train_tokens", 0, r"train_tokens: Input should be"),
    ("vocabularies.0.rows.0.rows", 0, r"rows\.0\.rows: Input should be"),
    ("vocabularies.0.rows.0.targets", 0, r"targets: Input should be"),
    ("splits.train.bytes", HUGE, r"splits\.train\.bytes: Input should be"),
    ("yardsticks.gzip_bpb", float("nan"), r"gzip_bpb: Input should be"),
    ("yardsticks.xz_bpb", float("inf"), r"xz_bpb: Input should be"),
    ("format", 2, "has format 2, now it is 1"),
)


@pytest.mark.parametrize(("place", "value", "words"), FAULTS)
def test_a_wrong_value_is_named_with_its_place(
    good: dict[str, Any], tmp_path: Path, place: str, value: object, words: str
) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(put(good, place, value)))
    with pytest.raises(DataError, match=words) as told:
        Prepared.open(tmp_path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 600 and told.value.fix == "run `ar prepare` again"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a\0b", "", ".", "a//b", "a\nb", "\x1b[31m", "x" * 5000]
)
@pytest.mark.parametrize("place", ["vocabularies.0.tokenizer.path", "vocabularies.0.rows.0.file.path"])
def test_a_path_that_leads_elsewhere_is_never_followed(
    good: dict[str, Any], tmp_path: Path, place: str, path: str
) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(put(good, place, path)))
    for read in (Prepared.open, lambda folder: checked_shards(folder, VOCAB)):
        with pytest.raises(DataError, match=r"manifest\.json cannot be read: .* names no file in the prepared folder"):
            read(tmp_path)


def test_a_vocabulary_that_is_named_twice_is_refused(good: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it names a vocabulary twice"):
        Manifest.model_validate(put(good, "vocabularies", good["vocabularies"] * 2))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _vast(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


OBJECTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (lambda path: path.mkdir(), "it is a folder, not a file"),
    "a pipe": (_pipe, "it is a pipe, not a file"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "manifest.json is a link, and only"),
    "a link to itself": (lambda path: path.symlink_to(path), "manifest.json is a link"),
    "a terabyte": (_vast, "at most 67,108,864 are read"),
    "lists without end": (lambda path: path.write_text("[" * 100_000), "Invalid JSON"),
    "UTF-16": (lambda path: path.write_text("{}", encoding="utf-16"), "it is not UTF-8 text: byte 0 is 0xFF"),
    "nothing": (lambda path: path.touch(), "Invalid JSON"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_what_is_no_manifest_is_one_clear_line_at_once(tmp_path: Path, kind: str) -> None:
    make, words = OBJECTS[kind]
    folder = tmp_path / "text"
    folder.mkdir()
    make(folder / MANIFEST)
    with pytest.raises(DataError, match=words):
        Prepared.open(folder)
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        checked_shards(folder, VOCAB)
    assert check_data(tmp_path).status == "warn"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("vocabularies", [], "has no vocabulary yet"),
        ("vocabularies.0.rows", [], "has no rows to score with vocabulary 512 yet"),
        ("vocabularies.0.rows.0.split", "test", "has no rows to score with vocabulary 512 yet"),
    ],
)
def test_doctor_names_the_command_that_goes_on_where_prepare_was_interrupted(
    prepared: Prepared, good: dict[str, Any], tmp_path: Path, place: str, value: object, words: str
) -> None:
    folder = shutil.copytree(prepared.folder, tmp_path / "text")
    assert check_data(tmp_path).status == "pass"
    hollow = put(good, place, value)
    (folder / MANIFEST).write_text(json.dumps({**hollow, "vocabularies": hollow["vocabularies"][:1]}))
    found = check_data(tmp_path)
    assert (found.status, found.detail) == ("warn", f"{folder} {words}")
    size = " --vocab 512" if place != "vocabularies" else ""
    corpus, held_out = good["source"]["corpus"], good["val_bytes"]
    assert found.fix == f"ar prepare --corpus {corpus}{size} --val-bytes {held_out}"


@pytest.mark.parametrize("name", [MANIFEST, "vocab-512", "text", "tokenizer.model"])
def test_a_link_in_the_folder_is_not_followed_and_the_folder_may_be_one(
    prepared: Prepared, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(prepared.folder, tmp_path / "elsewhere" / "corpus")
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    Prepared.open(link).verify()
    assert checked_shards(link, VOCAB) == [link / path.relative_to(folder) for path in checked_shards(folder, VOCAB)]
    place = next(folder.rglob(name))
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    words = f"{place.relative_to(folder)} is a link, and only what lies in the folder itself is read"
    for read in (Prepared.open, lambda folder: checked_shards(folder, VOCAB)):
        if name == "text" and read is not Prepared.open:  # a feeder reads no text
            continue
        with pytest.raises(DataError, match=words) as told:
            read(link)
        assert "\n" not in str(told.value) and "ar prepare" in str(told.value.fix)


def test_a_pipe_in_a_prepared_file_s_place_is_a_changed_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="has changed since it was prepared"):
        check_file(tmp_path / "pipe", 0, 0, "0" * 64, trust_time=False)


def test_rows_of_another_kind_are_refused_although_their_tokens_hash_alike(prepared: Prepared, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared.folder, tmp_path / "corpus")
    record = next(one for one in prepared.vocabulary(VOCAB).rows if one.split == "val")
    with np.load(folder / record.file.path) as stored:
        rows, mask = stored["rows"].astype(np.float64) + 0.25, stored["mask"]
    np.savez(folder / record.file.path, rows=rows, mask=mask)
    assert rows_sha256(rows, np.unpackbits(mask), 1) == rows_sha256(rows.astype(np.uint16), np.unpackbits(mask), 1)
    with pytest.raises(DataError, match="cannot be read: it holds no rows of that length"):
        Prepared.open(folder).scored_rows("val", VOCAB, record.seq_len)
