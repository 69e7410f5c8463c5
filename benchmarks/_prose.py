"""Make a corpus of prose from what is installed: manual pages, documentation, licences, package descriptions.

    python -m benchmarks._prose FOLDER [--megabytes 16]

writes FOLDER/prose.jsonl, which `ar prepare --corpus FOLDER` reads. The `stdlib` corpus is program text, and program
text favours copying; a finding about a train file should hold on prose too. Markup is removed, and a paragraph that
has been seen before is left out: licences and manual pages repeat one another. Which documents there are depends on the
machine, so figures compare only on one machine.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import random
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

SHARE = Path("/usr/share")
MIN_LETTERS, MIN_ASCII, MIN_CHARACTERS = 0.65, 0.985, 1500
"""Share of letters and spaces, share of ASCII, and length of a document that counts as English prose."""
MAX_CHARACTERS = 100_000
"""Of one document: no manual fills the corpus alone."""

TAG = re.compile(r"<(script|style|pre|head|nav)\b.*?</\1>|<[^>]+>", re.DOTALL | re.IGNORECASE)
ESCAPE = re.compile(r"\\f(?:\[[^]]*\]|\(..|.)|\\[&|^%/,]|\\s[-+]?\d")
NAMED = {r"\-": "-", r"\(aq": "'", r"\(bu": "*", r"\(lq": '"', r"\(rq": '"', r"\(em": "--", r"\e": "\\", r"\ ": " "}


def plain(text: str) -> str:
    """A text file as it is."""
    return text


def from_html(text: str) -> str:
    """What a page says: without its scripts, listings and tags."""
    return html.unescape(TAG.sub("", re.sub(r"</(p|li|h\d|div|tr)>", "\n\n", text)))


def from_roff(text: str) -> str:
    """What a manual page says: requests that carry words keep them, all others go."""
    lines = []
    for line in text.splitlines():
        if line.startswith((".", "'")):
            request, _, words = line[1:].strip().partition(" ")
            if request in ("SH", "SS", "PP", "TP", "IP", "P", "LP", "Pp", "Sh", "Ss", "It", "sp"):
                lines.append("")
            if request in ("SH", "SS", "B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "IP", "Sh", "Ss", "Nd"):
                lines.append(words.replace('"', ""))
            continue
        lines.append(line)
    joined = ESCAPE.sub("", "\n".join(lines))
    for name, character in NAMED.items():
        joined = joined.replace(name, character)
    return joined


KINDS: tuple[tuple[str, Callable[[str], str], float], ...] = (
    ("man", from_roff, 0.35),
    ("html", from_html, 0.3),
    ("text", plain, 0.35),
)
"""Kind of file, how it is read, its share of the corpus."""


def kind_of(path: Path) -> str | None:
    """Kind of file by its name; None for a file that is no prose."""
    name = path.name.removesuffix(".gz")
    if "/man/man" in str(path) and name[-2:-1] == ".":
        return "man"
    if name.endswith((".html", ".htm")):
        return "html"
    words = ("README", "LICENSE", "COPYING", "NEWS", "INSTALL", "FAQ", "METADATA", "HACKING", "copyright")
    return "text" if name.endswith((".txt", ".rst", ".md")) or name.startswith(words) else None


def sources() -> list[Path]:
    """Folders that hold documentation on this machine."""
    toolchains = sorted(Path.home().glob(".rustup/toolchains/*/share/doc/rust/html"))[:1]
    books = [
        folder for toolchain in toolchains for folder in [*sorted(toolchain.glob("*book*")), toolchain / "reference"]
    ]
    vim = sorted(SHARE.glob("vim/vim*/doc"))
    packages = Path(sysconfig.get_paths()["purelib"])
    return [folder for folder in (SHARE / "doc", SHARE / "man", *vim, packages, *books) if folder.is_dir()]


def read(path: Path) -> str | None:
    """Text of a file, unpacked; None where it cannot be read or is not UTF-8."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError, gzip.BadGzipFile):
        return None


def is_prose(text: str) -> bool:
    """Whether it is long enough, English by its alphabet, and more words than symbols."""
    if len(text) < MIN_CHARACTERS:
        return False
    ascii_share = sum(map(str.isascii, text)) / len(text)
    words = sum(character.isalpha() or character == " " for character in text) / len(text)
    return ascii_share >= MIN_ASCII and words >= MIN_LETTERS


def paragraphs_once(text: str, seen: set[bytes]) -> str:
    """The paragraphs that no earlier document had, with single blank lines between them."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        key = hashlib.sha256(" ".join(paragraph.split()).encode()).digest()[:8]
        if paragraph.strip() and key not in seen:
            seen.add(key)
            kept.append(paragraph.strip("\n"))
    return "\n\n".join(kept)


def documents(paths: Iterable[Path], clean: Callable[[str], str], limit: int, seen: set[bytes]) -> Iterator[str]:
    """Documents of prose, up to `limit` characters in all."""
    total = 0
    for path in paths:
        text = read(path)
        if text is None:
            continue
        text = paragraphs_once(clean(text), seen)[:MAX_CHARACTERS]
        if is_prose(text):
            yield text
            total += len(text)
            if total >= limit:
                return


def main() -> None:
    """Write the corpus and say how much of which kind it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=16.0, help="Size of the corpus")
    options = parser.parse_args()
    found = sorted({path for folder in sources() for path in folder.rglob("*") if path.is_file() and kind_of(path)})
    order, seen, texts = random.Random(0), set[bytes](), []
    for kind, clean, share in KINDS:
        paths = [path for path in found if kind_of(path) == kind]
        order.shuffle(paths)
        some = list(documents(paths, clean, int(options.megabytes * share * 1e6), seen))
        print(f"{kind}: {len(some)} documents, {sum(map(len, some)) / 1e6:.1f} MB", file=sys.stderr)
        texts += some
    options.folder.mkdir(parents=True, exist_ok=True)
    with (options.folder / "prose.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


if __name__ == "__main__":
    main()
