"""The check for contamination: does a train file contain text that it is judged on?

Its literals, docstrings, names and comments, plain or in the usual encodings, are looked up in the held-out text. This
finds what was copied, not what was enciphered. So the information of the whole source is limited as well: what it comes
to when it is compressed, alone and after the baseline (`check_information`). However n bytes are hidden, in texts, in
names, in the order of things or in blanks, a compressor cannot make less than n bytes of them (see docs/trust.md).
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import hashlib
import io
import lzma
import struct
import tokenize
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from autoresearch.core.data.manifest import FileRecord, Prepared, Split
from autoresearch.core.data.prepared_files import FIX
from autoresearch.core.errors import DataError, system_words
from autoresearch.core.textfile import open_plain
from autoresearch.core.trainfile.parsing import parse
from autoresearch.core.trainfile.source_check import SourceFault

BLOCK = 32
"""Bytes that are compared at a time. The held-out text is cut at multiples of BLOCK, and a literal at every byte, so
every shared run of 2 * BLOCK - 1 bytes is found."""
ALLOWED_BYTES = 256
"""Bytes of shared text that count as no copy: a licence, a table that everybody writes alike."""
DISTINCT = 8
"""Different bytes that a block must have: one with fewer is indentation or padding."""
INFORMATION_LIMIT = 36 * 1024
"""Compressed bytes of a train file. The shipped ones have 1 to 21 KiB, and a candidate may add ADDED_MOST."""
ADDED_FLOOR, ADDED_MOST = 4 * 1024, 12 * 1024
"""Compressed bytes that a candidate may add to its run's baseline where the validation text is small, and at most. 250
new lines of a train file have 4 KiB, one for another framework 6."""
ADDED_SHARE = 64
"""In between, a candidate may add one byte for so many of the validation text."""
UNPACKED_LIMIT = 2**20
"""Limit in bytes of all literals together, in all their readings. A small literal can unpack to gigabytes."""


def check_contamination(source: str, prepared: Prepared, vocab: int, baseline: str | None = None) -> None:
    """Check a source that parses against the val and test splits of a prepared corpus, as text and as tokens.

    Raises `SourceFault` with the line of the literal that holds most of the held-out text. `vocab` names the tokens;
    `baseline` is the source that the run starts from, None where there is none to compare with.
    """
    check_information(source, baseline, prepared.manifest.splits["val"].bytes)
    readings = [*_literals(parse(source)), *_prose(source)]
    literals = {place: blob for place, blob in readings if len(blob) >= ALLOWED_BYTES}
    if not literals:
        return
    if (total := sum(map(len, literals.values()))) > UNPACKED_LIMIT:
        raise SourceFault(f"the literals of train.py unpack to {total} bytes or more; the limit is {UNPACKED_LIMIT}")
    # All blocks of all literals go through each file once. What was found is then counted for each literal.
    blocks = {place: {blob[i : i + BLOCK] for i in range(len(blob) - BLOCK + 1)} for place, blob in literals.items()}
    every = set().union(*blocks.values())
    for split, content in _held_out(prepared, vocab):
        found = _shared(content, every)
        line, _ = max(blocks, key=lambda place: len(found & blocks[place]))
        size = len(found) * BLOCK
        if size > ALLOWED_BYTES:
            raise SourceFault(f"line {line} of train.py: literals hold {size} bytes of the held-out text ({split})")


def check_information(source: str, baseline: str | None, val_bytes: int) -> None:
    """Check that a source comes to at most `INFORMATION_LIMIT` compressed bytes, and to fewer beyond the baseline.

    How many may be added to `baseline`, None where there is none, depends on the bytes of the validation text
    (`added_limit`). Raises `SourceFault` with the figure.
    """
    size = information(source)
    if size > INFORMATION_LIMIT:
        raise SourceFault(
            f"train.py comes to {size} bytes of information (compressed); the limit is {INFORMATION_LIMIT}: text comes "
            f"from the feed, and tables are learned"
        )
    if baseline is None or source == baseline:
        return
    added, limit = information(source, baseline), added_limit(val_bytes)
    if added > limit:
        raise SourceFault(
            f"train.py adds {added} bytes of information (compressed) to the baseline; with a validation text of "
            f"{val_bytes} bytes the limit is {limit}: to try a file that differs so much, start a run from it"
        )


def added_limit(val_bytes: int) -> int:
    """Return how many compressed bytes a candidate may add to the baseline: val_bytes / ADDED_SHARE within bounds."""
    return min(ADDED_MOST, max(ADDED_FLOOR, val_bytes // ADDED_SHARE))


def information(source: str, baseline: str = "") -> int:
    """Return the bytes that a source adds under xz to the `baseline` before it."""
    before = baseline.encode("utf-8", errors="replace")
    both = before + source.encode("utf-8", errors="replace")
    return _compressed(both) - (_compressed(before) if before else 0)


def _compressed(content: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return len(lzma.compress(content, lzma.FORMAT_RAW, filters=filters))


def _held_out(prepared: Prepared, vocab: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name of the split and the bytes of each file with text or tokens of val and test.

    Raises `DataError` where one cannot be read or has changed. Hashing takes a thirtieth of the search's time.
    """
    vocabulary = prepared.vocabulary(vocab)
    splits: tuple[tuple[Split, FileRecord], ...] = (("val", vocabulary.val), ("test", vocabulary.test))
    for split, tokens in splits:
        for record in (*prepared.manifest.splits[split].files, tokens):
            path = prepared.folder / record.path
            try:
                with open_plain(path) as file:
                    content = file.read()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {system_words(error)}.", fix=FIX) from error
            if hashlib.sha256(content).hexdigest() != record.sha256:
                raise DataError(f"{path} has changed since it was prepared.", fix=FIX)
            yield split, content


def _shared(content: bytes, blocks: set[bytes]) -> set[bytes]:
    """Return those of the blocks that stand in `content` at a multiple of BLOCK."""
    starts = range(0, len(content) - BLOCK + 1, BLOCK)
    found = {content[start : start + BLOCK] for start in starts} & blocks
    return {block for block in found if len(set(block)) >= DISTINCT}


def _literals(tree: ast.Module) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield ((line, reading), bytes) for every way to read every literal that may hold text."""
    for node in ast.walk(tree):
        blobs: Iterable[bytes] = ()
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            blobs = _readings(node.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value > 2**64:
            blobs = [node.value.to_bytes(node.value.bit_length() // 8 + 1, order) for order in ("big", "little")]
        elif isinstance(node, ast.List | ast.Tuple | ast.Set) and len(node.elts) * 2 >= BLOCK:
            blobs = _numbers(node.elts)
        for index, blob in enumerate(blobs):
            yield (node.lineno, index), blob  # type: ignore[attr-defined]  # every node here has a line


def _prose(source: str) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield ((line, reading), bytes) of all comments and of all names, each read as one text. Raises `SourceFault`."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError) as error:  # it parses: the two differ on odd line ends
        raise SourceFault(f"the comments of train.py cannot be read: {error.args[0]}") from error
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    names = [token for token in tokens if token.type == tokenize.NAME]
    for number, (some, joint) in enumerate(((comments, "\n"), (comments, ""), (names, " "), (names, ""))):
        blobs = (
            _readings(joint.join(token.string.removeprefix("#").removeprefix(" ") for token in some)) if some else ()
        )
        for index, blob in enumerate(blobs):
            # No literal has so many readings.
            yield (some[0].start[0], 1000 * (number + 1) + index), blob


def _numbers(elements: Sequence[ast.expr]) -> Iterator[bytes]:
    """Yield a list of small integers read as tokens, and read as bytes."""
    values = [element.value for element in elements if isinstance(element, ast.Constant)]
    whole = [value for value in values if type(value) is int and 0 <= value < 2**16]
    yield struct.pack(f"<{len(whole)}H", *whole)
    yield bytes(value for value in whole if value < 256)


def _readings(value: str | bytes) -> Iterator[bytes]:
    """Yield the literal itself, and what decoding and decompressing it gives."""
    plain = value if isinstance(value, bytes) else value.encode("utf-8", errors="replace")
    decoded = [plain, *_tried(_DECODERS, plain)]
    if isinstance(value, str):
        decoded += _tried([lambda text: text.decode().encode("latin-1")], plain)
    yield from decoded
    for blob in decoded:
        yield from _tried(_UNPACKERS, blob)


def _tried(readers: Iterable[Callable[[bytes], bytes]], blob: bytes) -> Iterator[bytes]:
    for reader in readers:
        try:
            yield reader(blob)
        except (ValueError, binascii.Error, zlib.error, lzma.LZMAError, OSError, EOFError):
            continue


_DECODERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda text: bytes.fromhex(text.decode("ascii")),
    lambda text: base64.b64decode(text, validate=True),
    lambda text: base64.urlsafe_b64decode(text),
    base64.b85decode,
    base64.b32decode,
)
_UNPACKERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda blob: zlib.decompressobj(47).decompress(blob, UNPACKED_LIMIT),  # zlib or gzip
    lambda blob: lzma.LZMADecompressor(memlimit=2**28).decompress(blob, UNPACKED_LIMIT),
    lambda blob: bz2.BZ2Decompressor().decompress(blob, UNPACKED_LIMIT),
)
