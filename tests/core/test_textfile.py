"""Only plain files of a sensible size are read."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from autoresearch.core.cli import main
from autoresearch.core.textfile import MOST_BYTES, NotPlainError, read_text

KINDS = ("/dev/zero", "a link to /dev/zero", "a pipe", "a socket", "a folder", "3 GB of nothing")


@pytest.fixture
def odd(tmp_path, monkeypatch, request):
    """The path of something that is no train file."""
    path = tmp_path / "train.py"
    if request.param == "/dev/zero":
        return Path(request.param)
    if request.param == "a link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif request.param == "a pipe":
        os.mkfifo(path)
    elif request.param == "a socket":
        monkeypatch.chdir(tmp_path)  # the whole path is too long for a socket's name
        socket.socket(socket.AF_UNIX).bind("train.py")
    elif request.param == "a folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(3 * 10**9)
    return path


def test_a_file_and_a_link_to_it_are_read(tmp_path):
    (tmp_path / "a").write_bytes("größe\r\nb\rc".encode())
    (tmp_path / "b").symlink_to("a")
    assert read_text(tmp_path / "a") == read_text(tmp_path / "b") == "größe\nb\nc"


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfDEPTH = 4\r\n")
    assert read_text(tmp_path / "a") == "DEPTH = 4\n"


@pytest.mark.parametrize("odd", KINDS, indirect=True)
def test_what_is_no_plain_file_is_refused_at_once(odd):
    began = time.thread_time()
    with pytest.raises(NotPlainError, match=r"it is a|at most"):
        read_text(odd)
    assert time.thread_time() - began < 1


@pytest.mark.parametrize("odd", KINDS, indirect=True)
def test_a_trial_of_it_is_refused_in_one_line(odd, capsys):
    assert main.run(["--backend", "null", "train", "--file", str(odd)]) in (2, 3)
    captured = capsys.readouterr()
    assert captured.out == "" and ("as a train file" in captured.err or "is a directory" in captured.err)


def test_the_largest_file_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "train.py"
    path.write_bytes(b"#" * MOST_BYTES)
    assert len(read_text(path)) == MOST_BYTES
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(NotPlainError):
        read_text(path)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_file_whose_size_its_file_system_does_not_know_is_read_up_to_the_limit():
    with pytest.raises(NotPlainError, match="more than 10 bytes"):
        read_text(Path("/proc/self/status"), 10)
