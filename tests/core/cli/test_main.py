import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli import commands, main, runs
from autoresearch.core.cli.context import Settings, find_workspace, pass_settings
from autoresearch.core.errors import LimitReachedError, PrerequisiteError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop

AR = Path(sys.executable).with_name("ar")


@pytest.fixture
def with_command(monkeypatch):
    """Add a command under the name `probe` for one test."""

    def add(function):
        command = click.command("probe")(pass_settings(function))
        module = type(sys)("probe_module")
        module.probe = command
        monkeypatch.setitem(sys.modules, "probe_module", module)
        monkeypatch.setitem(main.COMMANDS, "probe", commands.Entry("probe_module", "probe", "A probe."))

    return add


def test_every_command_can_be_imported_and_has_a_help_text():
    for name, entry in main.COMMANDS.items():
        command = main.cli.get_command(click.Context(main.cli), name)
        assert isinstance(command, click.Command), name
        assert command.help, name
        assert entry.help.endswith("."), name


def test_help_lists_every_command(capsys):
    assert main.run(["--help"]) == 0
    out = capsys.readouterr().out
    for name in main.COMMANDS:
        assert f"\n  {name} " in out


def test_version_is_one_line(capsys):
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ar 0.")


def test_windows_itself_is_sent_to_wsl_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(main.sys, "platform", "win32")
    assert main.run(["status"]) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "WSL" in err


@pytest.mark.parametrize(("typo", "meant"), [("trian", "train"), ("lop", "loop"), ("docter", "doctor")])
def test_a_mistyped_command_is_answered_with_the_nearest_one(capsys, typo, meant):
    assert main.run([typo]) == 2
    assert f"Did you mean '{meant}'" in capsys.readouterr().err


def test_a_mistyped_option_is_answered_with_the_nearest_one(capsys):
    assert main.run(["train", "--buget", "3"]) == 2
    err = capsys.readouterr().err
    assert "--budget" in err
    assert "ar train --help" in err


@pytest.mark.parametrize(("arguments", "command"), [(["loop", "-n"], "ar loop"), (["completion"], "ar completion")])
def test_a_call_that_is_cut_short_is_one_line_that_names_the_right_help(capsys, arguments, command):
    assert main.run(arguments) == 2
    err = capsys.readouterr().err
    assert err.endswith(f"Try '{command} --help'.\n")
    assert err.count("\n") == 1


def test_an_option_in_the_wrong_place_is_answered_with_the_right_one(capsys):
    assert main.run(["train", "--hours", "3"]) == 2
    assert "It is an option of 'loop': ar loop --hours ..." in capsys.readouterr().err


def test_an_option_before_its_command_is_answered_with_the_place_behind_it(capsys):
    assert main.run(["--tag", "x", "status"]) == 2
    assert "It is an option of 'status' and belongs behind it: ar status --tag ..." in capsys.readouterr().err


def test_an_unknown_backend_is_a_usage_error_naming_those_there_are(capsys):
    assert main.run(["--backend", "cdua", "doctor"]) == 2
    assert "null" in capsys.readouterr().err


def test_a_known_error_is_one_line_with_its_own_exit_code(with_command, capsys):
    @with_command
    def probe(settings):
        raise PrerequisiteError("no such corpus.", fix="ar prepare")

    assert main.run(["probe"]) == 3
    assert capsys.readouterr().err == "ar: no such corpus. Fix: ar prepare\n"


def test_a_reached_limit_has_its_own_exit_code(with_command):
    @with_command
    def probe(settings):
        raise LimitReachedError("8 hours are over.")

    assert CliRunner().invoke(main.cli, ["probe"]).exit_code == 4


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(with_command, capsys):
    @with_command
    def probe(settings):
        raise KeyError("depth")

    assert main.run(["probe"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "KeyError" in err
    assert "-v" in err


@pytest.mark.parametrize("arguments", [["-v", "probe"], ["probe", "-v"]])
def test_verbose_shows_the_traceback(with_command, capsys, arguments):
    @with_command
    def probe(settings):
        raise KeyError("depth")

    assert main.run(arguments) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_ends_with_130_and_a_line(with_command, capsys):
    @with_command
    def probe(settings):
        raise KeyboardInterrupt

    assert main.run(["probe"]) == 130
    assert capsys.readouterr().err.strip() == "ar: stopped"


@pytest.mark.parametrize("awaited", ["click", "numpy"], ids=["before the command line", "in the command"])
def test_an_interrupt_while_something_is_imported_is_no_traceback(tmp_path, awaited):
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it is ignored where tests run in the background
        "class Person:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {awaited!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Person())\n"
        "sys.argv = ['ar', 'bench', '--backend', 'null', '--preset', 'demo']\n"
        "from autoresearch.core.cli.entry import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "ar: stopped")


def test_a_program_that_was_started_with_interrupts_ignored_goes_on_ignoring_them():
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sys.argv = ['ar', '--version']\n"
        "from autoresearch.core.cli.entry import main\n"
        "try:\n    main()\nfinally:\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_program_minds_interrupts_from_its_start():
    settings = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'ar = "autoresearch.core.cli.entry:main"\nautoresearch = "autoresearch.core.cli.entry:main"' in settings


@pytest.mark.parametrize("topic", [(), ("loop",), ("fleet", "pause")])
def test_help_as_a_command_is_the_option(capsys, topic):
    assert main.run([*topic, "--help"]) == 0
    shown = capsys.readouterr().out
    assert main.run(["help", *topic]) == 0
    assert capsys.readouterr().out == shown


def test_help_on_a_mistyped_command_names_the_nearest_one(capsys):
    assert main.run(["help", "lop"]) == 2
    assert "there is no command 'lop'. Did you mean 'loop'" in capsys.readouterr().err


def commands_of(group, path=()):
    """Give every command below a group, itself included, with the words that call it."""
    yield path, group
    if isinstance(group, click.Group):
        for name in group.list_commands(click.Context(group)):
            yield from commands_of(group.get_command(click.Context(group), name), (*path, name))


def test_every_command_refuses_an_option_given_twice_that_takes_one_value(capsys):
    for path, command in commands_of(main.cli):
        for one in command.params:
            if isinstance(one, click.Option) and not (one.is_flag or one.count or one.multiple):
                assert main.run([*path, one.opts[0], "1", one.opts[-1], "2"]) == 2, (path, one.opts)
                assert "is given more than once: give it once" in capsys.readouterr().err


def test_options_that_may_be_repeated_still_may(with_command):
    called = []

    @with_command
    @click.option("--model", multiple=True)
    def probe(settings, model):
        called.append((settings.verbosity, settings.json, model))

    assert main.run(["probe", "--model", "a", "-v", "-v", "--json", "--model", "b", "--json"]) == 0
    assert called == [(2, True, ("a", "b"))]


def seen_settings(with_command, arguments, **environment):
    seen = []

    @with_command
    def probe(settings):
        seen.append(settings)

    result = CliRunner().invoke(main.cli, arguments, env=environment)
    assert result.exit_code == 0, result.output
    return seen[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--backend", "null", "--preset", "demo", "-q", "probe"],
        ["probe", "--json", "--backend", "null", "--preset", "demo", "-q"],
        ["--json", "--backend", "cuda", "probe", "--backend", "null", "--preset", "demo", "--quiet"],
    ],
)
def test_shared_options_count_before_and_after_the_command_and_the_later_one_wins(with_command, arguments):
    pytest.importorskip("autoresearch.backends.cuda.runtime")
    settings = seen_settings(with_command, arguments)
    assert (settings.json, settings.backend, settings.preset, settings.verbosity) == (True, "null", "demo", -1)


def test_every_shared_option_has_an_environment_variable(with_command, tmp_path):
    settings = seen_settings(
        with_command,
        ["probe"],
        AR_BACKEND="null",
        AR_PRESET="demo",
        AR_WORKSPACE=str(tmp_path),
        AR_JSON="1",
        AR_VERBOSE="2",
        AR_DATA_DIR=str(tmp_path / "data"),
    )
    assert settings == Settings("null", "demo", tmp_path.resolve(), True, 2, tmp_path.resolve() / "data")


def test_the_workspace_is_the_nearest_folder_upward_that_looks_like_one(tmp_path):
    (tmp_path / "backends" / "null").mkdir(parents=True)
    (tmp_path / "program.md").write_text("goal\n")
    assert find_workspace(tmp_path / "backends" / "null") == tmp_path
    assert find_workspace(tmp_path.parent) == tmp_path.parent


def ends_in_bash(line, script):
    """Return exit code and standard error of a line of bash, which finds a Python script in $0."""
    done = subprocess.run(["bash", "-c", line, script], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    script = (
        "import sys; from autoresearch.core.cli import commands, main; import click, types\n"
        "probe = click.command()(lambda: [click.echo('x' * 1000) for _ in range(10000)])\n"
        "sys.modules['probe_module'] = types.SimpleNamespace(probe=probe)\n"
        "main.COMMANDS['probe'] = commands.Entry('probe_module', 'probe', 'A probe.')\n"
        "sys.exit(main.run(['probe']))\n"
    )
    assert ends_in_bash(f'"{sys.executable}" -c "$0" | head -1; exit ${{PIPESTATUS[0]}}', script) == (141, "")


def test_another_tools_word_for_a_command_is_understood(capsys):
    assert not set(main.OTHER_WORDS) & set(main.COMMANDS)
    assert {meant.split()[0] for meant in main.OTHER_WORDS.values()} <= set(main.COMMANDS)
    assert main.run(["why", "17"]) == 2
    assert "there is no command 'why'. Did you mean 'results --why N'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--help", "--version", "help", "loop --help"])
def test_help_for_a_reader_that_has_left_ends_as_quietly(words):
    script = "import sys; from autoresearch.core.cli import main; sys.exit(main.run(sys.argv[1:]))"
    assert ends_in_bash(f'exec 3> >(exit); wait $!; "{sys.executable}" -c "$0" {words} >&3', script) == (141, "")


def test_completion_names_commands_without_importing_them():
    environment = {**os.environ, "_AR_COMPLETE": "bash_complete", "COMP_WORDS": "ar tr", "COMP_CWORD": "1"}
    done = subprocess.run([AR], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,train"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(capsys, shell):
    assert main.run(["completion", shell]) == 0
    assert f"_AR_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    heavy = ["numpy", "pydantic", "rich", "torch", "mlx", "optuna", "litellm", "pyarrow", "matplotlib", "sqlite3"]
    script = (
        "import json, sys; from autoresearch.core.cli.main import run; code = run(['--help'])\n"
        f"print(json.dumps([code, [name for name in {heavy!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_a_folder_that_is_gone_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (["status"], ["init", "x"], ["--workspace", str(tmp_path), "status"]):
        assert main.run(arguments) == 2
        assert capsys.readouterr().err == "ar: the folder that you are in is gone. Fix: go to another one: cd\n"
    assert main.run(["--help"]) == 0


def test_a_folder_above_that_may_not_be_looked_into_is_no_hindrance(tmp_path, monkeypatch):
    def refused(path, *arguments, **options):
        if str(path).startswith(str(tmp_path)) and path != str(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        return known(path, *arguments, **options)

    known = os.stat
    with monkeypatch.context() as closed:
        closed.setattr(os, "stat", refused)
        found = find_workspace(tmp_path)
    assert found == tmp_path


def run_ar(arguments, redirections="", **environment):
    """Run the program as it is installed; gives its exit code and what it wrote."""
    call = f'"$0" -c "from autoresearch.core.cli.entry import main; main()" {arguments} {redirections}'
    command = ["bash", "-c", call, sys.executable]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def one_run(tmp_path):
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
        run.ledger.note("remark", 1, {"identity": "x", "experiment": 1, "kind": "note", "text": "näher → besser"})
    return folder


def test_an_encoding_without_a_character_shows_a_mark_in_its_place(one_run):
    code, out, err = run_ar(f"note --workspace '{one_run}'", PYTHONIOENCODING="latin-1")
    assert (code, out, err) == (0, "1: näher ? besser\n".encode("latin-1"), b"")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_stream_that_was_closed_is_no_hindrance(one_run, closed):
    code, _, err = run_ar(f"results --workspace '{one_run}'", closed)
    assert code == 0 and b"unexpected" not in err


def test_a_folder_whose_name_is_no_text_is_refused_in_one_line(tmp_path, capsys):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    assert main.run(["init", str(folder)]) == 2
    assert "is not UTF-8 text" in capsys.readouterr().err and not folder.exists()
    folder.mkdir()
    for arguments in (["status"], ["loop"], ["--data-dir", str(folder), "--workspace", str(tmp_path), "prepare"]):
        given = arguments if "--workspace" in arguments else ["--workspace", str(folder), *arguments]
        assert main.run(["--backend", "null", "--preset", "demo", *given]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "is not UTF-8 text. Fix: " in said


def test_a_umask_that_leaves_a_person_without_rights_is_one_line(tmp_path, capsys):
    before = os.umask(0o777)
    try:
        assert main.run(["--workspace", str(tmp_path), "status"]) == 3
        assert os.umask(0o777) == 0o777
    finally:
        os.umask(before)
    assert re.fullmatch(r"ar: this shell's umask, 777, takes .* Fix: umask 022, .*\n", capsys.readouterr().err)


def test_a_machine_without_its_devices_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(os, "devnull", "/nowhere/null")
    assert main.run(["status"]) == 3
    assert re.fullmatch(r"ar: /nowhere/null is missing, .* Fix: mount a whole /dev, .*\n", capsys.readouterr().err)


def test_memory_that_a_limit_refuses_is_one_line(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(runs, "run_rows", refuse)
    assert main.run(["--workspace", str(tmp_path), "results"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ar: the memory is used up. Fix: end other programs") and said.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", ["ideas", "--help"])
def test_output_that_finds_no_room_is_one_line(arguments):
    code, _, err = run_ar(arguments, "> /dev/full")
    said = "ar: the output cannot be written: No space left on device. Fix: free some space, then give the same command"
    assert code == 1 and err.decode().startswith(said) and err.count(b"\n") == 1
