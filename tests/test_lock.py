"""requirements.lock holds versions and hashes, no address, and agrees with constraints.txt."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINNED = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", LOCK, re.MULTILINE))


def test_every_line_is_a_version_a_hash_or_a_comment():
    for line in LOCK.splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    assert len(PINNED) > 100 and "://" not in LOCK


def test_versions_are_those_of_the_constraints():
    wanted = re.findall(r'^([\w.-]+)==([^;\s]+)(?!.*< "3\.11")', (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in wanted}
    different = {name: v for name, v in names.items() if name in PINNED and PINNED[name] != v}
    assert different == {} and "torch" not in PINNED
