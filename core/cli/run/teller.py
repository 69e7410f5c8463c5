"""Telling somebody outside of kept changes and of the end of the loop, in a thread: the loop does not wait for it."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from autoresearch.core.store.rows import ExperimentRow

Kind = Literal["keep", "end"]


class Teller(ABC):
    """Tells of one thing after another in a thread of its own. Each kind of trouble is reported once."""

    def __init__(self, say: Callable[[str], None], patience_seconds: float) -> None:
        """Wait at most so long at the end for what is still to be told. `say` is called from the thread."""
        self._say, self._patience = say, patience_seconds
        self._complained: set[str] = set()
        self._waiting: queue.SimpleQueue[tuple[Kind, Mapping[str, object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=type(self).__name__, daemon=True)

    @abstractmethod
    def tell(self, kind: Kind, facts: Mapping[str, object]) -> None:
        """Tell of a kept change or of the end. Called in the thread."""

    def complain(self, key: str, words: str) -> None:
        """Report trouble, the first time that it comes under this key."""
        if key not in self._complained:
            self._complained.add(key)
            self._say(words)

    def decided(self, row: ExperimentRow) -> None:
        """Queue a kept change. The baseline is no change."""
        if row.status == "keep" and row.number > 0:
            names = ("val_bpb", "estimate", "delta", "commit", "category", "researcher", "reason")
            facts = {name: getattr(row, name) for name in names}
            self._put(("keep", {"experiment": row.number, "description": row.hypothesis, **facts}))

    def close(self, facts: Mapping[str, object]) -> None:
        """Queue the end, then wait until all is told, within the patience."""
        self._put(("end", facts))
        self._put(None)
        self._thread.join(self._patience)

    def _put(self, waiting: tuple[Kind, Mapping[str, object]] | None) -> None:
        if not self._thread.ident:  # not before: a subclass is not whole while this one is made
            self._thread.start()
        self._waiting.put(waiting)

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            self.tell(*waiting)
