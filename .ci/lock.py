"""Write requirements.lock, or show the part of it that some extras need.

    python .ci/lock.py              # writes it, from what is installed and the index's hashes
    python .ci/lock.py --show dev   # the lines for `pip install --require-hashes --no-deps -r`; "" is no extra

The file holds the version and the hashes of every package that the Makefile and CI install, and no address: pip asks
the index that it is set up with. Write it in an environment that constraints.txt with all EXTRAS has made. It is for
Python 3.11 to 3.13 on Linux with an x86-64 processor; elsewhere, and for extras that are not in it, `--show` ends
with exit code 3 and the Makefile installs by constraints.txt alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
import urllib.parse
import urllib.request
from importlib.metadata import Distribution
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
EXTRAS = ("dev", "track", "fleet", "codegen")
BASE = "base"
"""Stands for the packages that are needed without any extra."""
BUILD = ("setuptools>=77",)
"""Needed to build the project itself; pip would fetch it unlocked otherwise."""
PYTHONS = ((3, 11), (3, 12), (3, 13))
NOT_HERE = 3
PROJECT = "autoresearch-dual"
UNLOCKED = frozenset(("torch",))
"""Packages whose files are not the same everywhere: PyTorch comes as a build for each kind of device, from an index of
the person's choice. constraints.txt holds its version."""
HEAD = """\
# Written by .ci/lock.py: versions and SHA-256 of everything that `make` installs, but for PyTorch and the CUDA
# libraries that its own metadata pin: its builds differ by device, and constraints.txt holds its version. The words
# after `for` are the extras that need a package.
"""


def main() -> None:
    """Write the file, or show a part of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--show", metavar="EXTRAS", help="print what these extras need")
    wanted = parser.parse_args().show
    if wanted is not None:
        sys.stdout.write(shown([extra for extra in wanted.split(",") if extra]))
        return
    index, lines = index_of_pip(), [HEAD]
    for name, (version, extras) in sorted(planned().items()):
        hashes = " \\\n".join(f"    --hash=sha256:{one}" for one in hashes_of(index, name, version))
        lines.append(f"# for {' '.join(extras)}\n{name}=={version} \\\n{hashes}\n")
    LOCK.write_text("".join(lines), encoding="utf-8")
    print(f"{LOCK.name}: {len(lines) - 1} packages", file=sys.stderr)


def shown(wanted: list[str]) -> str:
    """Return the lines for some extras. Ends the program where the file is not for this Python, system or extra."""
    here = sys.version_info[:2] in PYTHONS and sys.platform == "linux" and platform.machine() == "x86_64"
    if not here or not LOCK.is_file() or not set(wanted) <= set(EXTRAS):
        raise SystemExit(NOT_HERE)
    parts = re.findall(r"^# for (.*)\n((?:[^#].*\n)+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return "".join(lines for extras, lines in parts if {BASE, *wanted} & set(extras.split()))


def planned() -> dict[str, tuple[str, list[str]]]:
    """Read what is installed here: name, in its normal form -> version, and the extras that need it."""
    installed = {normal(one.metadata["Name"]): one for one in importlib.metadata.distributions()}
    needed = {extra: closure(installed, extra) for extra in (BASE, *EXTRAS)}
    needed[BASE] |= {normal(Requirement(one).name) for one in BUILD}
    names = set().union(*needed.values()) - {PROJECT, *UNLOCKED}
    return {
        name: (installed[name].version, [extra for extra, some in needed.items() if name in some]) for name in names
    }


def closure(installed: dict[str, Distribution], extra: str) -> set[str]:
    """Follow the requirements from the project with one extra on, over the packages that are installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [(PROJECT, "" if extra == BASE else extra)]
    while waiting:
        name, asked = one = waiting.pop()
        if one in seen or name not in installed:
            continue
        seen.add(one)
        for text in installed[name].requires or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": asked}):
                waiting += [(normal(wanted.name), more) for more in ("", *wanted.extras)]
    return {name for name, _ in seen}


def normal(name: str) -> str:
    """Write a package's name as indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def hashes_of(index: str, name: str, version: str) -> list[str]:
    """Return the SHA-256 of every file of a release, as the index lists them."""
    request = urllib.request.Request(
        urllib.parse.urljoin(f"{index.rstrip('/')}/", f"{name}/"),
        headers={"Accept": "application/vnd.pypi.simple.v1+json"},
    )
    with urllib.request.urlopen(request) as answer:
        files = json.loads(answer.read())["files"]
    stem = re.compile(rf"{re.sub('-', '[-_.]+', name)}-{re.escape(version)}(-.*\.whl|\.tar\.gz|\.zip)", re.IGNORECASE)
    released = {one["filename"]: one["hashes"]["sha256"] for one in files if stem.fullmatch(one["filename"])}
    wheels = {name: sha256 for name, sha256 in released.items() if name.endswith(".whl")}
    hashes = sorted(set((wheels or released).values()))  # building a package from its source would fetch more, unlocked
    if not hashes:
        raise SystemExit(f"the index lists no file of {name} {version}")
    return hashes


def index_of_pip() -> str:
    """Return the index that pip asks, whatever it was set up with."""
    from pip._internal.commands import create_command

    options, _ = create_command("install").parse_args([])
    return str(options.index_url)


if __name__ == "__main__":
    main()
