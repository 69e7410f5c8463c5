"""The loop under SIGKILL, on a damaged ledger, on a full disk and in a folder that cannot be written."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from prerequisites import lacking
from warm_ar import Ar

from benchmarks._chaos_arena import Arena
from benchmarks.chaos import disturb


@pytest.mark.slow
def test_a_run_killed_at_random_moments_and_cut_in_its_ledger_decides_what_an_undisturbed_one_does(tmp_path, library):
    outcome = disturb(tmp_path, 4, seed=3, truncate=True, launch=Ar, shared=library)
    assert (outcome.differences, outcome.orphans, outcome.disagreements) == (0, 0, ())
    assert outcome.experiments >= 2


@pytest.mark.slow
def test_a_termination_leaves_no_process_and_nothing_is_lost(tmp_path, library):
    arena = Arena(tmp_path / "w", library, 1, Ar)
    assert arena.kill_after(3.0, signal.SIGTERM) == 0
    arena.finish()
    assert arena.disagreements() == []
    assert [row[1] for row in arena.story()] == ["decided", "decided"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a small tmpfs in a user namespace of Linux")
def test_a_full_disk_ends_with_one_clear_line_and_the_run_goes_on_when_there_is_room(tmp_path, library):
    arena = Arena(tmp_path / "w", library, 1, Ar)
    arena.experiments = 0
    arena.finish()
    arena.experiments = 1
    # The runs folder moves to a tmpfs with little room; what is in it afterwards is copied back.
    script = f"""
set -e
mount -t tmpfs -o size=6m none /mnt
cp -a {arena.workspace}/runs/. /mnt/
rm -rf /mnt/*/trials
mount --bind /mnt {arena.workspace}/runs
dd if=/dev/zero of={arena.workspace}/runs/filler bs=1k 2>/dev/null || true
set +e
"$@"
code=$?
rm {arena.workspace}/runs/filler
umount {arena.workspace}/runs
cp -a /mnt/. {arena.workspace}/runs/
exit $code
"""
    probe = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        lacking(f"no user namespace with mounts: {probe.stderr.decode().strip()}")
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", *arena.command()]
    done = subprocess.run(command, env=arena.environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    complaint = [line for line in done.stderr.splitlines() if line.startswith("ar: ")]
    assert len(complaint) == 1, done.stderr
    assert "full" in complaint[0] or "No space" in complaint[0]
    assert "Fix: " in complaint[0]
    assert "Traceback" not in done.stderr
    arena.finish()
    assert arena.disagreements() == []
    assert [row[1] for row in arena.story()] == ["decided", "decided"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a read-only mount in a user namespace of Linux")
def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path, library):
    arena = Arena(tmp_path / "w", library, 0, Ar)
    runs = arena.workspace / "runs"
    runs.mkdir(exist_ok=True)
    script = f'mount --bind {runs} {runs} && mount -o remount,bind,ro {runs} && exec "$@"'
    probe = subprocess.run(["unshare", "-Urm", "sh", "-c", script, "sh", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        lacking(f"no user namespace with mounts: {probe.stderr.decode().strip()}")
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", *arena.command()]
    done = subprocess.run(command, env=arena.environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    complaint = [line for line in done.stderr.splitlines() if line.startswith("ar: ")]
    assert len(complaint) == 1, done.stderr
    assert "Read-only" in complaint[0]
    assert "Traceback" not in done.stderr
    assert list(runs.iterdir()) == []
