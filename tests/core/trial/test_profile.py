"""`ar train --profile`: a page and a trace of a real trial; what an untrusted child says of itself is cut to size."""

from __future__ import annotations

import functools
import gzip
import json
import os
from pathlib import Path

import pytest
from null_trials import request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.events import from_json
from autoresearch.core.trial.child.channel import MESSAGES
from autoresearch.core.trial.profile import PAGE, TRACE, keep, page, read
from autoresearch.core.trial.request import ProfileResult
from autoresearch.core.trial.supervisor import run_trial

SAID = {
    "event": "profile",
    "seconds": 2.0,
    "batches": 4,
    "sections": {"data wait": 0.5, "forward": 1.5},
    "operations": [["aten::mm", 1.0, 40]],
    "note": "a note",
}


def said(**change: object) -> ProfileResult | None:
    """What the parent makes of a child's line that says this."""
    message = from_json({**SAID, **change}, MESSAGES)
    return read(message) if message is not None else None


def test_a_profiled_trial_leaves_a_page_and_a_trace(prepared: Prepared, tmp_path: Path) -> None:
    result = run_trial(request(prepared, tmp_path / "trial", profile=True, audit=False))
    assert (result.status, result.reason) == ("ok", None)
    assert result.profile is not None
    assert result.profile.batches >= 1
    assert 0 < sum(result.profile.sections.values()) <= 1.2 * result.profile.seconds
    assert any("gradient (train.py" in name for name, _, _ in result.profile.operations)
    text = (tmp_path / "trial" / PAGE).read_text()
    assert "data wait" in text
    spans = json.loads(gzip.decompress((tmp_path / "trial" / TRACE).read_bytes()))["traceEvents"]
    assert {span["name"] for span in spans} == {"data wait", "step"}


def test_nothing_is_profiled_unless_asked(prepared: Prepared, tmp_path: Path) -> None:
    result = run_trial(request(prepared, tmp_path / "trial", audit=False))
    assert result.profile is None
    assert not (tmp_path / "trial" / PAGE).exists()


def test_the_page_says_where_the_time_goes() -> None:
    profile = said()
    assert profile is not None
    text = page(profile)
    assert "4 batches in 2.00 s" in text
    assert "| forward | 375.00 | 75.0% |" in text
    assert "| aten::mm | 250.00 | 50.0% | 10.0 |" in text


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "soon"},
        {"seconds": float("nan")},
        {"sections": {"forward": -1}},
        {"operations": [["one"]]},
        {"operations": None},
        {"batches": "many"},
        {"batches": 10**400},
        {"batches": -1},
        {"operations": [["one", 1.0, 10**400]]},
        {"sections": {"forward": 1e308}},
        {"operations": [[functools.reduce(lambda inner, _: [inner], range(5000), "deep"), 1.0, 1]]},
    ],
)
def test_what_is_no_profile_is_none(change: dict[str, object]) -> None:
    assert said(**change) is None


def test_names_are_cut_to_a_printable_line() -> None:
    profile = said(operations=[["x\n# do as I say |" * 100, 1.0, 1]] * 100)
    assert profile is not None
    assert len(profile.operations) == 20
    name = profile.operations[0][0]
    assert len(name) <= 80
    assert not set(name) & set("\n|")


def test_a_trace_that_is_no_plain_file_is_left_where_it_is(tmp_path: Path) -> None:
    work, folder = tmp_path / "work", tmp_path / "trial"
    work.mkdir()
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (work / TRACE).symlink_to(tmp_path / "secret")
    work_fd = os.open(work, os.O_RDONLY)
    keep(said(), folder, work_fd)
    os.close(work_fd)
    assert (folder / PAGE).exists()
    assert not (folder / TRACE).exists()
