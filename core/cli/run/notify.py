"""Messages to the person's phone, chat, mail or desktop about kept changes and the end of the loop, sent by apprise."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.report.wording import one_line

if TYPE_CHECKING:
    from autoresearch.core.store.rows import ExperimentRow

PATIENCE_SECONDS = 20.0
"""Seconds that the end of the loop waits for the last messages."""
KINDS = "ntfy:TOPIC|slack:URL|discord:URL|email:ADDRESS|desktop|URL"
"""What --notify takes. Any other address is apprise's own, which knows more than a hundred services."""
INSTALL = "pip install apprise"


def address_of(target: str) -> str:
    """Return apprise's address for what a person has typed. Raises `UsageError` for what is none.

    ntfy:TOPIC uses the public server, ntfy:https://HOST/TOPIC another one. slack: and discord: take the address of a
    webhook. email: hands the message to the mail server of this machine; mailto:// addresses name another one.
    """
    kind, _, rest = target.strip().partition(":")
    if kind == "desktop" and not rest:
        return {"darwin": "macosx://", "win32": "windows://"}.get(sys.platform, "dbus://")
    if kind == "ntfy" and rest and not rest.startswith("//"):
        return _own_server(rest) if "://" in rest else f"ntfy://{quote(rest, safe='')}"
    if kind in ("slack", "discord") and rest.startswith(("https://", "http://")):
        return rest
    if kind == "email" and "@" in rest:
        to = quote(rest, safe="@")
        return f"mailto://localhost:25/?mode=insecure&to={to}&from={to}"
    if "://" in target:
        return target.strip()
    raise UsageError(f"--notify {_shown(target)}: there is no such way to notify.", fix=f"--notify {KINDS}")


def _own_server(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{'ntfys' if scheme == 'https' else 'ntfy'}://{rest}"


def _shown(target: str) -> str:
    """Name a target without what follows its kind: that may be a secret."""
    return target.strip().partition(":")[0] or "''"


def check_targets(targets: Sequence[str]) -> None:
    """Check that apprise is installed and understands every target. Raises `PrerequisiteError` and `UsageError`."""
    for target in targets:
        made = _apprise().Apprise()
        if not made.add(address_of(target)):
            words = f"--notify {_shown(target)}: this is no address that can be notified from here."
            raise UsageError(words, fix=f"--notify {KINDS}")


def _apprise() -> Any:
    try:
        import apprise
    except ImportError as error:
        raise PrerequisiteError(f"--notify: apprise is not installed ({error}).", fix=INSTALL) from None
    # It logs addresses, which hold secrets, and failures, which are said here in one line.
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("apprise").propagate = False
    return apprise


class Notifier:
    """Sends messages in a thread of its own. What fails is reported once for each target, without its address."""

    def __init__(self, targets: Sequence[str], tag: str, say: Callable[[str], None]) -> None:
        """Start the thread where there is a target. `say` is called from it."""
        self._tag, self._say = tag, say
        self._targets = {target: address_of(target) for target in dict.fromkeys(targets)}
        self._complained: set[str] = set()
        self._waiting: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="notifier", daemon=True)
        if self._targets:
            self._thread.start()

    def decided(self, row: ExperimentRow) -> None:
        """Queue a message for a kept change. The baseline is no change."""
        if row.status == "keep" and row.number > 0:
            delta = "" if row.delta is None else f" ({row.delta:+.4f})"
            score = "" if row.val_bpb is None else f": {row.val_bpb:.4f} bits per byte{delta}"
            self._waiting.put((f"{self._tag}: experiment {row.number} is kept{score}", one_line(row.hypothesis, 500)))

    def close(self, facts: Mapping[str, object]) -> None:
        """Queue the message of the end, then wait until all are sent, at most PATIENCE_SECONDS."""
        if not self._targets:
            return
        words = [str(facts.get("ended") or facts.get("state") or "")]
        best, delta = facts.get("best_bpb"), facts.get("delta")
        if isinstance(best, float):
            against = f", {delta:+.4f} against the baseline" if isinstance(delta, float) and delta else ""
            words.append(f"best: experiment {facts.get('best_experiment')}, {best:.4f} bits per byte{against}")
        self._waiting.put((f"{self._tag} has ended", one_line("; ".join(words), 500)))
        self._waiting.put(None)
        self._thread.join(PATIENCE_SECONDS)

    def _work(self) -> None:
        apprise = _apprise()
        while (waiting := self._waiting.get()) is not None:
            title, body = waiting
            for target, address in self._targets.items():
                made = apprise.Apprise()
                try:
                    sent = bool(made.add(address)) and made.notify(title=title, body=body, body_format="text")
                except Exception as error:  # a plugin's own fault, which must not end the thread
                    sent = False
                    logging.getLogger("apprise").debug("%s", error)
                if not sent and target not in self._complained:
                    self._complained.add(target)
                    self._say(f"--notify {_shown(target)}: a message could not be sent; the run goes on")
