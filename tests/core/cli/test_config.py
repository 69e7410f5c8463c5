import json
import os
import re

import pytest

from autoresearch.core.cli import main


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The person's own configuration folder, empty."""
    folder = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    from autoresearch.core.cli.configfile import user_file

    user_file().parent.mkdir(parents=True)
    return user_file()


@pytest.fixture
def work(tmp_path, monkeypatch, user):
    """A folder that looks like a workspace, and is where the person stands."""
    for name in ("AR_DATA_DIR", "AR_BACKEND", "AR_PRESET"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "work"
    (folder / "backends" / "null").mkdir(parents=True)
    (folder / "program.md").write_text("goal\n")
    monkeypatch.chdir(folder)
    return folder


def settings_shown(capsys, *arguments):
    assert main.run([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    return {(one["command"], one["option"]): (one["value"], one["origin"]) for one in shown["settings"]}


def test_a_flag_wins_over_the_environment_that_over_the_workspace_that_over_the_person_that_over_the_default(
    work, user, monkeypatch, capsys
):
    def preset(*arguments):
        return settings_shown(capsys, *arguments, "config", "show", "loop")[None, "preset"]

    assert preset() == ("auto", "default")
    user.write_text('preset = "cpu"\n')
    assert preset() == ("cpu", f"{user}:1")
    (work / "ar.toml").write_text('\npreset = "demo"\n')
    assert preset() == ("demo", f"{work / 'ar.toml'}:2")
    monkeypatch.setenv("AR_PRESET", "h100")
    assert preset() == ("h100", "AR_PRESET")
    assert preset("--preset", "rtx") == ("rtx", "flag")


def test_every_option_of_a_command_is_shown_with_its_origin(work, monkeypatch, capsys):
    (work / "ar.toml").write_text('[loop]\nmax-usd = 5\nvocab = [512, 1024]\nprice = "a/b=1/2"\nallow_dirty = true\n')
    monkeypatch.setenv("AR_LOOP_HOURS", "8")
    shown = settings_shown(capsys, "config", "show", "loop")
    file = work / "ar.toml"
    assert shown["loop", "max-usd"] == (5.0, f"{file}:2")
    assert shown["loop", "vocab"] == ([512, 1024], f"{file}:3")
    assert shown["loop", "price"] == (["a/b=1/2"], f"{file}:4")
    assert shown["loop", "allow-dirty"] == (True, f"{file}:5")
    assert shown["loop", "hours"] == (8.0, "AR_LOOP_HOURS")
    assert shown["loop", "researcher"] == ("tuner", "default")
    assert shown["loop", "budget"] == ("(the preset's)", "default")
    assert not [key for key in shown if key[0] not in (None, "loop")]


def test_the_table_can_be_cut_to_what_somebody_has_set(work, capsys):
    (work / "ar.toml").write_text("[loop]\nhours = 8\n")
    assert main.run(["config", "show", "--set"]) == 0
    out = capsys.readouterr().out
    assert out.split() == ["loop.hours", "8.0", f"{work / 'ar.toml'}:2"]


def test_every_kind_of_value_can_be_shown_as_json(work, monkeypatch, capsys):
    monkeypatch.setenv("AR_IDEAS_SINCE", "2026-05-31")
    monkeypatch.setenv("AR_SCALE_BUDGETS", "0.5,2")
    monkeypatch.setenv("AR_PREPARE_VOCAB", "512,1024")
    shown = settings_shown(capsys, "config", "show")
    assert shown["ideas", "since"] == ("2026-05", "AR_IDEAS_SINCE")
    assert shown["scale", "budgets"][0] == [0.5, 2.0] and shown["prepare", "vocab"][0] == [512, 1024]


def test_a_workspace_that_is_named_after_the_command_brings_its_own_file(work, tmp_path, monkeypatch, capsys):
    (work / "ar.toml").write_text('preset = "demo"\n[loop]\nhours = 8\n')
    monkeypatch.chdir(tmp_path)
    assert settings_shown(capsys, "config", "show")[None, "preset"] == ("auto", "default")
    shown = settings_shown(capsys, "config", "show", "--workspace", str(work))
    assert shown[None, "preset"] == ("demo", f"{work / 'ar.toml'}:1")
    assert shown["loop", "hours"] == (8.0, f"{work / 'ar.toml'}:3")


def test_a_command_takes_its_defaults_from_the_file(work, capsys):
    (work / "ar.toml").write_text('backend = "null"\n[ideas]\nverdict = "hurts"\nsearch = "e"\n')
    assert main.run(["ideas", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found
    assert {idea["verdict"] for idea in found} == {"hurts"}
    assert main.run(["ideas", "--json", "--verdict", "helps", "--search", ""]) == 0
    assert {json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()} == {"helps"}


def test_a_path_in_the_file_is_taken_from_the_file_whatever_folder_one_stands_in(work, monkeypatch, capsys):
    (work / "texts").mkdir()
    (work / "ar.toml").write_text('data-dir = "data"\n[loop]\ncorpus = "texts"\n[prepare]\ncorpus = "stdlib"\n')
    monkeypatch.chdir(work / "backends")
    shown = settings_shown(capsys, "config", "show")
    assert shown[None, "data-dir"][0] == str(work / "data")
    assert shown["loop", "corpus"][0] == str(work / "texts")
    assert shown["prepare", "corpus"][0] == "stdlib"
    for written in ('"from-mac/night"', '["auto", "from-mac/night", "~/else"]'):
        (work / "ar.toml").write_text(f"[loop]\nfindings = {written}\n")
        found = settings_shown(capsys, "config", "show", "loop")["loop", "findings"][0]
        assert next(one for one in found if one != "auto") == str(work / "from-mac/night")
    assert found[0] == "auto" and found[2] == str(work.parent / "else")  # HOME


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('presett = "demo"', 1, "did you mean preset?"),
        ("\nhours = 3", 2, "below [loop]"),
        ("[lop]\nhours = 3", 1, "did you mean loop?"),
        ("[loop]\nmax_ust = 3", 2, "did you mean max-usd?"),
        ('[loop]\ntag = "x"\npreset = "demo"', 3, "above the first table"),
        ("[loop]\nhours = true", 2, "hours takes one value"),
        ("[loop]\nhours = [1]", 2, "hours takes one value"),
        ("[loop]\nallow-dirty = 1", 2, "true or false"),
        ("[doctor]\nx = 1", 2, "no options"),
        ("backend = 5", 1, "backend: '5' is not one of"),
        ('preset = ""', 1, "preset: '' names no preset"),
        ('data-dir = ""', 1, "data-dir: '' names no directory"),
        ('[loop]\ncorpus = ""', 2, "corpus: '' names no corpus"),
        ("[loop]\nexperiments = 1.5", 2, "experiments: '1.5' is not a whole number"),
        ("[loop]\nmodel = [[1]]", 2, "model takes one value or a list"),
    ],
)
def test_a_key_that_is_none_is_an_error_that_names_the_line_and_the_right_one(work, capsys, text, line, said):
    (work / "ar.toml").write_text(text)
    assert main.run(["status"]) == 2
    err = capsys.readouterr().err
    assert f"{work / 'ar.toml'}:{line}: " in err
    assert said in err
    assert err.count("\n") == 1


def test_a_number_where_a_text_is_asked_for_is_that_text(work, capsys):
    (work / "ar.toml").write_text("data-dir = 5\n[loop]\ncorpus = 5\ntag = 2026\non-keep = 7\nvocab = [512, 1024]\n")
    shown = settings_shown(capsys, "config", "show")
    assert shown[None, "data-dir"][0] == str(work / "5")
    of_loop = {option: value for (command, option), (value, _) in shown.items() if command == "loop"}
    assert (of_loop["corpus"], of_loop["tag"], of_loop["on-keep"]) == ("5", "2026", "7")
    assert of_loop["vocab"] == [512, 1024]


@pytest.mark.parametrize("text", ["[loop\n", "a = " + "[" * 5000, "a = " + "9" * 5000], ids=["half", "deep", "long"])
def test_a_file_that_is_no_toml_is_said_and_help_works_all_the_same(work, capsys, text):
    (work / "ar.toml").write_text(text)
    assert main.run(["status"]) == 2
    assert f"{work / 'ar.toml'} is not valid TOML" in capsys.readouterr().err
    assert main.run(["loop", "--help"]) == 0
    assert "--hours" in capsys.readouterr().out


def test_a_file_of_an_editor_that_writes_a_byte_order_mark_is_read(work, capsys):
    (work / "ar.toml").write_bytes(b'\xef\xbb\xbfbackend = "null"\r\n')
    assert main.run(["config", "show"]) == 0
    assert re.search(r"backend +null +.*ar.toml:1", capsys.readouterr().out)


@pytest.mark.parametrize("variable", [False, True])
def test_a_value_that_does_not_fit_says_where_it_was_written(work, monkeypatch, capsys, variable):
    if variable:
        monkeypatch.setenv("AR_LOOP_HOURS", "eight")
    (work / "ar.toml").write_text('[loop]\n\nhours = "eight"\n')
    assert main.run(["loop"]) == 2
    err = capsys.readouterr().err
    assert "'eight' is not a number" in err
    assert ("It comes from AR_LOOP_HOURS." if variable else f"{work}/ar.toml:3: hours:") in err


def test_a_model_in_the_file_does_not_hinder_the_tuner(work, capsys):
    (work / "ar.toml").write_text('backend = "null"\npreset = "demo"\n[loop]\nmodel = "openai/x"\nmax-usd = 5\n')
    assert main.run(["loop"]) == 1  # no git repository here; the options were taken
    assert "git" in capsys.readouterr().err
    assert main.run(["loop", "--max-usd", "5"]) == 2
    assert "asks none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "it is a pipe, not a file"),
        (lambda path: path.mkdir(), "it is a folder, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
        (lambda path: path.write_bytes(b"#" * 2**21), "at most 1,048,576 are read"),
        (lambda path: path.write_bytes(b"k" * 200_000 + b" = 1"), "there is no key 'k"),
        (lambda path: path.write_text('"a\\nb\\u001b[31m" = 1'), r"there is no key 'a\nb\x1b[31m' above"),
    ],
)
def test_what_is_no_file_of_settings_is_one_short_line_at_once(work, capsys, make, said):
    make(work / "ar.toml")
    assert main.run(["status"]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and len(told) < 600
