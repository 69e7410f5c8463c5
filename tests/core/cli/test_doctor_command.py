import functools
import json
import os
import subprocess
import sys

import pytest

from autoresearch.backends import names as backend_names
from autoresearch.core.cli import main
from autoresearch.core.cli.checks import check_workspace
from autoresearch.core.cli.context import Settings
from autoresearch.core.errors import SourceError
from autoresearch.core.trial import device

HIDE_TORCH = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else real(name, *rest)
from autoresearch.core.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module", autouse=True)
def probed_once():
    """Every doctor in this process sees the same devices: each framework is started once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "probe_device", functools.cache(device.probe_device))
        yield


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """No workspace, no prepared data, no keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AR_DATA_DIR", str(tmp_path / "data"))
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    return tmp_path


def findings(capsys, *arguments):
    code = main.run(["--json", *arguments, "doctor"])
    shown = json.loads(capsys.readouterr().out)
    return code, shown, {check["name"]: check for check in shown["checks"]}


def test_a_preset_that_the_backend_lacks_is_no_ready_machine(empty_machine, capsys):
    code, _, checks = findings(capsys, "--backend", "null", "--preset", "bogus")
    assert (code, checks["preset"]["status"]) == (3, "fail")
    assert "there is no preset 'bogus'" in checks["preset"]["detail"] and "demo" in checks["preset"]["fix"]
    code, _, checks = findings(capsys, "--backend", "null", "--preset", "demo")
    assert (code, checks["preset"]["status"]) == (0, "pass")


def test_every_prerequisite_is_named_with_a_status_and_a_fix_where_it_is_not_well(empty_machine, capsys):
    code, shown, checks = findings(capsys, "--backend", "null")
    assert code == 0
    assert shown["ok"] is True
    expected = {"python", "git", "isolation", "user", "compiler", "memory", "disk", "data", "keys", "workspace"}
    assert expected | {f"backend {name}" for name in backend_names()} <= set(checks)
    for check in checks.values():
        assert check["status"] in ("pass", "warn", "fail")
        assert check["detail"]
    assert "numpy" in checks["backend null"]["detail"]


def test_an_empty_machine_is_told_how_to_get_data_and_a_workspace(empty_machine, capsys):
    _, _, checks = findings(capsys, "--backend", "null")
    assert (checks["data"]["status"], checks["workspace"]["status"]) == ("warn", "warn")
    assert "ar prepare" in checks["data"]["fix"]
    assert "ar init" in checks["workspace"]["fix"]


def test_a_workspace_made_by_init_is_well(empty_machine, capsys):
    assert main.run(["-q", "init", "work"]) == 0
    capsys.readouterr()
    _, _, checks = findings(capsys, "--backend", "null", "--workspace", "work")
    assert checks["workspace"]["status"] == "pass"


def test_a_workspace_of_somebody_else_is_said_to_be_one(empty_machine, monkeypatch):
    assert main.run(["-q", "init", "my work"]) == 0

    def refuses(*_):
        raise SourceError("`git rev-parse HEAD` failed: fatal: detected dubious ownership in repository at 'work'")

    monkeypatch.setattr("autoresearch.core.store.git.run_git", refuses)
    found = check_workspace(Settings(workspace=empty_machine / "my work"))
    assert found.status == "warn" and found.detail.endswith("belongs to somebody else, and git does not use it")
    assert f"safe.directory '{empty_machine}/my work', if you trust it" in str(found.fix), "a command for a shell"


def test_a_workspace_that_could_not_keep_a_run_is_said_to_be_one(empty_machine, monkeypatch):
    assert main.run(["-q", "init", "work"]) == 0
    settings = Settings(workspace=empty_machine / "work")
    monkeypatch.setattr("autoresearch.core.cli.checks.ROOM_FOR_RUNS", 2**80)
    found = check_workspace(settings)
    assert (found.status, found.fix) == ("fail", "free some space") and "MiB free for runs" in found.detail
    monkeypatch.setattr("os.access", lambda *_: False)  # a disk mounted to be read alone
    found = check_workspace(settings)
    assert found.status == "fail" and found.detail.endswith("work cannot be written to")


def test_runs_on_another_disk_are_looked_for_there(empty_machine, monkeypatch):
    assert main.run(["-q", "init", "work"]) == 0
    settings, disk = Settings(workspace=empty_machine / "work"), empty_machine / "disk"
    (empty_machine / "work" / "runs").symlink_to(disk)
    found = check_workspace(settings)
    assert found.status == "fail" and f"runs is a link to {disk}, which is not there" in found.detail
    disk.mkdir()
    assert check_workspace(settings).status == "pass"
    monkeypatch.setattr("autoresearch.core.cli.checks.ROOM_FOR_RUNS", 2**80)
    assert check_workspace(settings).detail.startswith(f"{empty_machine / 'work' / 'runs'} has ")


def test_keys_are_shown_by_name_and_never_by_value(empty_machine, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert main.run(["--backend", "null", "doctor"]) == 0
    out = capsys.readouterr().out
    assert "OPENAI_API_KEY" in out
    assert "secret" not in out


def test_a_missing_framework_fails_when_it_was_asked_for_and_says_how_to_install_it(empty_machine):
    done = subprocess.run(
        [sys.executable, "-c", HIDE_TORCH, "--backend", "cuda", "--json", "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["backend"]["status"] == "fail"
    assert "torch" in checks["backend"]["detail"].lower()
    assert "install" in checks["backend"]["detail"] + str(checks["backend"]["fix"])


def test_a_missing_framework_is_a_warning_when_another_was_asked_for(empty_machine):
    done = subprocess.run(
        [sys.executable, "-c", HIDE_TORCH, "--backend", "null", "--json", "doctor"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["backend cuda"]["status"] == "warn"


def test_without_git_nothing_can_run(empty_machine, monkeypatch, capsys):
    (empty_machine / "bin").mkdir()
    monkeypatch.setenv("PATH", str(empty_machine / "bin"))
    code, shown, checks = findings(capsys, "--backend", "null")
    assert code == 3
    assert shown["ok"] is False
    assert checks["git"]["status"] == "fail"
    assert "git" in checks["git"]["fix"]


def test_quiet_shows_only_what_is_not_well(empty_machine, capsys):
    assert main.run(["--backend", "null", "-q", "doctor"]) == 0
    out = capsys.readouterr().out
    assert "pass" not in out
    assert "workspace" in out
