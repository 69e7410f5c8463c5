from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from autoresearch.agent.llm.ideas import load_ideas, nearest_ideas, platform_of
from autoresearch.core.cli.ideas import EXAMPLE
from autoresearch.core.cli.main import cli
from autoresearch.core.errors import UsageError
from autoresearch.core.proposal import Attempt, History


@pytest.fixture
def ideas(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(cli, ["--workspace", str(tmp_path), "ideas", *arguments])

    return run


def history_in(backend, preset):
    """A run that has only its baseline."""
    base = Attempt(
        experiment=0, source="", status="keep", reason="", hypothesis="", category="baseline", researcher="",
        predicted_delta=None, val_bpb=1.0, estimate=1.0, delta=None, parent=0,
    )  # fmt: skip
    return History(
        program="", backend=backend, device="M4", preset=preset, budget_seconds=1, seed=0, vocabularies=(512,),
        incumbent=base, attempts=(base,),
    )  # fmt: skip


def listed(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_bank_holds_what_helped_and_what_hurt_with_where_it_comes_from(ideas):
    bank = listed(ideas("--json"))
    assert len(bank) >= 60
    assert all(one["source"] and one["confidence"] for one in bank)
    by_change = {one["change"]: one for one in bank}
    assert by_change["batch of 2**18 tokens instead of 2**19"]["delta"] == -0.0119
    assert by_change["tied embedding and head"]["verdict"] == "hurts"


def test_filters_narrow_the_list(ideas):
    found = listed(ideas("--json", "--platform", "apple", "--category", "optimizer", "--verdict", "helps"))
    kinds = {(one["platform"], one["category"], one["verdict"]) for one in found}
    assert kinds == {("apple", "optimizer", "helps")}
    assert [one["delta"] for one in listed(ideas("--json", "--search", "peri-ln"))] == [-0.025]
    assert "no idea matches" in ideas("--search", "no such thing").stderr


def test_since_shows_what_the_bank_took_up_since_a_month(ideas):
    late = listed(ideas("--json", "--since", "2026-11"))
    assert {one["added"] for one in late} == {"2026-11"} and len(late) >= 40
    assert listed(ideas("--json", "--since", "2999-01")) == []
    assert "'soon' is neither a month such as 2026-05 nor a day" in ideas("--since", "soon").stderr


def test_contradicting_findings_stand_side_by_side(ideas):
    means = [one for one in listed(ideas("--json", "--search", "exponential mean")) if one["platform"] == "h100"]
    assert {one["verdict"] for one in means} >= {"helps", "hurts"}


@pytest.mark.parametrize(
    ("backend", "preset", "platform"),
    [
        ("cuda", "h100", "h100"),
        ("cuda", "h100-node", "h100"),
        ("cuda", "h200", "h100"),
        ("cuda", "rtx", "rtx"),
        ("cuda", "cpu", "cpu"),
        ("cuda", "demo", "cpu"),
        ("cuda", "mine", "any"),
        ("mlx", "cpu", "apple"),
        ("null", "cpu", "any"),
    ],
)
def test_a_run_is_nearest_to_the_findings_of_its_own_kind_of_device(backend, preset, platform):
    assert platform_of(history_in(backend, preset)) == platform


def test_ones_own_file_comes_first_and_the_example_is_one(ideas, tmp_path):
    (tmp_path / "ideas.toml").write_text(ideas("--example").stdout)
    assert ideas("--example").stdout == EXAMPLE
    assert listed(ideas("--json"))[0]["source"] == "a paper, a run, a hunch"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"attention"', '"magic"', "category"),
        ('"low"', '"certain"', "confidence"),
        ("source =", "sauce =", "source"),
        ("[[idea]]", "[[idea]", "cannot be read"),
        ("[[idea]]", "[idea]", "not a list"),
    ],
)
def test_a_malformed_file_of_ones_own_is_named_with_what_is_wrong(tmp_path, old, new, words):
    (tmp_path / "ideas.toml").write_text(EXAMPLE.replace(old, new))
    with pytest.raises(UsageError, match=words):
        load_ideas(tmp_path)


def test_a_models_ideas_are_from_its_kind_of_device_and_leave_resting_categories_out():
    history = history_in("mlx", "mac")
    near = nearest_ideas(load_ideas(), history, closed=("batch_sequence",))
    assert {idea.platform for idea in near} == {"apple"}
    assert "batch_sequence" not in {idea.category for idea in near}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("delta = nan", "idea 1, delta: Input should be a finite number"),
        (f'change = "{"x" * 5000}"', "idea 1, change: String should have at most 1000 characters"),
        (f'category = "{"x" * 5000}"', "idea 1, category: no category 'xxxx"),
    ],
)
def test_a_value_of_an_own_idea_that_does_not_fit_is_named(tmp_path, line, said):
    given = {"change": '"a"', "platform": '"any"', "category": '"attention"', "verdict": '"helps"'}
    given |= {"source": '"s"', "confidence": '"low"', line.split(" ")[0]: line.split(" = ")[1]}
    text = "\n".join(f"{name} = {value}" for name, value in given.items())
    (tmp_path / "ideas.toml").write_text(f"[[idea]]\n{text}\n")
    with pytest.raises(UsageError) as told:
        load_ideas(tmp_path)
    assert said in str(told.value) and len(str(told.value)) < 600


def test_a_pipe_in_the_place_of_own_ideas_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "ideas.toml")
    with pytest.raises(UsageError, match="it is a pipe, not a file"):
        load_ideas(tmp_path)
