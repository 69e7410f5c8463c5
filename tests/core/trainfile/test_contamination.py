"""A train file that carries held-out text in its literals is found, however it is written down."""

from __future__ import annotations

import base64
import lzma
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from autoresearch import backends
from autoresearch.backends import names
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import DataError
from autoresearch.core.trainfile.contamination import (
    ADDED_MOST,
    INFORMATION_LIMIT,
    added_limit,
    check_contamination,
    information,
)
from autoresearch.core.trainfile.source_check import SourceFault


@pytest.fixture(scope="module")
def text(prepared: Prepared) -> bytes:
    """A piece of the validation text."""
    content = (prepared.folder / prepared.manifest.splits["val"].files[0].path).read_bytes()
    return content[2000:5000]


WAYS = {
    "as it is": lambda text: repr(text.decode()),
    "as bytes": repr,
    "in hex": lambda text: repr(text.hex()),
    "in base 64": lambda text: repr(base64.b64encode(text).decode()),
    "in base 85, compressed": lambda text: repr(base64.b85encode(zlib.compress(text)).decode()),
    "compressed by xz": lambda text: repr(lzma.compress(text)),
    "as numbers": lambda text: repr(list(text)),
    "as one number": lambda text: str(int.from_bytes(text[:1500], "big")),
    "as characters of Latin-1": lambda text: repr(zlib.compress(text).decode("latin-1")),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_text_is_found(way: str, text: bytes, prepared: Prepared) -> None:
    source = f'"""A train file."""\n\nsmuggled = {WAYS[way](text)}\n'
    with pytest.raises(SourceFault, match=r"line 3 of train\.py: literals hold \d+ bytes of the held-out text \(val\)"):
        check_contamination(source, prepared, 512)


@pytest.mark.parametrize("split", ["val", "test"])
def test_tokens_are_found(split: str, prepared: Prepared) -> None:
    rows = prepared.scored_rows(split, 512, 256).rows  # type: ignore[arg-type]
    with pytest.raises(SourceFault, match="held-out text"):
        check_contamination(f"table = {rows[:4].ravel().tolist()}\n", prepared, 512)
    with pytest.raises(SourceFault, match="held-out text"):
        check_contamination(
            f"table = bytes.fromhex('{np.ascontiguousarray(rows[:8]).tobytes().hex()}')\n", prepared, 512
        )


@pytest.mark.parametrize("backend", names())
def test_the_real_train_files_carry_none(backend: str, prepared: Prepared) -> None:
    train_file = Path(next(iter(backends.__path__))) / backend / "train.py"
    check_contamination(train_file.read_text(encoding="utf-8"), prepared, 512)


def test_text_in_comments_is_found(text: bytes, prepared: Prepared) -> None:
    source = "".join(f"# {line}\n" for line in text.decode().splitlines())
    with pytest.raises(SourceFault, match="held-out text"):
        check_contamination(source, prepared, 512)


def enciphered(count: int) -> str:
    return np.random.default_rng(0).bytes(count).hex()


@pytest.mark.parametrize(
    "source",
    [
        "".join(f'def f{n}():\n    """{enciphered(40_000)[n * 6000 : n * 6000 + 6000]}"""\n' for n in range(14)),
        "".join(f"# {enciphered(40_000)[n * 100 : n * 100 + 100]}\n" for n in range(800)),
        "".join(f"n{enciphered(40_000)[n * 60 : n * 60 + 60]} = 0\n" for n in range(1300)),
        "".join(f"x{n % 7} = 0.{int(enciphered(40_000)[n * 15 : n * 15 + 15], 16)}\n" for n in range(5300)),
        "order = (" + ", ".join(f"n{digit}" for digit in enciphered(40_000)) + ")\n",
        "".join(f"pass{' ' * int(digit, 16)}\n" for digit in enciphered(40_000)),
    ],
    ids=["docstrings", "comments", "names", "numbers", "the order of a few names", "blanks"],
)
def test_information_is_limited_wherever_it_lies(source: str, prepared: Prepared) -> None:
    with pytest.raises(SourceFault, match=r"comes to \d+ bytes of information .* the limit is 36864"):
        check_contamination(source, prepared, 512)


def test_what_a_candidate_adds_to_its_baseline_is_limited_by_the_validation_text(prepared: Prepared) -> None:
    baseline = "".join(f'def f{n}():\n    """Do thing number {n} to model {n}."""\n' for n in range(600))
    hidden = f'"""{enciphered(6000)}"""\n'
    check_contamination(hidden, prepared, 512)  # by itself it is a small file
    with pytest.raises(SourceFault, match=r"adds [67]\d+ bytes of information .* to the baseline.* the limit is 4096"):
        check_contamination(baseline + hidden, prepared, 512, baseline)
    with pytest.raises(SourceFault, match=r"adds \d+ bytes"):  # whatever it leaves out instead
        check_contamination(hidden, prepared, 512, baseline)
    check_contamination(baseline + hidden, prepared, 512, baseline + hidden)
    check_contamination(baseline + f'"""{enciphered(2000)}"""\n', prepared, 512, baseline)


def test_a_large_validation_text_allows_more() -> None:
    assert [added_limit(count) for count in (30_000, 640_000, 45_000_000)] == [4096, 10_000, 12_288]


@pytest.mark.parametrize("backend", names())
def test_the_real_train_files_leave_room_for_all_that_a_candidate_may_add(backend: str) -> None:
    train_file = Path(next(iter(backends.__path__))) / backend / "train.py"
    assert information(train_file.read_text(encoding="utf-8")) + ADDED_MOST < INFORMATION_LIMIT


def test_held_out_text_that_is_gone_is_said_with_its_cure(text: bytes, prepared: Prepared, tmp_path: Path) -> None:
    source = f"smuggled = {text.decode()!r}\n"
    with pytest.raises(DataError, match=r"val.* cannot be read: No such file or directory\. Fix: run `ar prepare`"):
        check_contamination(source, Prepared(tmp_path, prepared.manifest), 512)


def test_a_short_quotation_and_long_indentation_are_no_copy(text: bytes, prepared: Prepared) -> None:
    quotation, blanks = text[:200].decode(), " " * 4000
    check_contamination(f'"""{"x" * 400} ."""\nquoted = {quotation!r}\nblank = {blanks!r}\n', prepared, 512)


def test_a_compressed_bomb_is_refused(prepared: Prepared) -> None:
    bomb = zlib.compress(bytes(2**26), 9)
    with pytest.raises(SourceFault, match=r"unpack to \d+ bytes or more; the limit is"):
        check_contamination(f"bomb = {bomb!r}\n", prepared, 512)


def test_a_file_that_parses_and_has_no_tokens_is_refused(prepared: Prepared) -> None:
    with pytest.raises(SourceFault, match=r"comments of train\.py cannot be read: EOF"):
        check_contamination("x = 1\r\ny = 2\\\r\n", prepared, 512)


@pytest.mark.parametrize("name", ["text/val.text", "vocab-512/test.tokens"])
def test_held_out_text_that_was_altered_is_not_searched(name: str, prepared: Prepared, tmp_path: Path) -> None:
    folder = shutil.copytree(prepared.folder, tmp_path / "corpus")
    status, content = (folder / name).stat(), bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=rf"{name} has changed since it was prepared\. Fix: run `ar prepare`"):
        check_contamination(f"x = {'abcdefgh' * 100!r}\n", Prepared.open(folder), 512)
