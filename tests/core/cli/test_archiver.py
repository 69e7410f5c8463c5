import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prerequisites import lacking

from autoresearch.core.cli.archiver import find_archiver, is_archiver_call
from autoresearch.core.cli.main import COMMANDS

OUR_AR = Path(sys.executable).with_name("ar")
OPERATIONS = (
    *("rcs", "-rcs", "r", "-r", "rv", "q", "-cq", "qc", "cr", "cru", "-cru", "csr", "rcsD", "rcsTP", "Drcs"),
    *("t", "-t", "tv", "x", "-x", "d", "dv", "p", "m", "s", "-s", "-V", "-M", "@files"),
)


def call(*arguments: str) -> bool:
    return is_archiver_call(["/venv/bin/ar", *arguments], COMMANDS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_archiver_operation_is_recognised(operation):
    assert call(operation, "libx.a", "x.o")


@pytest.mark.parametrize("first", ["--plugin=lto.so", "--plugin", "--target=elf64-x86-64", "--thin", "--output=out"])
def test_a_long_option_of_the_archiver_is_recognised(first):
    assert call(first, "rcs", "libx.a")


@pytest.mark.parametrize("command", [*COMMANDS, "watch", "report", "dashboard", "verify", "ablate", "bench", "compare"])
def test_no_command_of_ours_is_taken_for_the_archiver(command):
    assert not call(command)


@pytest.mark.parametrize("option", ["-h", "--help", "--version", "-v", "-vv", "--json", "--backend", "-q", "-qv"])
def test_our_options_stay_ours(option):
    assert not call(option)
    assert not call(option, "train")


@pytest.mark.parametrize("typo", ["trian", "lop", "stats", "prep", "resluts", "doctr", "initt", "aply", "help"])
def test_a_mistyped_command_stays_ours(typo):
    assert not call(typo, "-n", "3")


def test_quick_append_is_told_from_quiet_by_the_archive_that_follows():
    assert call("-q", "libx.a", "x.o")
    assert not call("-q", "loop", "-n", "3")


def test_under_its_other_name_nothing_is_handed_over():
    assert not is_archiver_call(["/venv/bin/autoresearch", "rcs", "libx.a"], COMMANDS)
    assert not is_archiver_call(["/venv/bin/ar"], COMMANDS)


def write_fake_archiver(folder: Path) -> Path:
    folder.mkdir()
    script = folder / "ar"
    script.write_text('#!/bin/sh\necho "fake ar: $@"\nexit 7\n')
    script.chmod(0o755)
    return script


def test_the_next_ar_on_the_path_gets_the_arguments_and_gives_the_exit_code(tmp_path):
    fake = write_fake_archiver(tmp_path / "bin")
    path = f"{OUR_AR.parent}{os.pathsep}{fake.parent}"
    done = subprocess.run(
        [OUR_AR, "rcs", "lib with space.a", "x.o"], env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("fake ar: rcs lib with space.a x.o\n", 7)


def test_other_environments_of_ours_on_the_path_are_passed_over(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(OUR_AR, other / "ar")
    fake = write_fake_archiver(tmp_path / "bin")
    assert find_archiver(os.pathsep.join([str(other), str(fake.parent)])) == fake


def test_without_another_ar_the_error_says_so(tmp_path):
    done = subprocess.run(
        [OUR_AR, "rcs", "libx.a"], env={"PATH": str(OUR_AR.parent)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "archiver" in done.stderr
    assert "binutils" in done.stderr


def test_a_static_library_is_built_through_our_ar(tmp_path):
    if find_archiver(os.environ["PATH"]) is None:
        lacking("there is no system archiver on PATH")
    if shutil.which("g++") is None:
        lacking("there is no C++ compiler on PATH")
    (tmp_path / "x.cc").write_text("int x() { return 42; }\n")
    environment = {**os.environ, "PATH": f"{OUR_AR.parent}{os.pathsep}{os.environ['PATH']}"}
    for line in ("g++ -c x.cc", "ar rcs libx.a x.o", "ar -t libx.a"):
        done = subprocess.run(line.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["x.o"]
