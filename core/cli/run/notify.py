"""Messages to the person's phone, chat, mail or desktop about kept changes and the end of the loop, sent by apprise."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from autoresearch.core.cli.run.teller import Kind, Teller
from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.report.wording import one_line

PATIENCE_SECONDS = 20.0
"""Seconds that the end of the loop waits for the last messages."""
KINDS = "ntfy:TOPIC|slack:URL|discord:URL|email:ADDRESS|desktop|URL"
"""Targets of --notify. Any other address is apprise's own, which knows more than a hundred services."""
AFTER_COLON = {
    "ntfy": "a topic",
    "slack": "a webhook's address",
    "discord": "a webhook's address",
    "email": "an address",
}
"""Kind of target -> what stands after its colon."""
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
    if kind in AFTER_COLON:
        raise UsageError(f"--notify {kind}: {AFTER_COLON[kind]} belongs after the colon.", fix=f"--notify {KINDS}")
    raise UsageError(f"--notify {_shown(target)}: that is not a way to notify.", fix=f"--notify {KINDS}")


def _own_server(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{'ntfys' if scheme == 'https' else 'ntfy'}://{rest}"


def _shown(target: str) -> str:
    """Name a target without what follows its kind: that may be a secret."""
    return target.strip().partition(":")[0] or "''"


def check_targets(targets: Sequence[str]) -> None:
    """Check that apprise is installed and understands every target. Raises `PrerequisiteError` and `UsageError`."""
    for target in targets:
        _service(target)


def _service(target: str) -> Any:
    """Make apprise's object for a target. Raises as `check_targets` does."""
    address, made = address_of(target), _apprise().Apprise()
    if not made.add(address):
        words = f"--notify {_shown(target)}: this address cannot be notified from here."
        raise UsageError(words, fix=f"--notify {KINDS}")
    return made


def _apprise() -> Any:
    try:
        import apprise
    except ImportError as error:
        raise PrerequisiteError(f"--notify: apprise is not installed ({error}).", fix=INSTALL) from None
    # It logs addresses, which hold secrets, and failures, which are said here in one line.
    logging.getLogger("apprise").addHandler(logging.NullHandler())
    logging.getLogger("apprise").propagate = False
    return apprise


class Notifier(Teller):
    """Sends a message to every target. What fails is reported once for each of them, without its address."""

    def __init__(self, targets: Sequence[str], tag: str, say: Callable[[str], None]) -> None:
        """Take the targets, which `check_targets` has checked. `say` is called from another thread."""
        super().__init__(say, PATIENCE_SECONDS)
        self._tag = tag
        self._services = {target: _service(target) for target in targets}

    def tell(self, kind: Kind, facts: Mapping[str, object]) -> None:
        """Send the message to each target in turn."""
        title, body = _keep(facts) if kind == "keep" else _end(facts)
        for target, service in self._services.items():
            try:
                sent = bool(service.notify(title=f"{self._tag}{title}", body=body, body_format="text"))
            except Exception:  # a plugin's own fault, which must not end the thread
                sent = False
            if not sent:
                self.complain(target, f"--notify {_shown(target)}: a message could not be sent; the run goes on")


def _keep(facts: Mapping[str, object]) -> tuple[str, str]:
    """Return title and text for a kept change."""
    bpb, delta = facts["val_bpb"], facts["delta"]
    change = f" ({delta:+.4f})" if isinstance(delta, float) else ""
    score = f": {bpb:.4f} bits per byte{change}" if isinstance(bpb, float) else ""
    return f": experiment {facts['experiment']} is kept{score}", one_line(str(facts["description"]), 500)


def _end(facts: Mapping[str, object]) -> tuple[str, str]:
    """Return title and text for the end of the loop."""
    words = [str(facts.get("ended") or facts.get("state") or "")]
    best, delta = facts.get("best_bpb"), facts.get("delta")
    if isinstance(best, float):
        against = f", {delta:+.4f} against the baseline" if isinstance(delta, float) and delta else ""
        words.append(f"best: experiment {facts.get('best_experiment')}, {best:.4f} bits per byte{against}")
    return " has ended", one_line("; ".join(words), 500)
