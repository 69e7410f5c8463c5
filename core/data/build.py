"""Build what `prepare` stores: split a corpus into train, val and test, and encode the splits into tokens and rows."""

from __future__ import annotations

import gzip
import io
import lzma
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from autoresearch.core.data.corpora import Corpus
from autoresearch.core.data.documents import Documents, join, offsets_of
from autoresearch.core.data.manifest import (
    FORMAT,
    FileRecord,
    Manifest,
    PrepareOptions,
    Removed,
    RowsRecord,
    Source,
    SplitRecord,
    VocabularyRecord,
    Yardsticks,
    file_record,
)
from autoresearch.core.data.overlap import Cut
from autoresearch.core.data.scored_rows import rows_sha256, score_rows
from autoresearch.core.data.shards import Shard, open_shard, write_shard
from autoresearch.core.data.splits import HeldOut, hold_out, train_documents
from autoresearch.core.data.tokenizer import Tokenizer, train_tokenizer
from autoresearch.core.errors import DataError
from autoresearch.core.files import write_file

Progress = Callable[[str], None]

SHARD_BYTES = 256 << 20
"""Size of the text in a training shard, in bytes."""
TOKENIZER_BYTES = 32 << 20
"""Size of the training text that a tokenizer learns from, in bytes, spread evenly over the documents."""
ENCODE_BYTES = 32 << 20
"""Size of the text that is encoded at once, in bytes."""


def build_text(corpus: Corpus, options: PrepareOptions, folder: Path, progress: Progress) -> Manifest:
    """Split the corpus and write its text. Returns a manifest without vocabularies.

    Raises `DataError` for text that cannot be split, or that somebody changes meanwhile.
    """
    progress(f"splitting {corpus.name}: {len(corpus.files) + len(corpus.held_out)} files")
    held = hold_out(corpus, options.val_bytes, options.test_bytes)
    for name, asked, got in (("val", options.val_bytes, held.val), ("test", options.test_bytes, held.test)):
        if got.data.nbytes < asked // 2:
            progress(
                f"{asked:,} bytes of {name} were asked for, and the text is too short for that: {got.data.nbytes:,} "
                "are held out"
            )
    (folder / "text").mkdir(parents=True)
    splits: dict[Literal["train", "val", "test"], SplitRecord] = {
        "val": _write_text(folder, "val", [held.val]),
        "test": _write_text(folder, "test", [held.test]),
    }
    splits["train"], removed = _write_train(corpus, held, folder)
    sizes = ", ".join(f"{name} {splits[name].bytes / 1e6:.2f} MB" for name in ("train", "val", "test"))
    progress(f"{sizes}; removed from train (also in val or test): {_removed_words(removed)}")
    content_sha256 = corpus.content_sha256()
    corpus.check_unchanged()
    source = Source(
        corpus=corpus.name,
        stamp=corpus.stamp,
        content_sha256=content_sha256,
        revision=corpus.revision,
        files=len(corpus.files) + len(corpus.held_out),
    )
    return Manifest(
        format=FORMAT,
        val_bytes=options.val_bytes,
        test_bytes=options.test_bytes,
        shards=options.shards,
        source=source,
        splits=splits,
        removed=removed,
        yardsticks=yardsticks(held.val.data.tobytes()),
    )


def yardsticks(text: bytes) -> Yardsticks:
    """Compress the whole text with gzip -9 and xz -9, and return bits per byte."""
    scale = 8.0 / len(text)
    return Yardsticks(
        gzip_bpb=scale * len(gzip.compress(text, 9, mtime=0)), xz_bpb=scale * len(lzma.compress(text, preset=9))
    )


def build_vocabulary(size: int, manifest: Manifest, source: Path, folder: Path, progress: Progress) -> VocabularyRecord:
    """Learn a tokenizer from the train text in `source` and encode all splits into `folder`, the vocabulary's own."""
    progress(f"vocabulary {size}: learning")
    texts = {name: [source / file.path for file in manifest.splits[name].files] for name in manifest.splits}
    model = folder / "tokenizer.model"
    model_sha256 = write_file(model, [train_tokenizer(_sample(texts["train"]), size)])
    tokenizer = Tokenizer.open(model)
    progress(f"vocabulary {size}: encoding {manifest.splits['train'].bytes / 1e6:.0f} MB")
    train, tokens = [], 0
    for number, path in enumerate(texts["train"]):
        values, offsets = encode_documents(open_shard(path), tokenizer)
        train.append(_token_file(folder, f"train-{number:05d}.tokens", values, offsets))
        tokens += len(values)
    held = {}
    for name in ("val", "test"):
        shard = open_shard(texts[name][0])
        values, offsets = encode_documents(shard, tokenizer)
        # Bits per byte divide by the bytes of the documents. A tokenizer that lost one would make every score too good.
        check_round_trip(shard, values, offsets, tokenizer)
        held[name] = _token_file(folder, f"{name}.tokens", values, offsets)
    return VocabularyRecord(
        size=size,
        bos_id=tokenizer.bos_id,
        tokenizer=file_record(model, folder.parent, model_sha256),
        train=tuple(train),
        train_tokens=tokens,
        val=held["val"],
        test=held["test"],
        rows=(),
    )


def build_rows(
    record: VocabularyRecord, split: Literal["val", "test"], seq_len: int, total_bytes: int, folder: Path
) -> RowsRecord:
    """Pack one split's tokens for one T and write the rows beside them, below the prepared `folder`."""
    tokens = folder / (record.val if split == "val" else record.test).path
    rows, mask = score_rows(open_shard(tokens), seq_len, record.bos_id)
    content = io.BytesIO()
    np.savez(content, rows=rows, mask=np.packbits(mask))
    path = tokens.with_name(f"{split}-T{seq_len}.npz")
    return RowsRecord(
        split=split,
        seq_len=seq_len,
        rows=len(rows),
        targets=int(mask.sum()),
        total_bytes=total_bytes,
        sha256=rows_sha256(rows, mask, total_bytes),
        file=file_record(path, folder, write_file(path, [content.getvalue()])),
    )


def encode_documents(shard: Shard, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Encode each document as BOS + tokens and join them: uint16 (tokens,) and int64 offsets (documents + 1,)."""
    bos = np.array([tokenizer.bos_id], dtype=np.uint16)
    parts: list[np.ndarray] = []
    lengths: list[int] = []
    for texts in _batches(shard.documents()):
        for tokens in tokenizer.encode(texts):
            parts += [bos, tokens]
            lengths.append(1 + len(tokens))
    return np.concatenate(parts), offsets_of(np.array(lengths))


def check_round_trip(shard: Shard, values: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer) -> None:
    """Decode every document and compare bytes. Raises `DataError` naming the first that differs."""
    bounds = offsets.tolist()
    for number, document in enumerate(shard.documents()):
        tokens = values[bounds[number] + 1 : bounds[number + 1]]
        if tokenizer.decode(tokens).encode("utf-8") != document:
            raise DataError(
                f"document {number} of {shard.path} does not survive the tokenizer of {tokenizer.vocab_size}.",
                fix="please report it with this text; another --vocab may do",
            )


def _write_train(corpus: Corpus, held: HeldOut, folder: Path) -> tuple[SplitRecord, Removed]:
    duplicates, overlaps = Cut(0, 0), Cut(0, 0)

    def kept() -> Iterator[Documents]:
        nonlocal duplicates, overlaps
        for block, duplicate, overlap in train_documents(corpus, held):
            duplicates = Cut(duplicates.documents + duplicate.documents, duplicates.bytes + duplicate.bytes)
            overlaps = Cut(overlaps.documents + overlap.documents, overlaps.bytes + overlap.bytes)
            yield block

    record = _write_text(folder, "train", kept())
    if not record.documents:
        raise DataError(
            f"{corpus.root} repeats itself: nothing is left for train once val and test are taken out.",
            fix="use a more varied corpus",
        )
    return record, Removed(
        duplicate_documents=duplicates.documents,
        duplicate_bytes=duplicates.bytes,
        overlap_documents=overlaps.documents,
        overlap_bytes=overlaps.bytes,
        test_overlap_documents=held.test_cut.documents,
        test_overlap_bytes=held.test_cut.bytes,
    )


def _write_text(folder: Path, name: str, blocks: Iterable[Documents]) -> SplitRecord:
    files: list[FileRecord] = []
    documents = size = 0

    def flush(gathered: list[Documents]) -> None:
        text = join(gathered)
        path = folder / "text" / (f"train-{len(files):05d}.text" if name == "train" else f"{name}.text")
        files.append(file_record(path, folder, write_shard(path, text.data, text.offsets)))

    held: list[Documents] = []
    for block in blocks:
        if not len(block):
            continue
        documents, size = documents + len(block), size + len(block.data)
        held.append(block)
        if name == "train" and sum(len(part.data) for part in held) >= SHARD_BYTES:
            flush(held)
            held = []
    if held:
        flush(held)
    return SplitRecord(documents=documents, bytes=size, files=tuple(files))


def _token_file(folder: Path, name: str, values: np.ndarray, offsets: np.ndarray) -> FileRecord:
    path = folder / name
    return file_record(path, folder.parent, write_shard(path, values, offsets))


def _batches(documents: Documents) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for document in documents:
        held.append(document.decode("utf-8"))
        size += len(document)
        if size >= ENCODE_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _sample(shards: list[Path]) -> Iterator[str]:
    opened = [open_shard(path) for path in shards]
    total = sum(len(shard.values) for shard in opened)
    # Every n-th document of the whole text and not its beginning, which may be one kind of text alone.
    every = max(1, -(-total // TOKENIZER_BYTES))
    for shard in opened:
        for number, document in enumerate(shard):
            if number % every == 0:
                yield document.tobytes().decode("utf-8")


def _removed_words(removed: Removed) -> str:
    return (
        f"{removed.duplicate_documents} duplicates ({removed.duplicate_bytes / 1e3:.0f} kB), "
        f"overlaps in {removed.overlap_documents} documents ({removed.overlap_bytes / 1e3:.0f} kB)"
    )
