"""Literature that a person gives: texts in a folder, or web pages by their addresses. Models see it as data."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Container, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path

from autoresearch.agent.llm.deadline import within
from autoresearch.core.errors import ProposalError, UsageError
from autoresearch.core.files import write_text
from autoresearch.core.textfile import open_plain, read_text

SUFFIXES = (".md", ".txt", ".rst", ".tex")
"""Files of a folder that are read."""
MOST_TEXTS = 50
MOST_BYTES = 5_000_000
"""Largest text that is read, in bytes."""
FETCH_SECONDS = 30.0
"""Seconds that a server may be silent for. The whole of a page may take twice as long."""
_BLOCKS = ("p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "pre")
_SKIPPED = ("script", "style", "nav", "head", "svg", "footer")


@dataclass(frozen=True)
class Paper:
    """One text, by the name that hypotheses quote."""

    name: str
    text: str


class Literature:
    """The texts of a folder or of a list of addresses. Pages are fetched once and kept in the run's folder."""

    def __init__(self, given: Path | None = None, kept: Path | None = None) -> None:
        """`given` is a folder, or a file with one address a line; `kept` is where fetched pages lie.

        Raises `UsageError` when there is nothing to read in it.
        """
        self._kept = kept
        self._pages: tuple[tuple[str, str], ...] = ()
        self._papers: tuple[Paper, ...] = ()
        self._memory: dict[str, str] = {}
        self._fetching = threading.Lock()
        if given is None:
            return
        if given.is_dir():
            self._papers = _of_folder(given)
        else:
            self._pages = _addresses(given)

    def read(self) -> tuple[Paper, ...]:
        """Return the texts that are here, in a fixed order. Nothing is fetched."""
        found = ((name, self._page(name)) for name, _ in self._pages)
        return (*self._papers, *(Paper(name, text) for name, text in found if text is not None))

    def fetch(self) -> tuple[Paper, ...]:
        """Fetch the pages that are not here yet, and return all texts. Raises `ProposalError` with the address."""
        with self._fetching:  # proposals are made in several threads, and each begins with this
            for name, address in self._pages:
                if self._page(name) is None:
                    self._keep(name, _fetched(address))
        return self.read()

    def _page(self, name: str) -> str | None:
        if self._kept is None:
            return self._memory.get(name)
        try:
            return (self._kept / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def _keep(self, name: str, text: str) -> None:
        if self._kept is None:
            self._memory[name] = text
            return
        self._kept.mkdir(parents=True, exist_ok=True)
        write_text(self._kept / name, text)


def _of_folder(folder: Path) -> tuple[Paper, ...]:
    fix = f"put texts into it ({', '.join(SUFFIXES)}); `pdftotext paper.pdf` makes one of a PDF"
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UsageError(f"--literature {folder} holds no text.", fix=fix)
    if len(paths) > MOST_TEXTS:
        raise UsageError(f"--literature {folder} holds {len(paths)} texts; at most {MOST_TEXTS} are read.", fix=fix)
    papers: dict[str, Paper] = {}
    for path in paths:
        try:
            with open_plain(path) as file:
                text = file.read(MOST_BYTES).decode("utf-8", errors="replace")
        except OSError as error:
            raise UsageError(f"--literature: {path} cannot be read: {error.strerror}.", fix="check the path") from error
        name = _new_name(path.relative_to(folder).as_posix(), papers)
        papers[name] = Paper(name, text)
    return tuple(papers.values())


def _addresses(path: Path) -> tuple[tuple[str, str], ...]:
    """Return name and address of each line; empty lines and comments (#) are passed over."""
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        fix = "name a folder with texts, or a file with one address a line"
        raise UsageError(f"--literature {path} cannot be read: {error}.", fix=fix) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if not re.match(r"https?://\S+$", line):
            fix = "one address a line, beginning with https:// or http://"
            raise UsageError(f"--literature {path}, line {number}: {line[:80]!r} is not an address.", fix=fix)
        found[_new_name(re.sub(r"^https?://(www\.)?", "", line), found)] = line
    if not found or len(found) > MOST_TEXTS:
        fix = f"one address a line, 1 to {MOST_TEXTS} of them"
        raise UsageError(f"--literature {path} holds {len(found)} addresses.", fix=fix)
    return tuple(found.items())


def _new_name(text: str, taken: Container[str]) -> str:
    """Return a plain name that is not taken."""
    name, again = _name(text), 1
    while name in taken:
        again += 1
        name = f"{_name(text)}-{again}"
    return name


def _name(text: str) -> str:
    """Return a name of at most 60 plain characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[-60:].strip("-.") or "text"


def _fetched(address: str) -> str:
    fix = "check the address and the network, or give a folder with texts"
    request = urllib.request.Request(address, headers={"User-Agent": "autoresearch", "Accept": "text/*"})

    def fetch() -> tuple[str, bytes, str]:
        with urllib.request.urlopen(request, timeout=FETCH_SECONDS) as response:
            kind, charset = response.headers.get_content_type(), response.headers.get_content_charset()
            return kind, response.read(MOST_BYTES), charset or "utf-8"

    try:
        kind, body, charset = within(2 * FETCH_SECONDS, fetch)
    except (OSError, ValueError, HTTPException) as error:
        raise ProposalError(f"--literature: {address} cannot be fetched: {error}.", fix=fix) from error
    if not kind.startswith("text/") and kind != "application/xhtml+xml":
        raise ProposalError(f"--literature: {address} is {kind}, no text.", fix="give the page with the abstract")
    try:
        text = body.decode(charset, errors="replace")
    except LookupError:
        text = body.decode("utf-8", errors="replace")
    return _plain(text) if "html" in kind else text


class _Words(HTMLParser):
    """Collects the text of a page, without scripts and menus."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._skipped = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Leave out what is no text; begin a line where a block begins."""
        self._skipped += tag in _SKIPPED
        self._new_line(tag)

    def handle_endtag(self, tag: str) -> None:
        """End what was left out; end a line where a block ends."""
        self._skipped = max(0, self._skipped - (tag in _SKIPPED))
        self._new_line(tag)

    def _new_line(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        """Take text."""
        if not self._skipped:
            self.parts.append(data)


def _plain(page: str) -> str:
    words = _Words()
    words.feed(page)
    words.close()
    lines = (" ".join(line.split()) for line in "".join(words.parts).split("\n"))
    return "\n".join(line for line in lines if line) + "\n"


def literature_text(papers: Sequence[Paper], characters: int) -> str:
    """Write the texts under their names, in at most about so many characters; long ones are cut at their ends.

    Short texts leave their share to the others.
    """
    left, texts = characters, {}
    for count, paper in zip(range(len(papers), 0, -1), sorted(papers, key=lambda one: len(one.text)), strict=True):
        share = left // count
        text = paper.text.strip()
        texts[paper.name] = text if len(text) <= share else f"{text[:share]}\n[cut]"
        left -= min(share, len(text))
    return "\n\n".join(f"[{one.name}]\n{texts[one.name]}" for one in papers) if characters else ""


def quoted(hypothesis: str, papers: Sequence[Paper]) -> str:
    """Return the names of the texts that a hypothesis quotes, joined by commas."""
    return ", ".join(one.name for one in papers if one.name in hypothesis)
