"""Where the time goes, as a language model is told."""

from __future__ import annotations

from dataclasses import replace

from simulated_runs import SOURCE, baseline, history_of

from autoresearch.agent.llm import fence
from autoresearch.agent.llm.operators import choose_task
from autoresearch.agent.llm.prompt import Detail, task_text


def test_a_profile_is_shown_while_there_is_room_and_nothing_where_there_is_none():
    best = baseline(SOURCE)
    without = history_of([best])
    profile = "Of the best train file so far, today.\n\n| forward | 31.00 | 40.0% |"
    history = replace(without, incumbent=replace(best, metrics={**best.metrics, "profile": profile}))
    task = choose_task(history)
    assert f"# Where the time goes\n\n{fence.data(profile)}\n" in task_text(history, task, Detail(), "", ())
    assert "Where the time goes" not in task_text(history, task, Detail(digest=False), "", ())
    assert "Where the time goes" not in task_text(without, task, Detail(), "", ())
