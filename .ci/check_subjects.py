#!/usr/bin/env python3
"""Check the subjects of commits: at most 72 characters, no semicolon, no full stop at the end, a capital first.

    check_subjects.py [FIRST]

Looks at the commits after FIRST, the last one from before this rule. Does nothing where the clone does not hold it.
"""

from __future__ import annotations

import subprocess
import sys

FIRST = "f470391"
LONGEST = 72


def faults(subject: str) -> list[str]:
    """List what is wrong with a subject."""
    found = []
    if len(subject) > LONGEST:
        found.append(f"{len(subject)} characters, {LONGEST} are allowed")
    if ";" in subject:
        found.append("a semicolon: make two commits, or say the second thing in the body")
    if subject.endswith("."):
        found.append("a full stop at the end")
    if not subject[:1].isupper():
        found.append("no capital first")
    return found


def subjects_since(first: str) -> list[tuple[str, str]] | None:
    """Read hash and subject of every commit after `first`, merges left out; None where git does not know `first`."""
    command = ["git", "log", "--no-merges", "--format=%h %s", f"{first}..HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in done.stdout.splitlines()]


def main() -> int:
    """Print a line for each fault. Returns 1 if there is one."""
    commits = subjects_since(sys.argv[1] if len(sys.argv) > 1 else FIRST)
    if commits is None:
        print("commit subjects: not checked, this clone does not hold the first commit of the rule")
        return 0
    lines = [f"{commit} {subject}\n    {fault}" for commit, subject in commits for fault in faults(subject)]
    print("\n".join(lines) if lines else f"commit subjects: {len(commits)} checked")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
