"""`ar prepare`: make a corpus ready for trials. A second call does only what is missing or out of date.

Everything is built in a temporary folder and renamed when it is complete. The manifest is written last, and a file that
it does not list does not count. A file lock keeps two calls from building the same folder at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from autoresearch.core.data.build import build_rows, build_text, build_vocabulary
from autoresearch.core.data.corpora import STDLIB, Corpus, check_corpus, open_corpus
from autoresearch.core.data.hub import HUB_CORPORA
from autoresearch.core.data.manifest import (
    LONGEST_ROW,
    MANIFEST,
    Manifest,
    Prepared,
    PrepareOptions,
    RowsRecord,
    VocabularyRecord,
)
from autoresearch.core.data.storage import as_data_error
from autoresearch.core.data.tokenizer import MAX_VOCABULARY
from autoresearch.core.data.turns import turn
from autoresearch.core.errors import DataError, UsageError
from autoresearch.core.files import sync_folder, write_file
from autoresearch.core.home import expand_home

Progress = Callable[[str], None]


def prepared_folder(options: PrepareOptions, data_dir: Path) -> Path:
    """Return the folder for these options. Vocabularies and T share one; another corpus or split size has its own."""
    corpus = options.corpus
    if corpus != STDLIB and corpus not in HUB_CORPORA:
        corpus = str(expand_home(corpus).resolve())
    defining = json.dumps([corpus, options.val_bytes, options.test_bytes, options.shards])
    slug = re.sub(r"[^a-z0-9]+", "-", Path(corpus).name.lower()).strip("-")[:40] or "corpus"
    return data_dir / f"{slug}-{hashlib.sha256(defining.encode()).hexdigest()[:10]}"


def prepare(options: PrepareOptions, data_dir: Path, progress: Progress) -> Prepared:
    """Prepare a corpus, or the missing parts of it. `progress` is called with a line for each step.

    Raises `DataError` when text cannot be read, fetched, split, encoded or written, `UsageError` for wrong options.
    """
    _check_options(options)
    folder = prepared_folder(options, data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with turn(data_dir / f".{folder.name}.lock", folder, progress):
            return _prepare(options, folder, data_dir, progress)
    except OSError as error:
        raise as_data_error(error, data_dir) from error


def _prepare(options: PrepareOptions, folder: Path, data_dir: Path, progress: Progress) -> Prepared:
    corpus = open_corpus(options.corpus, data_dir, options.shards, progress)
    manifest = _valid_manifest(folder, corpus, progress)
    if manifest is None:
        manifest = _rebuild(corpus, options, folder, progress)
    for size in options.vocabularies:
        if all(record.size != size for record in manifest.vocabularies):
            manifest = _add_vocabulary(size, manifest, folder, progress)
    for size in options.vocabularies:
        manifest = _add_rows(size, options.seq_lens, manifest, folder, progress)
    return Prepared(folder, manifest)


def _valid_manifest(folder: Path, corpus: Corpus, progress: Progress) -> Manifest | None:
    """Return the manifest without changed vocabularies. Say why, and return None, when all must be made again."""
    if not folder.exists():
        return None
    try:
        prepared = Prepared.open(folder)
        manifest = prepared.manifest
        if manifest.source.stamp != corpus.stamp:
            if manifest.source.content_sha256 != corpus.content_sha256():
                raise DataError(f"the text of {corpus.name} has changed.")
            manifest = manifest.model_copy(
                update={"source": manifest.source.model_copy(update={"stamp": corpus.stamp})}
            )
            _write_manifest(manifest, folder)
        Prepared(folder, manifest).quick_check_text()
    except DataError as error:
        progress(f"{error.message} Preparing again.")
        return None
    return _without_changed_vocabularies(Prepared(folder, manifest), progress)


def _without_changed_vocabularies(prepared: Prepared, progress: Progress) -> Manifest:
    unchanged = []
    for record in prepared.manifest.vocabularies:
        try:
            prepared.quick_check(record.size)
            unchanged.append(record)
        except DataError as error:
            progress(f"{error.message} Making vocabulary {record.size} again.")
    return prepared.manifest.model_copy(update={"vocabularies": tuple(unchanged)})


def _rebuild(corpus: Corpus, options: PrepareOptions, folder: Path, progress: Progress) -> Manifest:
    folder = folder.resolve()  # where it is a link to another disk, it stays one
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        manifest = build_text(corpus, options, building, progress)
        _write_manifest(manifest, building)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _add_vocabulary(size: int, manifest: Manifest, folder: Path, progress: Progress) -> Manifest:
    name = f"vocab-{size}"
    building = folder / f".{name}.building"
    for old in (building, folder / name):
        shutil.rmtree(old, ignore_errors=True)
    building.mkdir()
    try:
        record = build_vocabulary(size, manifest, folder, building, progress)
        building.rename(folder / name)
        sync_folder(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    moved = VocabularyRecord.model_validate_json(record.model_dump_json().replace(f'"{building.name}/', f'"{name}/'))
    return _with_vocabulary(moved, manifest, folder)


def _add_rows(size: int, seq_lens: tuple[int, ...], manifest: Manifest, folder: Path, progress: Progress) -> Manifest:
    record = Prepared(folder, manifest).vocabulary(size)
    there = {(rows.split, rows.seq_len) for rows in record.rows}
    added: list[RowsRecord] = []
    for seq_len in sorted(set(seq_lens)):
        for split in ("val", "test"):
            if (split, seq_len) not in there:
                progress(f"vocabulary {size}: rows of {split} at T = {seq_len}")
                added.append(build_rows(record, split, seq_len, manifest.splits[split].bytes, folder))
    if not added:
        return manifest
    return _with_vocabulary(record.model_copy(update={"rows": (*record.rows, *added)}), manifest, folder)


def _with_vocabulary(record: VocabularyRecord, manifest: Manifest, folder: Path) -> Manifest:
    others = [other for other in manifest.vocabularies if other.size != record.size]
    ordered = tuple(sorted([*others, record], key=lambda each: each.size))
    manifest = manifest.model_copy(update={"vocabularies": ordered})
    _write_manifest(manifest, folder)
    return manifest


def _write_manifest(manifest: Manifest, folder: Path) -> None:
    write_file(folder / MANIFEST, [manifest.model_dump_json(indent=1).encode() + b"\n"])


def _check_options(options: PrepareOptions) -> None:
    if not options.vocabularies:
        raise UsageError("no vocabulary to prepare.", fix="--vocab 2048")
    for size in options.vocabularies:
        if not 2 <= size <= MAX_VOCABULARY:
            raise UsageError(
                f"a vocabulary of {size} is impossible.", fix=f"--vocab 2048, for example; at most {MAX_VOCABULARY}"
            )
    if max(options.seq_lens, default=0) > LONGEST_ROW:
        raise UsageError(
            f"scored rows of {max(options.seq_lens)} tokens are too long.", fix=f"--seq-len {LONGEST_ROW} at most"
        )
    if min(options.seq_lens, default=0) < 1:
        raise UsageError("the sequence length at scoring must be at least 1.", fix="eval_seq_len = 256 in the preset")
    if options.val_bytes < 1 or options.test_bytes < 1:
        raise UsageError("val and test need at least one byte each.", fix="val_bytes = 500000 in the preset")
    if options.shards is not None and options.shards < 1:
        raise UsageError("at least one shard of a hub corpus is needed.", fix="--shards 4")
    check_corpus(options.corpus)
