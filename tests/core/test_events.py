"""Events as JSON and back: what was said survives, and what nobody may believe is left out."""

from __future__ import annotations

import json

import pytest

from autoresearch.backends.contract import Device
from autoresearch.core import events
from autoresearch.core.events import EVENTS, Event, from_json, parse_line, read_events, to_json
from autoresearch.core.trial.child.channel import MESSAGES

SAID = [
    events.Compiling(),
    events.Spawned("train", (12,), experiment=3, k=2),
    events.DeviceFound(Device("cuda", "H100", 81559.0, "bf16", "torch 2", "driver 1", 1e15, "h100"), t=0.5),
    events.Startup(),
    events.FirstBatch(),
    events.FirstBatch(monotonic=12.5),
    events.Log(3, 2.5, 0.25, {"lr": 0.1, "norm": None}),
    events.FeedProgress(4096, 2, 0),
    events.MemoryUsed(512),
    events.BadRequest("no such packing"),
    events.DataFault("a shard is missing"),
    events.FeedEnded("deadline", 4096, 2, 0),
    events.Trained(),
    events.Frozen(),
    events.Scoring(5, 10),
    events.Scored(1.25),
    events.Audited(),
    events.Finished({"status": "ok"}),
    events.Proposing(experiment=4),
    events.Thinking(experiment=4),
    events.ProposalRefused("failed", "no reply"),
    events.ExperimentBegun("wider", experiment=4),
    events.Profiling(experiment=4),
    events.Remeasuring(experiment=4),
    events.AwaitingProposals(1, 60.0),
    events.Paused(),
    events.Resumed(),
    events.Withdrawn("it does not fit", experiment=4),
    events.Repeated("the machine slept", experiment=4),
    events.SlowerFile("the file is slower", experiment=4),
    events.SeedIgnored("equal weights", experiment=4),
    events.Decided("keep", 1.25, -0.5, None, experiment=4),
    events.Demoted("did not hold up", experiment=2),
]


def test_the_list_above_has_every_event() -> None:
    assert {type(event) for event in SAID} == set(EVENTS.values())


def test_every_event_that_has_a_name_is_known() -> None:
    found, waiting = set(), [Event]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found |= {kind} if "name" in vars(kind) else set()
    assert found == set(EVENTS.values())


@pytest.mark.parametrize("event", SAID, ids=lambda event: event.name)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event
    assert from_json(to_json(event)) == event  # as on a fleet, where no JSON text lies between


def test_the_json_form_is_one_flat_object() -> None:
    assert to_json(events.Log(3, 2.5, 0.25, {"lr": 0.1})) == {
        "event": "log", "step": 3, "loss": 2.5, "progress": 0.25, "lr": 0.1,
    }  # fmt: skip
    assert to_json(SAID[2])["name"] == "H100"
    assert to_json(events.Scored(float("nan"))) == {"event": "scored", "val_bpb": None}


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON", b"[1]", b"{}", b'{"event": 3}', b'{"event": "unknown"}', b"[" * 100_000,
        b'{"event": "spawned", "role": 3, "pids": [1]}', b'{"event": "spawned", "role": "train", "pids": ["1"]}',
        b'{"event": "scoring", "done": 1.5, "total": 2}', b'{"event": "memory", "mb": true}',
        b'{"event": "memory", "mb": 1' + b"0" * 400 + b"}", b'{"event": "finished", "result": []}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_event_is_skipped(line: bytes) -> None:
    assert parse_line(line) is None


def test_a_claimed_point_is_cut_to_plain_numbers() -> None:
    many = {f"x{index}": index for index in range(100)}
    point = from_json({"event": "log", "step": "many", "loss": 1e200, "text": "\x1b[31m", "yes": True, **many})
    assert isinstance(point, events.Log)
    assert (point.step, point.loss) == (None, None)
    assert len(point.scalars) == events.SCALARS_LIMIT
    assert not {"text", "yes"} & point.scalars.keys()


def test_a_child_cannot_report_what_only_its_parent_may() -> None:
    for event in (events.Scored(0.1), events.Audited(), events.Frozen(), events.Finished({}), events.Spawned("train")):
        assert from_json(to_json(event), MESSAGES) is None


def test_a_trials_file_is_read_without_what_a_crash_cut_off(tmp_path) -> None:
    (tmp_path / "events.jsonl").write_text('{"t": 1.5, "event": "trained"}\nnonsense\n{"t": 2, "event": "fro')
    assert read_events(tmp_path) == [events.Trained(t=1.5)]
    assert read_events(tmp_path / "missing") == []


@pytest.mark.parametrize("half", [b"\\ud800", b"\xed\xa0\x80"])
def test_half_a_character_can_be_written_down(half: bytes) -> None:
    message = parse_line(b'{"event": "log", "step": 1, "loss": 1.0, "' + half + b'": 2.0}')
    assert message is not None
    json.dumps(to_json(message), ensure_ascii=False).encode()
