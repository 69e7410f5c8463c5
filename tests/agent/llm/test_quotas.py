"""Quotas against timidity, and what an edit really is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulated_runs import ROOT, baseline, history_of

from autoresearch.agent.llm.fallback import stand_in
from autoresearch.agent.llm.models import Models
from autoresearch.agent.llm.operators import Task, choose_task
from autoresearch.agent.llm.prompt import Detail, task_text
from autoresearch.agent.llm.providers import Price, Reply
from autoresearch.agent.llm.quotas import IN_A_ROW, MISSES, Demand, next_demand
from autoresearch.agent.llm.researcher import LLM
from autoresearch.agent.llm.spending import Spending
from autoresearch.agent.llm.taxonomy import classify
from autoresearch.agent.structural import MENU
from autoresearch.core.proposal import Attempt, Cost, InFlight, PairedDifference

CUDA = (ROOT / "backends" / "cuda" / "train.py").read_text(encoding="utf-8")


class Timid:
    """A model that only ever changes a learning rate, whatever it is told, and calls it something grand."""

    def __init__(self):
        self.calls = 0

    def complete(self, model, messages, max_tokens):
        self.calls += 1
        text = (
            "HYPOTHESIS: a new attention mechanism\nCATEGORY: attention\nPREDICTED_DELTA: -0.1\nRISK: high\n\n"
            "<<<<<<< SEARCH\nMUON_LR = 0.04  # Muon, the matrices inside the blocks\n=======\n"
            f"MUON_LR = 0.04{self.calls:04}  # Muon, the matrices inside the blocks\n>>>>>>> REPLACE\n"
        )
        return Reply(text, Cost(10, 10, 0.0, model), cut=False)

    def price(self, model):
        return Price(0.0, 0.0)

    def most_usd(self, model, tokens_in, tokens_out):
        return 0.0

    def context_tokens(self, model):
        return 200_000


def attempt_of(number, proposal, status="discard"):
    return Attempt(
        experiment=number, source=proposal.source, status=status, reason="worse", hypothesis=proposal.hypothesis,
        category=proposal.category, researcher=proposal.researcher, predicted_delta=proposal.predicted_delta,
        val_bpb=3.1, estimate=3.1, delta=0.1, parent=0, parameters=proposal.parameters,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quotas_hold_over_forty_proposals_of_a_model_that_only_changes_learning_rates():
    llm = LLM(Models(["timid"], Timid(), Spending()))
    attempts = [baseline(CUDA)]
    for number in range(1, 41):
        proposal = llm.propose(history_of(attempts))
        attempts.append(attempt_of(number, proposal))
    kinds, categories = [], []
    for one in attempts[1:]:
        # What it is, measured again; a follow-up tunes the bold change that it starts from.
        base = one.parameters.get("base", 0) if one.parameters["operator"] == "follow_up" else 0
        change = classify(attempts[base].source, one.source, one.category)
        kinds.append(change.kind)
        categories.append(one.category)
        assert (change.kind, change.category) == (one.parameters["kind"], one.category)
    for start in range(31):
        window = kinds[start : start + 10]
        assert window.count("bold") >= 1
        assert sum(kind != "knob" for kind in window) >= 4
    for start in range(40 - IN_A_ROW):
        assert len(set(categories[start : start + IN_A_ROW + 1])) > 1
    for start in range(40 - MISSES):
        assert len(set(categories[start : start + MISSES + 1])) > 1
    assert len({one.source for one in attempts}) == 41


@pytest.mark.parametrize(
    ("old", "new", "claimed", "kind", "category"),
    [
        ("MUON_LR = 0.04", "MUON_LR = 0.05", "attention", "knob", "optimizer"),
        ("DEPTH = 9", "DEPTH = 8", "shape", "knob", "shape"),
        ("F.relu(x).square()", "F.relu(2.5 * x).square()", "mlp", "knob", "mlp"),
        ("F.relu(x).square()", "F.silu(x)", "mlp", "structural", "mlp"),
        ("F.relu(x).square()", "F.silu(x)", "no category", "structural", "mlp"),
        ("F.relu(x).square()", "F.relu(x).square() + F.silu(x) * x.sigmoid()", "simplification", "structural", "mlp"),
        ('VALUE_EMBEDS = "alternate"', 'VALUE_EMBEDS = "all"', "embeddings_head", "structural", "embeddings_head"),
    ],
)
def test_a_change_is_what_its_syntax_tree_says(old, new, claimed, kind, category):
    assert CUDA.count(old) == 1
    change = classify(CUDA, CUDA.replace(old, new), claimed)
    assert (change.kind, change.category) == (kind, category)


def test_comments_are_no_change_of_structure_and_three_functions_are_bold():
    assert classify(CUDA, CUDA + "# a comment\n", "mlp").names == ()
    bold = CUDA.replace("F.relu(x).square()", "F.gelu(x)").replace("x + sublayer(norm(x))", "norm(x + sublayer(x))")
    bold = bold.replace("SOFTCAP * torch.tanh(z / SOFTCAP) if SOFTCAP else z", "z")
    assert classify(CUDA, bold, "mlp").kind == "bold"


def run_of(*steps):
    attempts = [baseline(CUDA)]
    for number, (kind, category, status) in enumerate(steps, 1):
        one = Attempt(
            experiment=number, source=f"{CUDA}\nX = {number}\n", status=status, reason="worse", hypothesis="h",
            category=category, researcher="llm", predicted_delta=None, val_bpb=None if status == "crash" else 3.1,
            estimate=None, delta=0.1 * number, parent=0, parameters={"kind": kind, "operator": "improve"},
        )  # fmt: skip
        attempts.append(one)
    return attempts


def test_two_numbers_in_a_row_make_a_structural_change_due_and_seven_without_a_bold_one_a_bold_one():
    knob = ("knob", "optimizer", "keep")
    assert next_demand(run_of(knob)).least == "knob"
    assert next_demand(run_of(knob, knob)).least == "structural"
    steps = [("structural", category, "keep") for category in ("mlp", "init", "loss", "shape", "mlp", "init", "loss")]
    assert next_demand(run_of(*steps)).least == "bold"


def test_a_category_rests_after_three_in_a_row_and_after_five_misses():
    three = [("structural", "mlp", "keep")] * 3
    assert next_demand(run_of(*three)).closed == ("mlp",)
    misses = [("structural", name, "discard") for name in ("mlp", "mlp", "init", "mlp", "loss", "mlp", "mlp")]
    assert "mlp" in next_demand(run_of(*misses)).closed
    others = [("structural", name, "discard") for name in ("init", "loss", "shape", "init", "loss")]
    assert "mlp" not in next_demand(run_of(*misses, *others)).closed


def test_a_crash_of_a_structural_change_gets_three_repairs():
    attempts = run_of(("structural", "mlp", "crash"))
    for repair in range(1, 4):
        task = choose_task(history_of(attempts))
        assert task.operator == "debug" and task.base.experiment == repair
        parameters = {"kind": "structural", "operator": "debug", "root": 1, "base": repair}
        attempts.append(replace(attempts[-1], experiment=repair + 1, parameters=parameters))
    assert choose_task(history_of(attempts)).operator != "debug"


def test_a_crash_by_a_number_gets_no_repair():
    assert choose_task(history_of(run_of(("knob", "shape", "crash")))).operator != "debug"


def raw(value, error=0.01, against=0):
    return PairedDifference(value, error, against, ())


def after(attempts, number, difference, **parameters):
    parameters = {"kind": "structural", "operator": "follow_up", "base": 1, **parameters}
    last = replace(attempts[-1], experiment=number, category="init", parameters=parameters, raw=raw(difference))
    return [*attempts, last]


def follows_up(attempts, **more):
    task = choose_task(replace(history_of(attempts), **more))
    return task.operator == "follow_up" and task.base.experiment == 1


def test_a_bold_change_that_came_close_may_be_followed_up_and_again_only_if_that_brought_it_closer():
    bold = run_of(("bold", "attention", "discard"))
    close = [bold[0], replace(bold[1], raw=raw(0.01))]
    assert follows_up(close)
    assert not follows_up([bold[0], replace(bold[1], raw=raw(0.03))])  # clearly worse
    assert not follows_up(close, in_flight=(flying(2, "structural", "init", operator="follow_up", base=1),))
    assert not follows_up(after(close, 2, 0.015))
    closer = after(close, 2, 0.005)
    assert follows_up(closer)
    assert not follows_up(after(closer, 3, 0.001))  # two are enough


def test_a_bold_change_that_the_model_dropped_does_not_come_again():
    bold = run_of(("bold", "attention", "discard"))
    assert follows_up(bold)
    assert not follows_up(after(bold, 2, 0.0, operator="improve", base=0, dropped=1))


def test_constants_that_nobody_knows_close_no_category():
    change = classify("Q_FROB = 1\n", "Q_FROB = 2\n", "nonsense")
    assert not change.sure and change.category != "optimizer"
    block = "# ---- constants: x\nQ_FROB = 1\nLATE_KEYS = 0.5\n# ---- end of constants\n"
    change = classify(block, block.replace("= 1", "= 2"), "attention")
    assert (change.category, change.sure) == ("attention", False)
    five = run_of(*[("knob", "shape", "discard")] * MISSES)
    guessed = [replace(one, parameters={**one.parameters, "guessed": True}) for one in five[1:]]
    assert next_demand(five).closed == ("shape",) and next_demand([five[0], *guessed]).closed == ()


def test_near_misses_are_ranked_by_raw_differences():
    steps = [("structural", name, "discard") for name in ("mlp", "init", "loss", "shape", "schedule")]
    attempts = run_of(*steps)
    differences = (-0.001, 0.004, -0.007, 0.0, -0.002)
    attempts[1:] = [replace(one, raw=raw(d), delta=0.0) for one, d in zip(attempts[1:], differences, strict=True)]
    tasks = [choose_task(history_of(attempts, seed=seed)) for seed in range(60)]
    assert {tuple(a.experiment for a in t.material) for t in tasks if t.operator == "combine"} == {(3, 5)}


def flying(number, kind, category, **parameters):
    parameters = {"kind": kind, "operator": "improve", **parameters}
    return InFlight(number, f"{CUDA}\nX = {number}\n", "h", category, "llm", None, 0, parameters)


def test_what_is_in_flight_counts_as_proposed_and_not_as_missed():
    attempts = run_of(("knob", "optimizer", "keep"))
    assert next_demand(attempts, [flying(2, "knob", "schedule")]).least == "structural"
    four = run_of(*[("structural", name, "discard") for name in ("mlp", "mlp", "init", "mlp", "loss", "mlp")])
    assert "mlp" not in next_demand(four, [flying(7, "structural", "mlp")]).closed
    crashed = run_of(("structural", "mlp", "crash"))
    repair = replace(history_of(crashed), in_flight=(flying(2, "structural", "mlp", operator="debug", root=1),))
    assert choose_task(history_of(crashed)).operator == "debug" != choose_task(repair).operator


def test_keeps_of_different_branches_are_combined_before_near_misses():
    steps = [("structural", "mlp", "keep"), ("structural", "init", "keep"), ("structural", "loss", "discard")]
    thrown_out = run_of(*steps)  # both 1 and 2 edit the first file, and 2 is the incumbent
    misses = [*run_of(steps[1], steps[2], ("structural", "shape", "discard"))]
    misses[2:] = [replace(one, parent=1, raw=raw(-0.002, against=1)) for one in misses[2:]]
    filler = [replace(thrown_out[3], experiment=number, delta=None) for number in (10, 11)]
    for attempts, pair in ((thrown_out, (1, 2)), (misses, (2, 3))):
        tasks = [choose_task(history_of([*attempts, *filler], seed=seed)) for seed in range(60)]
        found = {tuple(one.experiment for one in task.material) for task in tasks if task.operator == "combine"}
        assert found == {pair}


def test_every_operator_comes_up_when_there_is_occasion_for_it():
    steps = [("structural", name, "keep") for name in ("mlp", "init", "loss")]
    steps += [("bold", "attention", "keep"), ("structural", "shape", "discard"), ("structural", "init", "discard")]
    attempts = run_of(*steps)
    attempts[5:] = [replace(one, parent=4) for one in attempts[5:]]
    seen = {choose_task(history_of(attempts, seed=seed)).operator for seed in range(60)}
    assert seen == {"improve", "combine", "ablate", "simplify"}


def test_every_operator_says_what_it_is_about():
    attempts = run_of(*[("structural", name, "keep") for name in ("mlp", "init", "loss", "shape")])
    one, two = attempts[1], attempts[2]
    crash = replace(one, status="crash", reason="IndexError: list index out of range")
    diff = "+X = 1"
    cases = {
        "improve": ((), attempts[-1], ["Propose the one change"]),
        "debug": ((crash,), crash, ["IndexError: list index out of range", diff, "X = 1\n```"]),
        "combine": ((one, two), attempts[-1], [diff, "+X = 2", "adapted to"]),
        "ablate": ((one, two), attempts[-1], [diff, "+X = 2", "Take out"]),
        "simplify": ((attempts[-1],), attempts[-1], ["shorter without making it worse"]),
        "bold": ((), attempts[-1], ["Propose a bold change", "a bold change is due"]),
        "follow_up": ((one,), one, [diff, "came close", "DROP: the reason", "X = 1\n```"]),
    }
    for operator, (material, base, told) in cases.items():
        demand = Demand("bold", (), "a bold change is due") if operator == "bold" else Demand("knob", (), "")
        text = task_text(history_of(attempts), Task(operator, base, material, demand), Detail(cards=0), "", ())
        task = text.partition("# Where the run stands")[2]
        assert all(words in task for words in told), operator


def test_two_changes_that_were_put_together_before_are_not_put_together_again():
    attempts = run_of(*[("structural", name, "discard") for name in ("mlp", "init", "loss", "shape", "schedule")])
    differences = (-0.006, 0.004, -0.004, 0.002, -0.008)
    attempts[1:] = [replace(one, raw=raw(d)) for one, d in zip(attempts[1:], differences, strict=True)]
    lines = {1: "ONE = 1", 3: "THREE = 3", 5: "ONE = 1\nTHREE = 3"}
    for number, line in lines.items():
        attempts[number] = replace(attempts[number], source=f"{CUDA}\n{line}\n")

    def pairs():
        tasks = [choose_task(history_of(attempts, seed=seed)) for seed in range(60)]
        return {tuple(a.experiment for a in t.material) for t in tasks if t.operator == "combine"}

    assert pairs() == {(5, 1)}
    attempts[5] = replace(attempts[5], parameters={"kind": "structural", "operator": "combine"})
    assert pairs() == set()


def test_a_program_whose_tree_is_too_deep_to_compare_has_a_kind_too():
    deep = f"{CUDA}\nX = {' + '.join(['CUDA'] * 1000)}\n"
    assert classify(CUDA, deep, "mlp").kind == "structural" and not classify(CUDA, deep, "mlp").sure


def test_a_crash_is_repaired_although_others_were_decided_meanwhile():
    attempts = run_of(("structural", "mlp", "crash"), ("structural", "init", "discard"), ("structural", "loss", "keep"))
    task = choose_task(history_of(attempts))
    assert (task.operator, task.base.experiment) == ("debug", 1)
    assert choose_task(history_of(attempts), {("debug", 1)}).operator != "debug"
    parameters = {"kind": "structural", "operator": "debug", "root": 1, "base": 1}
    mended = replace(attempts[2], experiment=4, parameters=parameters)
    assert choose_task(history_of([*attempts, mended])).operator != "debug"
    again = choose_task(history_of([*attempts, replace(mended, status="crash"), replace(attempts[2], experiment=5)]))
    assert (again.operator, again.base.experiment) == ("debug", 4)
    later = [replace(attempts[2], experiment=number) for number in range(4, 9)]
    assert choose_task(history_of([*attempts, *later])).operator != "debug"


def test_what_stands_in_for_a_model_is_known_by_the_names_of_its_edits():
    names, run = {edit.name for edit in MENU}, history_of(run_of())
    one = stand_in(run, Demand("structural", (), ""), frozenset()).proposal
    several = stand_in(run, Demand("bold", (), ""), frozenset()).proposal
    assert one.parameters["edit"] in names
    assert len(several.parameters["edit"].split(" + ")) > 1 and set(several.parameters["edit"].split(" + ")) <= names
    assert several.source != CUDA and len(several.hypothesis) > 40
