"""The isolation level of macOS: a profile for `sandbox-exec`, written for one child.

The profile denies the network; writing anywhere but in the work folder; reading users' folders, other disks, temporary
folders and keychains, except for what Python needs; other processes; shared memory, which would outlive a process; and
opening things through other programs. It leaves the system's own files and services, among them Metal's (the GPU's user
clients, the shader compiler): which of these a framework asks for differs from one macOS to the next.

The last rule that matches wins, so the order of the lines matters.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoresearch.core.trial.sandbox.environment import child_environment
from autoresearch.core.trial.sandbox.host_paths import LevelStatus, visible_roots

PROGRAM = "/usr/bin/sandbox-exec"
PRIVATE = (
    "/Users", "/Volumes", "/Network", "/private/tmp", "/private/var/folders", "/private/var/tmp", "/private/var/root",
    "/private/var/db", "/Library/Keychains", "/System/Volumes/Data/Users",
)  # fmt: skip
"""Folders with people's and other programs' files: not readable."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/dtracehelper", "/dev/tty")
"""Devices that may be written to."""
METAL_SERVICES = ("com.apple.MTLCompilerService", "com.apple.cvmsServ", "com.apple.gpumemd.source")
METAL_CLIENTS = ("AGXDeviceUserClient", "IOSurfaceRootUserClient", "IOAccelDevice2", "IOAccelSharedUserClient2")
"""Services and clients of the GPU, allowed by name: they stay allowed when a line above them becomes stricter."""
SERVICES_DENIED = (
    "com.apple.SecurityServer", "com.apple.securityd", "com.apple.securityd.xpc", "com.apple.pasteboard.1",
    "com.apple.coreservices.appleevents", "com.apple.tccd", "com.apple.tccd.system", "com.apple.cfprefsd.daemon",
)  # fmt: skip
"""Services that are denied: keys, the clipboard, other programs, preferences."""
PROBE_SECONDS = 60.0
"""Longest wait, in seconds, for the child that tries the profile."""


def profile(work: Path, readable: Sequence[Path], hidden: Sequence[Path] = ()) -> str:
    """Return the rules for one child, whose only writable folder is `work`.

    `readable` are Python's folders and single files; `hidden` folders are closed, except for what of `work` and of
    the single files lies in them.
    """
    place, roots = work.resolve(), [path.resolve() for path in readable]
    rules = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny appleevent-send lsopen job-creation mach-register)",
        "(deny process-info* (target others))",
        "(deny signal)",
        "(allow signal (target self) (target pgrp) (target same-sandbox))",
        "(deny ipc-posix-shm* ipc-sysv*)",
        '(allow ipc-posix-shm-read* (ipc-posix-name "apple.shm.notification_center"))',
        f"(deny mach-lookup {_named('global-name', SERVICES_DENIED)})",
        f"(allow mach-lookup {_named('global-name', METAL_SERVICES)} {_named('xpc-service-name', METAL_SERVICES)})",
        f"(allow iokit-open {_named('iokit-user-client-class', METAL_CLIENTS)})",
        "(deny file-write*)",
        f"(allow file-write-data {_named('literal', DEVICES)})",
        f"(deny file-read* {_named('subpath', PRIVATE)})",
        # Python looks up every folder on the way to a file; their names and times alone.
        f"(allow file-read-metadata {_named('literal', _ancestors([*roots, place]))})",
        f"(allow file-read* {_named('subpath', map(str, roots))})",
    ]
    if hidden:
        rules.append(f"(deny file-read* {_named('subpath', (str(path.resolve()) for path in hidden))})")
    files = [str(path) for path in roots if path.is_file()]
    if files:  # one of them may lie in a hidden folder: the weights that are scored
        rules.append(f"(allow file-read* {_named('literal', files)})")
    rules.append(f"(allow file-read* file-write* {_named('subpath', [str(place)])})")
    return "\n".join(rules) + "\n"


@functools.cache
def status() -> LevelStatus:
    """Find out whether a child starts behind the profile and, with MLX, still computes on the GPU; asked once."""
    if sys.platform != "darwin":
        return LevelStatus("seatbelt", False, "it is macOS only")
    if not Path(PROGRAM).exists():
        return LevelStatus("seatbelt", False, f"{PROGRAM} is missing")
    code = "open('probe', 'w').close()\n"
    if importlib.util.find_spec("mlx") is not None:
        # A ready-made kernel would run where compiling one, as training does, is denied.
        code += "from autoresearch.backends.mlx.runtime import compiled_gradient\ncompiled_gradient()\n"
    with tempfile.TemporaryDirectory() as folder:
        home, temp = Path(folder, "home"), Path(folder, "tmp")
        home.mkdir()
        temp.mkdir()
        command = [PROGRAM, "-p", profile(Path(folder), visible_roots()), sys.executable, "-c", code]
        try:
            probe = subprocess.run(
                command,
                cwd=folder,
                env=child_environment(str(home), str(temp)),
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return LevelStatus("seatbelt", False, f"sandbox-exec does not run: {error}")
    if probe.returncode != 0:
        said = (probe.stderr.strip() or f"exit status {probe.returncode}").splitlines()[-1]
        return LevelStatus("seatbelt", False, f"a child does not run behind its profile: {said}")
    return LevelStatus("seatbelt", True)


def _ancestors(paths: Iterable[Path]) -> list[str]:
    """Return every folder above the paths, once."""
    return list(dict.fromkeys(str(folder) for path in paths for folder in reversed(path.parents)))


def _named(kind: str, names: Iterable[str]) -> str:
    """Return `(kind "name")` for each name, quoted."""
    return " ".join(f'({kind} "{_escaped(name)}")' for name in names)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
