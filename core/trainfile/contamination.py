"""The check for contamination: does a train file contain text that it is judged on?

Its literals, docstrings, names and comments, plain or in the usual encodings, are looked up in the held-out text. This
finds copies, but no encrypted text. So their information together, that is their size after compression, is limited as
well (`check_information`). A file that hides n bytes of text needs about as many bytes of
information as that text has (see docs/trust.md).
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import io
import lzma
import struct
import tokenize
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from autoresearch.core.data.manifest import FileRecord, Prepared, Split
from autoresearch.core.trainfile.source_check import SourceFault

BLOCK = 32
"""Bytes that are compared at a time. The held-out text is cut at multiples of BLOCK, and a literal at every byte, so
every shared run of 2 * BLOCK - 1 bytes is found."""
ALLOWED_BYTES = 256
"""Bytes of shared text that count as no copy: a licence, a table that everybody writes alike."""
DISTINCT = 8
"""Different bytes that a block must have: one with fewer is indentation or padding."""
INFORMATION_LIMIT = 20 * 1024
"""Compressed bytes of all names, strings, numbers and comments together. The shipped train files have 6 to 9 KiB."""
UNPACKED_LIMIT = 2**20
"""Limit in bytes of all literals together, in all their readings. A small literal can unpack to gigabytes."""


def check_contamination(source: str, prepared: Prepared, vocab: int) -> None:
    """Check a source that parses against the val and test splits of a prepared corpus, as text and as tokens.

    Raises `SourceFault` with the line of the literal that holds most of the held-out text. `vocab` names the tokens.
    """
    check_information(source)
    readings = [*_literals(ast.parse(source)), *_prose(source)]
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


def check_information(source: str) -> None:
    """Check that a source, apart from its syntax, compresses to at most `INFORMATION_LIMIT` bytes.

    Each different name, string, docstring, number and comment counts once: ordinary code repeats its names, a table of
    hidden text does not. Raises `SourceFault` with the figure.
    """
    size = information(source)
    if size > INFORMATION_LIMIT:
        raise SourceFault(
            f"the names, texts, numbers and comments of train.py come to {size} bytes of information; the limit is "
            f"{INFORMATION_LIMIT}: text comes from the feed, and tables are learned"
        )


def information(source: str) -> int:
    """Return the size in bytes, under xz, of the different names, strings, numbers and comments of a source."""
    words = "\n".join(dict.fromkeys(_words(source)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    return len(lzma.compress(words.encode("utf-8", errors="replace"), lzma.FORMAT_RAW, filters=filters))


def _words(source: str) -> Iterator[str]:
    """Yield the text of each name, string, number and comment, in order. Raises `SourceFault` where there are none."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type not in _LAYOUT:
                yield token.string
    except (tokenize.TokenError, SyntaxError) as error:
        raise SourceFault(f"the train file cannot be read: {error}") from error


_LAYOUT = frozenset(
    (
        tokenize.NEWLINE,
        tokenize.NL,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.OP,
        tokenize.ENCODING,
    )
)


def _held_out(prepared: Prepared, vocab: int) -> Iterator[tuple[str, bytes]]:
    """Yield the name of the split and the bytes of each file with text or tokens of val and test."""
    record = prepared.vocabulary(vocab)
    splits: tuple[tuple[Split, FileRecord], ...] = (("val", record.val), ("test", record.test))
    for split, tokens in splits:
        for path in (*(file.path for file in prepared.manifest.splits[split].files), tokens.path):
            yield split, (prepared.folder / path).read_bytes()


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
    """Yield ((line, reading), bytes) of all comments and of all names, each read as one text."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
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
