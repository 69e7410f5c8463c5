"""The incumbent's loss curve, as a researcher is shown it."""

from __future__ import annotations

import json

from autoresearch.core.run.history import loss_curve


def write_events(folder, count):
    events = [{"t": 1.0, "event": "spawned"}, {"t": 3.0, "event": "first_batch"}]
    events += [{"t": 3.0 + 0.1 * i, "event": "log", "step": i, "loss": 5.0 - 0.02 * i} for i in range(1, count + 1)]
    text = "\n".join(json.dumps(event) for event in events) + '\n{"t": 9.0, "event": "lo'
    (folder / "events.jsonl").write_text(text)


def test_a_dozen_points_from_the_first_to_the_last(tmp_path):
    write_events(tmp_path, 100)
    points = loss_curve(tmp_path, 10.0).split(", ")
    assert len(points) == 12
    assert (points[0], points[-1]) == ("4.98 at 1%", "3 at 100%")


def test_short_curves_are_shown_whole_and_missing_ones_not_at_all(tmp_path):
    write_events(tmp_path, 2)
    assert loss_curve(tmp_path, 10.0) == "4.98 at 1%, 4.96 at 2%"
    assert loss_curve(tmp_path / "missing", 10.0) == ""
    (tmp_path / "events.jsonl").write_text("no events\n[]\n")
    assert loss_curve(tmp_path, 10.0) == ""
