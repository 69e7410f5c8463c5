"""The backends that can be measured here."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from autoresearch.backends.contract import Runtime
from autoresearch.core.trial.sandbox.environment import load_runtime


def loadable(names: Sequence[str]) -> Iterator[tuple[str, Runtime]]:
    """Each of these backends with its runtime; why one is left out is said on stderr."""
    for name in names:
        try:
            runtime = load_runtime(name)
        except Exception as error:
            print(f"  {name} left out: {error}", file=sys.stderr)
            continue
        yield name, runtime
