"""The examine role: try what training needs on this machine, and say what will be used. Trains nothing."""

from __future__ import annotations

from typing import Any

from autoresearch.core.trial.child.channel import Answered, Channel, Remarked
from autoresearch.core.trial.child.train_module import load_train_file


def examine(job: dict[str, Any], runtime: Any, channel: Channel) -> None:
    """Send the runtime's remarks on this machine and, where the job names one, on a train file."""
    module = None
    if job.get("source"):
        try:
            module = load_train_file(job["source"])
        except Exception as error:  # the machine can be looked at all the same
            words = f"the train file cannot be imported: {type(error).__name__}: {error}"
            channel.send(Remarked("train file", "warn", words, None))
    for remark in runtime.examine(module):
        channel.send(Remarked(remark.subject, remark.status, remark.detail, remark.fix))
    channel.send(Answered())
