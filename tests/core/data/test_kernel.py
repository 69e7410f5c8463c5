"""A kernel is used when every file of it is the pinned one, and is never imported to be installed."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import huggingface_hub
import pytest

from autoresearch import backends
from autoresearch.backends.cuda import runtime
from autoresearch.core.cli import main
from autoresearch.core.data import kernel
from autoresearch.core.data.kernel import Kernel, install, kernel_of, look
from autoresearch.core.errors import DataError, PrerequisiteError

COMMIT = "a" * 40
CODE = b"raise SystemExit('imported')"
FILES = {"build/torch/fast/__init__.py": CODE, "build/torch/fast/_ops.so": b"\x7fELF"}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
PINNED = Kernel("org/fast", COMMIT, HASHES)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """A hub that serves `files`, and an environment of its own; `asked` are the commits that were asked for."""
    served = SimpleNamespace(files=dict(FILES), asked=[], links={})

    def download(repository, *, revision, local_dir, **_):
        served.asked.append(revision)
        for name, content in served.files.items():
            path = local_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name, target in served.links.items():
            (local_dir / name).symlink_to(target)
        (local_dir / ".cache").mkdir(exist_ok=True)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *a, **k: SimpleNamespace(sha=COMMIT))
    monkeypatch.setattr(kernel, "kernels_folder", lambda: tmp_path / "share/kernels")
    return served


def test_a_pinned_kernel_is_installed_once_without_being_imported(hub):
    folder = install(PINNED)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    install(PINNED)
    assert hub.asked == [COMMIT]


@pytest.mark.parametrize("fault", ["another file", "one more", "one less", "a link"])
def test_a_kernel_that_is_not_the_pinned_one_is_not_installed(hub, fault):
    if fault == "another file":
        hub.files["build/torch/fast/_ops.so"] = b"\x7fELF!"
    elif fault == "one more":
        hub.files["build/torch/fast/more.py"] = b""
    elif fault == "one less":
        del hub.files["build/torch/fast/_ops.so"]
    else:
        hub.links["build/torch/fast/x"] = "/etc/hostname"
    with pytest.raises(DataError, match="nothing was installed"):
        install(PINNED)
    assert not PINNED.folder.exists()


def test_files_that_were_changed_later_are_put_right(hub):
    (install(PINNED) / "build/torch/fast/_ops.so").write_bytes(b"else")
    assert (install(PINNED) / "build/torch/fast/_ops.so").read_bytes() == b"\x7fELF"
    assert len(hub.asked) == 2


@pytest.mark.parametrize(
    "pin", [Kernel("org/fast", "", {}), Kernel("org/fast", COMMIT, {}), Kernel("a/b", "main", HASHES)]
)
def test_without_a_commit_and_hashes_nothing_is_fetched_and_the_way_to_them_is_said(hub, pin):
    with pytest.raises(PrerequisiteError, match="ar prepare --kernel --json"):
        install(pin)
    assert hub.asked == []


def test_the_newest_commit_is_shown_as_the_pin_that_it_would_be():
    found = look(Kernel("org/fast", "", {}), "main")
    assert json.loads(found.as_json()) == {"repository": "org/fast", "revision": COMMIT, "files": HASHES}
    assert not found.folder.exists()


def test_a_pin_cannot_name_a_file_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "odd").mkdir()
    pin = {"repository": "a/b", "revision": COMMIT, "files": {"../x": ""}}
    (tmp_path / "odd/kernel.json").write_text(json.dumps(pin))
    monkeypatch.setattr(backends, "__path__", [str(tmp_path)])
    with pytest.raises(DataError, match="outside the kernel"):
        kernel_of("odd")


def test_the_command_says_what_a_backend_loads(capsys):
    assert main.run(["--backend", "null", "prepare", "--kernel"]) == 2
    assert "loads no kernel" in capsys.readouterr().err


def test_a_trial_is_told_of_the_checked_files_and_of_no_others(tmp_path, monkeypatch):
    pinned = kernel_of("cuda")
    assert (pinned.repository, pinned.pinned) == ("kernels-community/flash-attn3", bool(pinned.files))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    assert "LOCAL_KERNELS" not in runtime.launch_environment()
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "runtime.py"))
    (tmp_path / "kernel.json").write_text(PINNED.as_json())
    folder = tmp_path / "share/kernels" / PINNED.folder.name
    assert "LOCAL_KERNELS" not in runtime.launch_environment()
    folder.mkdir(parents=True)
    assert runtime.launch_environment()["LOCAL_KERNELS"] == f"org/fast={folder}"
    assert runtime.launch_environment()["HF_HUB_OFFLINE"] == "1"
