"""What the doctor says of cards, drivers and libraries, on machines made up from folders and small programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.backends.contract import Remark
from autoresearch.core.cli import checks_gpu
from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial.sandbox.environment import child_environment
from autoresearch.core.trial.sandbox.host_paths import nvidia_cards, visible_roots


def nodes(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_a_machine_without_cards_hears_nothing_of_them(tmp_path):
    assert list(checks_gpu.check_nodes(tmp_path)) == []


def test_a_card_without_the_node_of_its_memory_manager_is_a_failure_with_its_fix(tmp_path):
    [result] = checks_gpu.check_nodes(nodes(tmp_path, "nvidia0", "nvidiactl"))
    assert result.status == "fail"
    assert "nvidia-modprobe" in result.fix
    [result] = checks_gpu.check_nodes(nodes(tmp_path, "nvidia-uvm"))
    assert (result.status, result.detail) == ("pass", "1 card, nvidia-uvm")


def test_cards_that_a_variable_hides_are_named_and_not_counted(tmp_path, monkeypatch):
    nodes(tmp_path, "nvidia0", "nvidia1", "nvidia-uvm")
    assert len(nvidia_cards(tmp_path)) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [result] = checks_gpu.check_nodes(tmp_path)
    assert (result.status, result.detail) == ("warn", "2 cards, hidden by CUDA_VISIBLE_DEVICES")
    assert nvidia_cards(tmp_path) == []


def test_a_second_copy_of_a_library_on_the_path_is_named_with_its_folder(tmp_path):
    assert list(checks_gpu.check_shadowing({"LD_LIBRARY_PATH": f":{tmp_path}:"})) == []
    nodes(tmp_path, "libcudnn.so.9", "libcudnn_ops.so.9", "libm.so")
    [result] = checks_gpu.check_shadowing({"LD_LIBRARY_PATH": f"/nowhere:{tmp_path}"})
    assert result.status == "warn"
    assert "libcudnn.so.9 and 1 more" in result.detail
    assert str(tmp_path) in result.fix


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("echo '4711, python, 3000 MiB'", "warn", "4711, python, 3000 MiB"),
        ("true", "pass", "no other program"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "warn", "NVIDIA-SMI has failed"),
    ],
)
def test_other_users_of_a_card_are_listed(tmp_path, monkeypatch, script, status, words):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    [result] = checks_gpu.check_users()
    assert result.status == status
    assert words in result.detail
    monkeypatch.setenv("PATH", "")
    assert list(checks_gpu.check_users()) == []


def test_words_of_a_child_cannot_steer_the_terminal(monkeypatch):
    said = [Remark("attention", "warn", "slow\x1b[2J\nvery", "do\nthis")]
    monkeypatch.setattr("autoresearch.core.trial.device.examine", lambda backend, source: said)
    [result] = checks_gpu.check_training("cuda", None)
    assert (result.detail, result.fix) == ("slow [2J very", "do this")

    def broken(backend, source):
        raise PrerequisiteError("it does not start", fix="start it")

    monkeypatch.setattr("autoresearch.core.trial.device.examine", broken)
    [result] = checks_gpu.check_training("cuda", None)
    assert (result.status, result.detail, result.fix) == ("warn", "it does not start", "start it")


def test_the_drivers_folder_that_triton_is_told_reaches_a_child_if_the_driver_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_LIBCUDA_PATH", str(tmp_path))
    assert child_environment("/h", "/t")["TRITON_LIBCUDA_PATH"] == str(tmp_path)
    assert tmp_path not in visible_roots(), "a folder of something else stays hidden"
    nodes(tmp_path, "libcuda.so.1")
    assert tmp_path in visible_roots()
