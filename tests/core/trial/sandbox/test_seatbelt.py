"""The profile for macOS's sandbox-exec, as text; on a Mac, as a wall."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.core.trial.sandbox import seatbelt
from autoresearch.core.trial.sandbox.levels import SeatbeltSandbox


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder in a hidden one, its name with all that needs quoting."""
    work = tmp_path / "run" / 'a "quoted" \\ name'
    work.mkdir(parents=True)
    return work


def rules_of(text: str) -> list[str]:
    """One rule a line, every bracket closed outside of its strings."""
    rules = text.splitlines()
    for rule in rules:
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", rule)
        assert '"' not in bare
        assert (bare.count("("), bare[0], bare[-1]) == (bare.count(")"), "(", ")")
    return rules


def last_word(rules: list[str], operation: str, path: Path) -> str:
    """ "allow" or "deny": the last rule that speaks of the operation and matches the path."""
    found = "allow"
    for rule in rules[2:]:
        verdict, *operations = rule.strip("()").split(" (")[0].split()
        names = re.findall(r'\((subpath|literal) "((?:[^"\\]|\\.)*)"\)', rule)
        decoded = [(kind, Path(re.sub(r"\\(.)", r"\1", name))) for kind, name in names]
        speaks = any(re.fullmatch(one.replace("*", ".*"), operation) for one in operations)
        fits = not names or any(
            path == name or (kind == "subpath" and path.is_relative_to(name)) for kind, name in decoded
        )
        found = verdict if speaks and fits else found
    return found


def test_it_is_written_by_the_rules(work: Path) -> None:
    rules = rules_of(seatbelt.profile(work, [Path("/opt/python")], [work.parent]))
    assert rules[:2] == ["(version 1)", "(allow default)"]
    assert "(deny network*)" in rules
    assert any(rule.startswith("(deny appleevent-send lsopen job-creation") for rule in rules)


def test_the_work_folder_is_the_only_place_to_write_and_lies_open_in_a_hidden_one(work: Path) -> None:
    rules = rules_of(seatbelt.profile(work, [Path("/opt/python")], [work.parent]))
    for path, read, write in (
        (work / "train.py", "allow", "allow"),
        (work.parent / "ledger.sqlite", "deny", "deny"),
        (Path("/Users/somebody/.ssh/id_ed25519"), "deny", "deny"),
        (Path("/private/tmp/table"), "deny", "deny"),
        (Path("/private/var/folders/x/y/C/com.apple.metal/cache"), "deny", "deny"),
        (Path("/opt/python/lib/os.py"), "allow", "deny"),
        (Path("/System/Library/Frameworks/Metal.framework/Metal"), "allow", "deny"),
        (Path("/dev/null"), "allow", "deny"),
    ):
        assert (last_word(rules, "file-read-data", path), last_word(rules, "file-write-create", path)) == (read, write)
    assert last_word(rules, "file-write-data", Path("/dev/null")) == "allow"


def test_weights_in_the_hidden_folder_can_be_read_and_their_neighbours_cannot(work: Path) -> None:
    weights = work.parent / "weights.safetensors"
    weights.write_text("numbers")
    profile = SeatbeltSandbox((work.parent,)).wrap(["true"], work, (weights,))[2]
    rules = rules_of(profile)
    assert last_word(rules, "file-read-data", weights) == "allow"
    assert last_word(rules, "file-write-data", weights) == "deny"
    assert last_word(rules, "file-read-data", work.parent / "result.json") == "deny"


def test_metal_is_left_open(work: Path) -> None:
    rules = rules_of(seatbelt.profile(work, []))
    opened = [rule for rule in rules if rule.startswith("(allow iokit-open")]
    looked_up = [rule for rule in rules if rule.startswith("(allow mach-lookup")]
    assert "AGXDeviceUserClient" in opened[0]
    assert "com.apple.MTLCompilerService" in looked_up[0]
    assert not any(rule.startswith("(deny iokit") for rule in rules)


@pytest.mark.skipif(sys.platform != "darwin", reason="sandbox-exec is macOS only")
def test_on_a_mac_it_is_a_wall(work: Path, tmp_path: Path) -> None:
    assert seatbelt.status().available, seatbelt.status().why_not
    (tmp_path / "secret").write_text("key")
    code = (
        "import socket\nopen('mine', 'w').write('x')\n"
        f"for place in ({str(tmp_path / 'secret')!r},):\n"
        "    try: print(open(place).read())\n    except OSError: print('no file')\n"
        "try: socket.create_connection(('127.0.0.1', 9), timeout=3)\nexcept PermissionError: print('no network')\n"
    )
    argv = SeatbeltSandbox((tmp_path,)).wrap([sys.executable, "-c", code], work)
    said = subprocess.run(argv, cwd=work, capture_output=True, text=True, timeout=60, check=False)
    assert said.stdout.split("\n")[:2] == ["no file", "no network"], said.stderr
