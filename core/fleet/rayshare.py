"""The sharing of a Ray cluster's places: one actor for all loops, made by whichever comes first.

It is sent by value, so that the machine on which it lives needs no ar. Ray itself comes from ray.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from autoresearch.core.fleet import sharing, words
from autoresearch.core.fleet.words import Answer, Report, Word

NAMESPACE, NAME = "autoresearch", "sharing-1"
"""The number is that of the language (see words.py): loops of different versions must not misunderstand each other."""
ANSWER_SECONDS = 5.0


class RayShare:
    """Implements `Share`. An actor that died is replaced; the loops tell the new one what they hold."""

    def __init__(self, ray: Any, where: Any, check: Callable[[], None]) -> None:
        """`where` is Ray's scheduling strategy for the actor; `check` raises when Ray was shut down."""
        self._ray, self._where, self._check = ray, where, check
        self._known: Any = None
        self._lost = False
        self._making = threading.Lock()

    def sync(self, word: Word) -> Answer:
        """See `Sharing`, here and below."""
        return cast("Answer", self._ask(self._actor(), "sync", word))

    def leave(self, name: str, session: str) -> None:
        """A loop has ended."""
        self._ask(self._actor(), "leave", name, session)

    def pause(self, name: str, paused: bool) -> bool:
        """Whether the run may start trials."""
        return bool(self._ask(self._actor(), "pause", name, paused))

    def drain(self, node: str, drained: bool) -> None:
        """Whether a node is offered to nobody."""
        self._ask(self._actor(), "drain", node, drained)

    def report(self) -> Report:
        """How things stand. Makes no actor."""
        try:
            actor = self._ray.get_actor(NAME, namespace=NAMESPACE)
        except ValueError:  # what Ray raises for a name that nobody has
            return Report(runs=[], drained=[])
        return cast("Report", self._ask(actor, "report"))

    def _actor(self) -> Any:
        with self._making:
            self._check()
            if self._known is None:
                for module in (words, sharing):
                    self._ray.cloudpickle.register_pickle_by_value(module)
                asked = {"name": NAME, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True}
                actor = self._ray.remote(num_cpus=0)(sharing.Sharing)
                self._known = actor.options(scheduling_strategy=self._where, **asked).remote(again=self._lost)
            return self._known

    def _ask(self, actor: Any, what: str, *arguments: Any) -> Any:
        self._check()
        try:
            return self._ray.get(getattr(actor, what).remote(*arguments), timeout=ANSWER_SECONDS)
        except self._ray.exceptions.RayActorError:
            with self._making:
                if actor is self._known:
                    self._known, self._lost = None, True
            raise
