"""What people type by mistake, and what comes back: one clear line, the exit code that is documented, no traceback."""

from __future__ import annotations

import shutil

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop

MISTAKES = (
    # typed, exit code, words that the line holds
    ("trian", 2, "Did you mean 'train'"),
    ("loop --hour 3", 2, "Did you mean '--hours'"),
    ("loop --hours 0", 2, "not in the range x>0"),
    ("loop --hours nan", 2, "'nan' is not a number"),
    ("loop --hours inf", 2, "'inf' is not a number"),
    ("loop --hours 1e300", 2, "1e300 is too large: at most 1e+12"),
    ("loop -n many", 2, "'many' is not a whole number"),
    ("loop -n -3", 2, "not in the range x>=0"),
    ("loop -n 1.5", 2, "'1.5' is not a whole number"),
    ("loop -n 99999999999999999999999", 2, "is too large: at most 1e+12"),
    ("loop --budget nan", 2, "'nan' is not a number"),
    ("loop --budget abc", 2, "'abc' is not a number"),
    ("loop --tag ../x", 2, "cannot name a run"),
    ("loop --preset h10 --tag x", 2, "there is no preset 'h10'"),
    ("loop --researcher gpt", 2, "'tuner', 'llm'"),
    ("loop --researcher llm --tag x", 2, "needs a --model"),
    ("loop --researcher command --tag x", 2, "needs --agent-command"),
    ("loop --researcher command --agent-command nosuchprogram --tag x", 2, "names no program"),
    ("loop --max-usd 5 --tag x", 2, "--researcher llm"),
    ("loop --notify pigeon:x --tag x", 2, "not a way to notify"),
    ("loop --track foo", 2, "'foo' is not one of"),
    ("loop --stop-early maybe", 2, "'maybe' is not one of"),
    ("loop --screen-seconds -1", 2, "-1.0 is not in the range x>=0"),
    ("loop --screen-on A100 --tag x", 2, "--screen-on is an option for a Ray cluster"),
    ("loop --confirm-on H100 --tag x", 2, "--confirm-on is an option for a Ray cluster"),
    ("loop --fleet ray --device A --confirm-on B --tag x", 2, "name two kinds of device"),
    ("loop --screen-seconds quarter", 2, "'quarter' is not a number"),
    ("loop --stacks maybe", 2, "'maybe' is not one of"),
    ("loop --require-isolation vm", 2, "'vm' is not one of"),
    ("loop --fleet kubernetes", 2, "'kubernetes' is not one of"),
    ("--backend tensorflow status", 2, "'tensorflow' is not one of"),
    ("--backend touch status", 2, "Did you mean torch?"),
    ("--workspace /nope status", 2, "does not exist"),
    ("--data-dir /etc/passwd status", 2, "is a file"),
    ("--data-dir ~nobody-of-that-name/x status", 2, "a home folder that does not exist"),
    ("prepare --backend null --preset demo --corpus ~nobody-of-that-name/x", 2, "a home folder that does not exist"),
    ("reproduce ~nobody-of-that-name/x", 2, "a home folder that does not exist"),
    ("init ~nobody-of-that-name/x", 2, "a home folder that does not exist"),
    ("bench --common", 1, "no constant DEPTH, which the common work sets"),
    ("bench --common --preset cpu", 2, "--common measures the small model of `ar compare`, and --preset names another"),
    ("bench --common --preset auto", 1, "no constant DEPTH, which the common work sets"),
    ("reproduce x --seeds 0 --preset cpu", 2, "--preset is for trials, and --seeds 0 runs none"),
    ("reproduce x --seeds 0 --corpus stdlib", 2, "--corpus is for trials, and --seeds 0 runs none"),
    ("status --tag nope", 2, "its runs: first"),
    ("results --tag ../first", 2, "cannot name a run"),
    ("results --why 99", 2, "there is no experiment 99"),
    ("results --why x", 2, "'x' is not a whole number"),
    ("results --last 0", 2, "not in the range x>=1"),
    ("results --tsv --json", 2, "two formats"),
    ("report --out x.html", 2, "--output"),
    (
        "report --output /dev/null/x.html",
        1,
        "the report cannot be written to /dev/null: File exists. Fix: name another",
    ),
    ("report --markdown --output x", 2, "writes no file"),
    ("diff 1 99", 2, "there is no '99'"),
    ("submit nofile.py --why x", 2, "nofile.py cannot be read as a train file"),
    ("submit /dev/zero --why x", 2, "a device, not a file"),
    ("submit --why x --predict nan", 2, "'nan' is not a number"),
    ("submit", 2, "missing option '--why'"),
    ("train --file /dev/zero", 2, "a device, not a file"),
    ("train --file .", 2, "is a directory"),
    ("train --file nofile.py", 2, "No such file"),
    ("train --seed -1", 2, "not in the range x>=0"),
    ("apply --tag nope", 2, "there is no run 'nope'"),
    ("verify --seeds 0", 2, "not in the range x>=3"),
    ("ablate --tag nope", 2, "there is no run 'nope'"),
    ("scale --budgets 0", 2, "list of factors"),
    ("sample --experiment 99 hello", 2, "no experiment 99"),
    ("sample --temperature -1 hello", 2, "not in the range"),
    ("sample --prompts /dev/zero", 2, "a device, not a file"),
    ("export", 2, "missing argument 'DIR'"),
    ("certify --tag nope x", 2, "there is no run 'nope'"),
    ("rm", 2, "missing argument 'TAG'"),
    ("rm nope", 2, "there is no run 'nope'"),
    ("note 99 hello", 2, "there is no experiment 99"),
    ("pin x", 2, "'x' is not a whole number"),
    ("adopt nofile.py", 2, "nofile.py cannot be read as a script"),
    ("adopt /dev/null", 2, "a device, not a file"),
    ("dashboard --host=", 2, "--host '' names no address"),
    ("dashboard --host 127..0.0.1", 2, "cannot listen on 127..0.0.1:8686"),
    ("dashboard --port 99999999", 2, "not in the range 0<=x<=65535"),
    ("init /etc/passwd", 2, "is a file"),
    ("init --agent emacs x", 2, "'claude', 'codex'"),
    ("brief --json --markdown", 2, "two formats"),
    ("result 99", 2, "there is no experiment 99"),
    ("completion tcsh", 2, "'bash', 'zsh', 'fish'"),
    ("loop --budget 1e11", 2, "1e11 is too large: at most 1e+07"),
    ("loop --budget 3 --tag first", 2, "started with train_seconds = 2.0 (--budget), and this is 3.0"),
    ("loop --corpus . --tag first", 2, "started with corpus = 'stdlib'"),
    ("loop --judge racing --tag first --dry-run", 2, "started with judge = 'greedy'"),
    ("loop --judge greedy --tag x --calibrate 3", 2, "--calibrate is an option of the racing judge, and the judge is"),
    ("loop --judge greedy --tag x --stop-early off", 2, "--stop-early is an option of the racing judge"),
    ("loop --judge greedy --tag x --stacks on --dry-run", 2, "--stacks is an option of the racing judge"),
    ("loop --judge greedy --tag x --screen-seconds 0", 2, "--screen-seconds is an option of the racing judge"),
    ("submit --tag first --why x --calibrate 2", 2, "--calibrate is an option of the racing judge"),
    ("loop --tag first --stop-early on", 2, "--stop-early is an option of the racing judge, and the judge is greedy"),
    ("loop --preset cpu --tag first --dry-run", 2, "started with preset = 'demo'"),
    ("loop --temperature 1 --tag x", 2, "--temperature is for language models, and the researcher tuner asks none"),
    ("loop --agent-timeout 5 --tag x", 2, "--agent-timeout is for an outside coding agent"),
    ("loop --tag trials", 2, "that folder holds the trials of `ar train`"),
    ("loop --tag " + 101 * "a", 2, "100 at most"),
    ("loop --slots 0", 2, "neither auto nor a number of slots from 1 to 4096"),
    ("loop --slots 1000000000", 2, "neither auto nor a number of slots from 1 to 4096"),
    ("loop --slots ²", 2, "neither auto nor a number of slots from 1 to 4096"),
    ("loop --slots " + 5000 * "9", 2, "neither auto nor a number of slots from 1 to 4096"),
    ("loop --on-keep= --tag x", 2, "leave the option out to run none"),
    ("loop --on-end= --tag x", 2, "leave the option out to run none"),
    ("prepare --vocab ²", 2, "not a list of sizes"),
    ("loop --notify email:nobody --tag x", 2, "an address belongs after the colon"),
    ("loop --corpus= --tag x", 2, "names no corpus"),
    ("loop --findings= --tag x", 2, "'' names no folder"),
    ("loop --findings ~nobody-of-that-name/x --tag x", 2, "a home folder that does not exist"),
    ("--preset= status", 2, "'' names no preset"),
    ("--workspace= status", 2, "'' names no directory"),
    ("--data-dir= status", 2, "'' names no directory"),
    ("report --output=", 2, "'' names no path"),
    ("train --file=", 2, "'' names no file"),
    ("status --tag a --tag b", 2, "--tag is given more than once"),
    ("loop --corpus nosuch --tag x --dry-run", 2, "there is no corpus 'nosuch'"),
    ("loop --device H100 --tag x --dry-run", 2, "--device is an option for a Ray cluster"),
    ("loop --tag x --corpus " + 300 * "x", 2, "File name too long. Fix: name another file or folder"),
    ("init " + 300 * "x", 2, "File name too long. Fix: name another file or folder"),
    ("prepare --corpus stdlib --shards 3", 2, "--shards is for corpora of the hub"),
    ("prepare --kernel --vocab 512", 2, "--kernel prepares no text, and reads no --vocab"),
    ("prepare --kernel --seq-len 64", 2, "--kernel prepares no text, and reads no --seq-len"),
    ("prepare --vocab 1", 2, "a vocabulary of 1 is impossible"),
    ("prepare --vocab 70000", 2, "at most 65535"),
    ("prepare --seq-len 99999999", 2, "too long"),
    ("prepare --data-dir /proc/x", 1, "cannot use /proc/x: "),
    ("prepare --data-dir /proc", 1, "or name another folder for corpora: --data-dir FOLDER"),
    ("results --why 1 --tsv", 2, "--tsv is for the table"),
    ("results --why 1 --last 2", 2, "--last is for the table"),
    ("ablate --tag first --max-usd 3", 2, "--max-usd is for language models, and no --researcher is named"),
    ("ablate --tag first --researcher llm", 2, "or leave --researcher out"),
    ("scale --tag first --constant NOPE --plan", 2, "name one that is: VOCAB_SIZE, WIDTH"),
    (
        "scale --tag first --constant VOCAB_SIZE --plan",
        2,
        "VOCAB_SIZE = 128, 512: the run's text is prepared with 256 al",
    ),
    ("train --backend mlx", 3, "No such file or directory. Fix: name one with --file"),
    ("config show nothing", 2, "there is no command 'nothing'"),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = make_workspace(tmp_path_factory.mktemp("mistakes") / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9, 12, 3), Greedy(), Scripted({3: "crash"}), limits=Limits(3)).go()
    return folder


@pytest.mark.parametrize(("typed", "code", "words"), MISTAKES, ids=[typed for typed, *_ in MISTAKES])
def test_a_mistake_ends_with_one_clear_line(workspace, monkeypatch, capsys, typed, code, words):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("AR_BACKEND", "null")
    before = sorted(path.name for path in (workspace / "runs").iterdir() if path.name != "submit.lock")
    assert ar(typed.split()) == code
    said = capsys.readouterr()
    complaints = [line for line in said.err.splitlines() if line.startswith("ar: ")]
    assert len(complaints) == 1, said.err
    assert words in complaints[0]
    assert "Traceback" not in said.err
    assert "unexpected" not in complaints[0]
    left = sorted(path.name for path in (workspace / "runs").iterdir() if path.name != "submit.lock")
    assert left == before, "nothing was begun"


def test_a_line_end_in_what_was_typed_leaves_one_line(workspace, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    assert ar(["reproduce", "a\nb"]) == 2
    assert capsys.readouterr().err.startswith(
        "ar: a b cannot be read as a certificate: No such file or directory. Fix:"
    )


def test_a_run_whose_ledger_is_gone_is_not_called_unknown(workspace, monkeypatch, tmp_path, capsys):
    folder = make_workspace(tmp_path / "w")
    (folder / "runs/lost").mkdir(parents=True)
    shutil.copy(workspace / "runs/first/journal.jsonl", folder / "runs/lost")
    monkeypatch.chdir(folder)
    assert ar(["results", "--tag", "lost"]) == 2
    said = capsys.readouterr().err
    assert "has no ledger" in said and "Fix: `ar loop --tag lost` restores it from its journal" in said


@pytest.mark.parametrize("typed", ["status", "results", "loop -n 1", "rm first --yes"])
def test_runs_on_a_disk_that_is_away_are_not_taken_for_none(tmp_path, monkeypatch, capsys, typed):
    folder = make_workspace(tmp_path / "w")
    (folder / "runs").symlink_to(tmp_path / "disk" / "runs")
    monkeypatch.chdir(folder)
    assert ar(["--backend", "null", "--preset", "demo", *typed.split()]) == 2
    told = capsys.readouterr()
    assert f"runs is a link to {tmp_path}/disk/runs, which is not there" in told.out + told.err
    assert "mount the disk" in told.out + told.err
