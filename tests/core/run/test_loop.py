from __future__ import annotations

import time

import pytest
from loop_fixtures import Scripted, Widths, git, make_workspace, open_run, width_of

from autoresearch.core.errors import ArError, LimitReachedError
from autoresearch.core.events import ProposalRefused
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop, Stop
from autoresearch.core.store.columns import TSV
from autoresearch.core.store.git import Repository
from autoresearch.core.store.reader import LedgerReader


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "w")


def go(workspace, researcher, executor, *, n=None, hours=None, stop=None, **options):
    events, decided = [], []
    with open_run(workspace, **options) as run:
        loop = Loop(
            *(run, researcher, Greedy(), executor),
            limits=Limits(n, hours),
            stop=stop,
            observer=events.append,
            on_decided=decided.append,
        )
        return loop.go(), decided, events


def rows(workspace, tag="t"):
    with LedgerReader(workspace / "runs" / tag) as reader:
        return list(reader.experiments())


def test_the_baseline_runs_first_with_the_presets_constants_and_lower_scores_are_kept(workspace):
    executor = Scripted({3: "crash", 4: "timeout"})
    ending, decided, _ = go(workspace, Widths(9, 12, 3, 4, 8, 8 + 1), executor, n=5)
    assert (ending.exit_code, ending.state) == (0, "finished")
    assert [width_of(request.source) for request in executor.requests] == [10, 9, 12, 3, 4, 8]
    assert [row.status for row in decided] == ["keep", "keep", "discard", "crash", "timeout", "keep"]
    assert [row.delta for row in decided] == pytest.approx([None, -0.1, 0.3, None, None, -0.1])
    assert [row.parent for row in decided] == [0, 0, 1, 1, 1, 1]
    assert decided[3].reason == "scripted crash"
    assert all(request.seed == 7 for request in executor.requests)


def test_where_the_incumbent_was_slow_to_start_later_trials_are_given_its_compile_caches(workspace):
    quick = Scripted()
    go(workspace, Widths(9), quick, n=1)
    assert [request.carried for request in quick.requests] == [None, None]
    slow = Scripted()
    slow.startup_seconds = 40.0
    go(workspace, Widths(9, 12, 8), slow, n=3, tag="slow")
    first, *later = slow.requests
    assert first.carried is None
    assert [width_of(request.carried.source) for request in later] == [10, 9, 9], "the best one when each started"
    assert {request.carried.folder for request in later} == {workspace / "runs" / "slow" / "compiled"}


def test_ledger_refs_branch_table_and_best_file_agree(workspace):
    go(workspace, Widths(9, 12, 3, 8), Scripted({3: "crash"}), n=4)
    experiments = rows(workspace)
    repository = Repository.open(workspace)
    assert repository.refs("t") == {row.number: row.commit for row in experiments}
    assert repository.ref("refs/heads/autoresearch/t") == experiments[4].commit
    with LedgerReader(workspace / "runs" / "t") as reader:
        for row in experiments:
            assert repository.read(row.commit, "backends/null/train.py") == reader.text(row.source_sha256)
        assert (workspace / "runs/t/best_train.py").read_text() == reader.text(experiments[4].source_sha256)
    header, *table = (workspace / "runs/t/results.tsv").read_text().splitlines()
    assert header.split("\t") == list(TSV)
    assert [line.split("\t") for line in table] == [
        [experiments[0].commit[:7], "1.000000", "0.5", "keep", "baseline"],
        [experiments[1].commit[:7], "0.900000", "0.5", "keep", "width 9 then"],
        [experiments[2].commit[:7], "1.200000", "0.5", "discard", "width 12 then"],
        [experiments[3].commit[:7], "nan", "nan", "crash", "width 3 then"],
        [experiments[4].commit[:7], "0.800000", "0.5", "keep", "width 8 then"],
    ]
    # Discards hang off the keep that they edited; the branch holds keeps alone.
    branch = git(workspace, "log", "--format=%H", "autoresearch/t").splitlines()
    assert branch[:3] == [experiments[n].commit for n in (4, 1, 0)]


def test_only_the_weights_of_the_baseline_and_the_incumbent_stay_on_disk(workspace):
    executor = Scripted()
    go(workspace, Widths(9, 12, 8, 13), executor, n=4)
    kept = sorted(path.parent.name for path in (workspace / "runs/t/trials").glob("*/weights.safetensors"))
    assert kept == ["0-1", "3-1"]
    assert all(request.keep_weights for request in executor.requests)


def test_the_same_command_goes_on_and_n_counts_the_whole_run(workspace):
    go(workspace, Widths(9, 12), Scripted(), n=2)
    executor = Scripted()
    _, decided, _ = go(workspace, Widths(9, 12, 7, 6), executor, n=4)
    assert [row.number for row in decided] == [3, 4]
    assert [width_of(request.source) for request in executor.requests] == [7, 6]
    assert go(workspace, Widths(9, 12, 7, 6), Scripted(), n=4)[1] == []


@pytest.mark.parametrize("where", ["propose", "start_trial", "score", "decide"])
def test_a_loop_that_dies_right_after_any_transition_is_taken_up_without_loss_or_repeat(workspace, where, monkeypatch):
    whole = make_workspace(workspace.parent / "whole")
    go(whole, Widths(9, 12, 8), Scripted(), n=3)

    class DiedError(Exception):
        pass

    died = Scripted()
    with open_run(workspace) as run:
        original, calls = getattr(run.ledger, where), []

        def die_at_the_second(*args, **kwargs):
            result = original(*args, **kwargs)
            calls.append(args)
            if len(calls) == 2:
                raise DiedError
            return result

        monkeypatch.setattr(run.ledger, where, die_at_the_second)
        with pytest.raises(DiedError):
            Loop(run, Widths(9, 12, 8), Greedy(), died, limits=Limits(3)).go()

    researcher, again = Widths(9, 12, 8), Scripted()
    go(workspace, researcher, again, n=3)
    what = [
        (row.number, row.status, row.val_bpb, row.trials, row.hypothesis, row.source_sha256) for row in rows(workspace)
    ]
    assert what == [
        (row.number, row.status, row.val_bpb, row.trials, row.hypothesis, row.source_sha256) for row in rows(whole)
    ]
    # No result that is in the ledger is measured again, and nothing is left out.
    assert [width_of(request.source) for request in died.requests + again.requests] == [10, 9, 12, 8]
    repository = Repository.open(workspace)
    assert repository.refs("t") == {row.number: row.commit for row in rows(workspace)}
    assert repository.ref("refs/heads/autoresearch/t") == rows(workspace)[3].commit


def test_a_proposal_that_was_made_but_not_run_is_run_and_not_asked_for_again(workspace):
    go(workspace, Widths(9), Scripted(), n=0)
    with open_run(workspace) as run:
        run.propose(Widths(9).propose(run.history("x")), "x")
    researcher = Widths(9)
    _, decided, _ = go(workspace, researcher, Scripted(), n=1)
    assert researcher.calls == 0
    assert [row.number for row in decided] == [1]


def test_a_source_that_differs_only_in_form_is_refused_without_a_device(workspace):
    class Reformats(Widths):
        def propose(self, history):
            proposal = super().propose(history)
            if self.calls <= 2:
                source = history.incumbent.source.replace("# channels", "# more words").replace(" = ", "  =  ")
                return type(proposal)(source, "nothing new", "shape", cost=proposal.cost)
            return proposal

    executor = Scripted()
    _, _, events = go(workspace, Reformats(9), executor, n=1)
    assert len(executor.requests) == 2
    assert [event.reason for event in events if isinstance(event, ProposalRefused)] == [
        "experiment 0 tried this source already"
    ] * 2
    with LedgerReader(workspace / "runs/t") as reader:
        totals = reader.totals()
    assert (totals.failed_proposals, totals.decided, totals.usd, totals.tokens_in) == (2, 1, 1.5, 30)


def test_three_failed_proposals_in_a_row_end_the_loop_with_a_clear_line(workspace):
    with pytest.raises(LimitReachedError, match=r"widths had no usable proposal 3 times in a row: no width is left"):
        go(workspace, Widths(9), Scripted(), n=5)
    assert [row.status for row in rows(workspace)] == ["keep", "keep"]


def test_a_researcher_with_a_fault_is_a_failed_proposal(workspace):
    class Faulty(Widths):
        def propose(self, history):
            if self.calls == 0:
                self.calls += 1
                raise ZeroDivisionError("odd")
            return super().propose(history)

    _, decided, events = go(workspace, Faulty(9), Scripted(), n=1)
    assert len(decided) == 2
    assert ProposalRefused("failed", "ZeroDivisionError: odd") in events


def test_a_baseline_that_fails_ends_the_run_and_the_same_command_tries_it_again(workspace):
    with pytest.raises(ArError, match=r"the baseline ended as crash: scripted crash\. Its log: .*trials/0-1/run\.log"):
        go(workspace, Widths(9), Scripted({10: "crash"}), n=1)
    assert not Repository.open(workspace).ref("refs/heads/autoresearch/t")
    train = workspace / "backends/null/train.py"
    train.write_text(train.read_text().replace("import math", "import math as math"))
    git(workspace, "commit", "-q", "-a", "-m", "fix")
    executor = Scripted()
    ending, decided, _ = go(workspace, Widths(9), executor, n=1)
    assert ending.exit_code == 0
    assert [(row.number, row.status, row.trials) for row in decided] == [(0, "keep", 1), (1, "keep", 1)]
    assert executor.requests[0].folder.name == "0-2"
    assert "import math as math" in executor.requests[0].source


def test_the_program_is_read_at_every_proposal_and_its_version_is_recorded(workspace):
    seen = []

    class Reads(Widths):
        def propose(self, history):
            seen.append(history.program)
            (workspace / "program.md").write_text(f"version {len(seen)}\n")
            return super().propose(history)

    go(workspace, Reads(9, 8), Scripted(), n=2)
    assert seen == ["make it lower\n", "version 1\n"]
    with LedgerReader(workspace / "runs/t") as reader:
        used = list(reader._rows("SELECT program_sha256 FROM proposals WHERE experiment > 0 ORDER BY id"))
        assert [reader.text(row["program_sha256"]) for row in used] == seen


def test_the_first_wish_to_stop_finishes_the_trial_and_the_second_kills_it(workspace):
    stop = Stop()
    executor = Scripted(during=lambda request: stop.finish() if width_of(request.source) == 9 else None)
    ending, decided, _ = go(workspace, Widths(9, 8), executor, stop=stop)
    assert (ending.exit_code, ending.state, len(decided)) == (130, "interrupted", 2)

    stop = Stop()
    executor = Scripted(during=lambda request: (stop.finish(), stop.kill(130)))
    ending, decided, _ = go(workspace, Widths(9, 8), executor, stop=stop)
    assert (ending.exit_code, decided, executor.cancelled) == (130, [], 1)
    assert rows(workspace)[2].state in ("running", "trained")

    _, decided, _ = go(workspace, Widths(9, 8), Scripted(), n=2)
    assert [(row.number, row.trials) for row in decided] == [(2, 1)]
    with LedgerReader(workspace / "runs/t") as reader:
        assert [trial.starts for trial in reader.trials(experiment=2)] == [2]


def test_a_kill_interrupts_a_researcher_that_waits(workspace):
    stop = Stop()

    class Waits(Widths):
        def propose(self, history):
            stop.kill(143)
            time.sleep(60)

    started = time.monotonic()
    ending, _, _ = go(workspace, Waits(), Scripted(), stop=stop)
    assert (ending.exit_code, ending.state) == (143, "interrupted")
    assert time.monotonic() - started < 30


def test_no_trial_starts_that_would_end_more_than_its_budget_after_the_deadline(workspace):
    # The scripted trials say that they take 3 s, the budget is 2 s: with less than 1 s left there is no room.
    ending, decided, _ = go(workspace, Widths(9, 8), Scripted(), hours=0.9 / 3600)
    assert (ending.state, ending.exit_code, len(decided)) == ("finished", 0, 1)
    ending, _, _ = go(workspace, Widths(9, 8), Scripted(), n=2, hours=0.5 / 3600)
    assert (ending.state, ending.exit_code) == ("interrupted", 4)
    assert "after 0 of 2 experiments" in ending.reason


def test_two_identical_runs_record_the_same_experiments(workspace, tmp_path):
    other = make_workspace(tmp_path / "other")
    for folder in (workspace, other):
        go(folder, Widths(9, 12, 8), Scripted(), n=3)
    assert [(r.status, r.source_sha256, r.val_bpb) for r in rows(workspace)] == [
        (r.status, r.source_sha256, r.val_bpb) for r in rows(other)
    ]
