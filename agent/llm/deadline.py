"""A time limit for the whole of a call to a server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """Return what `work` returns. Raises what it raises, and `TimeoutError` where that takes more than `seconds`.

    The time limit of a socket starts anew with every byte, so a server that sends one now and then keeps its client for
    ever. `work` runs in a thread of its own, which is left behind when the time is over and ends with the process.
    """
    outcome: futures.Future[Result] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="call to a server", daemon=True).start()
    try:
        return outcome.result(seconds)
    except futures.TimeoutError:  # another class than the built-in one before Python 3.11
        raise TimeoutError(f"no whole answer within {seconds:g} seconds") from None
