"""What a child can reach at each isolation level, tried by real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from prerequisites import lacking

from autoresearch.core.errors import PrerequisiteError
from autoresearch.core.trial.request import IsolationLevel
from autoresearch.core.trial.sandbox import landlock
from autoresearch.core.trial.sandbox import levels as sandbox_module
from autoresearch.core.trial.sandbox.host_paths import cpu_parts, gpu_nodes, tool_folders, visible_roots
from autoresearch.core.trial.sandbox.levels import LevelStatus, best_level, levels, open_sandbox, require
from autoresearch.core.trial.sandbox.system_calls import program_file, why_unavailable

STATUS = {status.level: status for status in levels()}
NEEDS_BUBBLEWRAP = pytest.mark.skipif(
    not STATUS["bubblewrap"].available and os.environ.get("CI") != "true", reason=str(STATUS["bubblewrap"].why_not)
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    (work / "home").mkdir(parents=True)
    (work / "tmp").mkdir()
    return work


NEEDS_LANDLOCK = pytest.mark.skipif(
    not STATUS["landlock"].available, reason=f"landlock cannot be used: {STATUS['landlock'].why_not}"
)


def say(
    code: str,
    work: Path,
    *,
    hidden: tuple[Path, ...] = (),
    read_only: tuple[Path, ...] = (),
    level: IsolationLevel = "bubblewrap",
) -> str:
    argv = open_sandbox(level, hidden).wrap([sys.executable, "-c", code], work, read_only)
    said = subprocess.run(argv, cwd=work, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


@NEEDS_BUBBLEWRAP
def test_the_best_level_here_is_bubblewrap() -> None:
    assert best_level() == "bubblewrap"


@NEEDS_BUBBLEWRAP
def test_a_file_of_the_user_is_not_there(work: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    assert say(f"import os; print(os.path.exists({str(secret)!r}))", work) == "False"


@NEEDS_BUBBLEWRAP
def test_only_the_work_folder_can_be_written(work: Path) -> None:
    code = (
        "import os, sys, pathlib\n"
        "pathlib.Path('mine').write_text('x')\n"
        "for folder in ('/', '/usr', sys.prefix, os.path.dirname(os.__file__)):\n"
        "    try: pathlib.Path(folder, 'probe').write_text('x'); print('wrote', folder)\n"
        "    except OSError: pass\n"
    )
    assert say(code, work) == ""
    assert (work / "mine").read_text() == "x"


@NEEDS_BUBBLEWRAP
def test_there_is_no_network(work: Path) -> None:
    code = "import socket; print([name for _, name in socket.if_nameindex()])"
    assert say(code, work) == "['lo']"


@NEEDS_BUBBLEWRAP
def test_other_processes_are_not_seen(work: Path) -> None:
    assert int(say("import os; print(sum(name.isdigit() for name in os.listdir('/proc')))", work)) <= 3


@NEEDS_BUBBLEWRAP
def test_nothing_that_counts_for_the_whole_machine_can_be_read(work: Path) -> None:
    code = (
        "import os\nfor folder in ('/proc', '/proc/sys'):\n    for name in sorted(os.listdir(folder)):\n"
        "        path = os.path.join(folder, name)\n        if name.isdigit() or os.path.islink(path): continue\n"
        "        try: found = os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1)\n"
        "        except OSError: continue\n        if found: print(path[6:])\n"
    )
    kept = {"cpuinfo", "devices", "driver", "filesystems", "meminfo", "modules", "version"} | {
        "sys",
        "sys/kernel",
        "sys/vm",
    }
    assert set(say(code, work).split()) <= kept


@NEEDS_BUBBLEWRAP
def test_no_file_can_be_put_beside_the_devices(work: Path) -> None:
    code = (
        "for place in ('/dev/mine', '/dev/shm/mine', '/proc/fs/mine', '/proc/sys/fs/mine'):\n"
        "    try: open(place, 'w').close(); print(place)\n    except OSError: pass\n"
        "open('/dev/null', 'w').write('x')\n"
    )
    assert say(code, work) == "/dev/shm/mine"


@NEEDS_BUBBLEWRAP
def test_a_hidden_folder_is_empty_even_inside_a_visible_one(work: Path) -> None:
    code = f"import os; print(os.listdir({os.path.dirname(os.__file__) + '/email'!r}))"  # noqa: PTH120
    assert say(code, work, hidden=(Path(os.__file__).parent / "email",)) == "[]"


@NEEDS_BUBBLEWRAP
def test_a_read_only_file_can_be_read_and_not_changed(work: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("numbers")
    code = "print(open('weights').read())\ntry: open('weights', 'w')\nexcept OSError as error: print('refused')"
    assert say(code, work, read_only=(weights,)) == "numbers\nrefused"


@NEEDS_BUBBLEWRAP
@pytest.mark.parametrize("framework", ["torch", "mlx.core"])
def test_a_framework_can_be_imported_inside(work: Path, framework: str) -> None:
    pytest.importorskip(framework)
    assert say(f"import {framework}, autoresearch.backends.contract; print('here')", work) == "here"


@NEEDS_BUBBLEWRAP
def test_inherited_descriptors_pass_through(work: Path) -> None:
    reader, writer = os.pipe()
    argv = open_sandbox("bubblewrap").wrap([sys.executable, "-c", f"import os; os.write({writer}, b'hello')"], work)
    subprocess.run(argv, cwd=work, pass_fds=[writer], timeout=60, check=True)
    os.close(writer)
    assert os.read(reader, 10) == b"hello"
    os.close(reader)


def test_bubblewrap_without_namespaces_falls_back_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    status = LevelStatus("bubblewrap", False, "bwrap may not make namespaces here: no permissions")
    monkeypatch.setattr(sandbox_module, "bubblewrap_status", lambda: status)
    assert open_sandbox(None).level == ("landlock" if STATUS["landlock"].available else "process")
    with pytest.raises(PrerequisiteError, match="no permissions"):
        open_sandbox("bubblewrap")


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has seatbelt")
def test_a_level_of_another_system_is_refused() -> None:
    with pytest.raises(PrerequisiteError, match="it is macOS only"):
        open_sandbox("seatbelt")


@NEEDS_BUBBLEWRAP
def test_an_environment_below_the_temporary_folder_is_seen(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as checkout:
        (Path(checkout) / "module.py").write_text("x = 1")
        roots = sandbox_module.visible_roots()
        monkeypatch.setattr(sandbox_module, "visible_roots", lambda hidden=(): [*roots, Path(checkout)])
        here = {Path(root).relative_to("/tmp").parts[0] for root in roots if Path(root).is_relative_to("/tmp")}
        seen = sorted([Path(checkout).name, *here])
        assert say(f"import os; print(os.listdir({checkout!r}), sorted(os.listdir('/tmp')))", work) == (
            f"['module.py'] {seen}"
        )


REACH = """
import os, pathlib, socket, sys
pathlib.Path('mine').write_text('x')
for place in {places!r}:
    try: print('read', place, open(place).read() if os.path.isfile(place) else os.listdir(place))
    except OSError: pass
for place in ('/tmp', '/dev/shm', sys.prefix, {outside!r}):
    try: pathlib.Path(place, 'probe').write_text('x'); print('wrote', place)
    except OSError: pass
try: socket.create_connection(('127.0.0.1', {port}), timeout=3); print('connected')
except PermissionError: print('no TCP')
"""


@NEEDS_LANDLOCK
def test_landlock_leaves_the_work_folder_and_what_python_needs(work: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = [str(tmp_path / "secret"), str(tmp_path), "/etc/passwd", "/root", f"/proc/{os.getpid()}/environ"]
        code = REACH.format(places=places, outside=str(tmp_path), port=server.getsockname()[1])
        assert say(code, work, level="landlock") == "no TCP"
    assert (work / "mine").read_text() == "x"


@NEEDS_LANDLOCK
@pytest.mark.skipif(why_unavailable() is not None, reason=f"no filter: {why_unavailable()}")
def test_the_filter_comes_after_landlock_and_denies_further_rules(work: Path) -> None:
    code = (
        "import ctypes, errno\nlibrary = ctypes.CDLL(None, use_errno=True)\n"
        "print(library.syscall(444, None, ctypes.c_size_t(0), 1), errno.errorcode[ctypes.get_errno()])\n"
        "try: open('/etc/passwd')\nexcept PermissionError: print('hidden')"
    )
    with program_file(()) as program:
        assert program is not None
        argv = open_sandbox("landlock").wrap([sys.executable, "-c", code], work, filter_fd=program)
        said = subprocess.run(argv, cwd=work, pass_fds=[program], capture_output=True, text=True, check=False)
    assert said.stdout.split("\n")[:2] == ["-1 ENOSYS", "hidden"], said.stderr


@pytest.mark.parametrize(
    "level",
    [pytest.param("bubblewrap", marks=NEEDS_BUBBLEWRAP), pytest.param("landlock", marks=NEEDS_LANDLOCK)],
)
def test_which_processors_there_are_is_shown_and_not_how_often_they_rested(
    work: Path, monkeypatch: pytest.MonkeyPatch, level: IsolationLevel
) -> None:
    monkeypatch.setattr(sandbox_module, "gpu_nodes", list)
    code = (
        "import glob, os\nhere = '/sys/devices/system/cpu'\n"
        "print(os.cpu_count(), len(glob.glob(here + '/cpu[0-9]*')), open(here + '/online').read().strip())\n"
        "found = []\nfor place, _, names in os.walk(here):\n    for name in names:\n"
        "        try: found.append(place + '/' + name) if open(place + '/' + name).read() else None\n"
        "        except (OSError, ValueError): pass\n"
        "print(any('cpuidle' in name or 'cpufreq' in name for name in found), len(found) > 3)\n"
    )
    said = say(code, work, level=level).split("\n")
    folders = len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*")))
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    assert said == [f"{os.cpu_count()} {folders} {online}", "False True"]


def test_folders_that_count_are_told_from_the_others(tmp_path: Path) -> None:
    for name in ("cpu0/topology", "cpu0/cpuidle/state0", "cpu11/cpufreq", "cpufreq/policy0", "smt"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cpu0" / "node0").symlink_to(tmp_path)
    (tmp_path / "cpu11" / "cpufreq").rmdir()
    (tmp_path / "cpu11" / "cpufreq").symlink_to(tmp_path / "cpufreq" / "policy0")
    (tmp_path / "online").touch()
    counts, others = (cpu_parts(counts=counts, cpus=tmp_path) for counts in (True, False))
    assert counts == [str(tmp_path / name) for name in ("cpu0/cpuidle", "cpufreq")]
    assert others == [str(tmp_path / name) for name in ("cpu0/topology", "online", "smt")]
    assert cpu_parts(counts=True, cpus=tmp_path / "none") == []


@NEEDS_LANDLOCK
def test_landlock_binds_grandchildren_too(work: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    code = f"import subprocess; print(subprocess.run(['/bin/cat', {str(tmp_path / 'secret')!r}]).returncode)"
    assert say(code, work, level="landlock") == "1"


@NEEDS_LANDLOCK
def test_landlock_lets_a_read_only_file_be_read_and_not_changed(work: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("numbers")
    code = "print(open('weights').read())\ntry: open('weights', 'w')\nexcept OSError as error: print('refused')"
    assert say(code, work, read_only=(tmp_path / "weights",), level="landlock") == "numbers\nrefused"


@NEEDS_LANDLOCK
@pytest.mark.parametrize("framework", ["torch", "mlx.core"])
def test_a_framework_can_be_imported_behind_landlock(work: Path, framework: str) -> None:
    pytest.importorskip(framework)
    code = f"import {framework}, autoresearch.backends.contract; print('here')"
    assert say(code, work, level="landlock") == "here"


@NEEDS_LANDLOCK
def test_landlock_refuses_what_it_cannot_hide(work: Path) -> None:
    with pytest.raises(PrerequisiteError, match="cannot hide"):
        open_sandbox("landlock", (Path(os.__file__).parent / "email",)).wrap(["true"], work)


def test_without_landlock_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    assert landlock.main(["--read", "/usr", "--", "echo", "started"]) == 127
    said = capfd.readouterr()
    assert (said.out, "no landlock" in said.err) == ("", True)


def test_an_old_kernel_does_not_count_as_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module.landlock, "abi", lambda: 3)
    status = next(status for status in levels() if status.level == "landlock")
    assert not status.available


def test_a_required_level_that_is_not_reached_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require("process")
    none = [LevelStatus("bubblewrap", False, "not installed"), LevelStatus("process", True)]
    monkeypatch.setattr(sandbox_module, "levels", lambda: none)
    with pytest.raises(PrerequisiteError, match="bubblewrap: not installed"):
        require("bubblewrap")
    require("process")


@pytest.mark.parametrize(("version", "takes"), [("0.6.1", False), ("0.7.0", True), ("0.11.0", True), ("1.0", True)])
def test_an_old_bubblewrap_is_not_asked_for_what_it_does_not_know(tmp_path: Path, version: str, takes: bool) -> None:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\necho bubblewrap {version}\n")
    program.chmod(0o755)
    assert sandbox_module.takes_sizes(str(program)) is takes
    argv = sandbox_module.BubblewrapSandbox(str(program)).wrap(["true"], tmp_path)
    assert ("--size" in argv) is takes


def test_gpu_nodes_pass_through_every_wall_where_there_are_any(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = work / "dev"
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1", "dri/renderD128", "kfd", "sda"):
        (devices / name).parent.mkdir(parents=True, exist_ok=True)
        (devices / name).touch()
    nodes = gpu_nodes(devices)
    assert [Path(node).name for node in nodes] == ["dri", "kfd", "nvidia-caps", "nvidia-uvm", "nvidia0", "nvidiactl"]
    monkeypatch.setattr(sandbox_module, "gpu_nodes", lambda: nodes)
    argv = sandbox_module.BubblewrapSandbox("bwrap").wrap(["true"], work)
    for node in nodes:
        assert ["--dev-bind", node, node] in [argv[i : i + 3] for i in range(len(argv))]
    assert ["--ro-bind-try", "/sys", "/sys"] in [argv[i : i + 3] for i in range(len(argv))]
    argv = sandbox_module.LandlockSandbox().wrap(["true"], work)
    assert set(nodes) <= {argv[i + 1] for i in range(len(argv) - 1) if argv[i] == "--write"}
    assert "/sys" in argv
    monkeypatch.setattr(sandbox_module, "gpu_nodes", list)
    assert "/sys" not in sandbox_module.LandlockSandbox().wrap(["true"], work)


@NEEDS_BUBBLEWRAP
@pytest.mark.parametrize("level", ["bubblewrap", "landlock"])
def test_a_node_that_is_passed_through_can_be_used(
    level: IsolationLevel, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not STATUS[level].available:
        lacking(str(STATUS[level].why_not))
    monkeypatch.setattr(sandbox_module, "gpu_nodes", lambda: ["/dev/full"])  # a device that a child is not given else
    code = "import os\nfd = os.open('/dev/full', os.O_RDWR)\nprint(os.read(fd, 2))"
    assert say(code, work, level=level) == r"b'\x00\x00'"


@pytest.mark.parametrize(
    "level",
    [pytest.param("bubblewrap", marks=NEEDS_BUBBLEWRAP), pytest.param("landlock", marks=NEEDS_LANDLOCK)],
)
def test_a_compiler_of_ones_own_can_be_called_and_what_lies_beside_it_stays_hidden(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: IsolationLevel
) -> None:
    """Images for GPUs keep compilers in /opt, and name them in CC."""
    for name in ("gcc/bin", "gcc/lib", "gcc/notes", "headers"):
        (tmp_path / name).mkdir(parents=True)
    compiler = tmp_path / "gcc" / "bin" / "mycc"
    compiler.write_text("#!/bin/sh\ncat $(dirname $0)/../lib/crt\n")
    compiler.chmod(0o755)
    (tmp_path / "gcc" / "lib" / "crt").write_text("compiled")
    (tmp_path / "gcc" / "notes" / "secret").write_text("a secret")
    monkeypatch.setenv("CC", f"{compiler} -O2")
    monkeypatch.setenv("CPATH", str(tmp_path / "headers"))
    code = (
        "import os, subprocess\n"
        f"print(subprocess.run([{str(compiler)!r}], capture_output=True, text=True).stdout)\n"
        f"print(os.listdir({str(tmp_path / 'headers')!r}))\n"
        f"try: print(open({str(tmp_path / 'gcc/notes/secret')!r}).read())\n"
        "except OSError: print('hidden')"
    )
    said = say(code, work, level=level).split("\n")
    assert said == ["compiled", "[]", "hidden"]


def test_a_variable_that_names_a_home_folder_shows_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "people" / "me"
    (home / ".local" / "lib").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    named = f"{home}::{home.parent}:/:lib:{home / '.local' / 'lib'}:{tmp_path / 'gone'}"
    assert tool_folders({"LD_LIBRARY_PATH": named, "CUDA_HOME": str(home), "PATH": ""}) == [home / ".local" / "lib"]


def test_a_home_folder_stays_hidden_by_whatever_name_a_variable_calls_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a path with dots, by a link, by the place that a home folder which is a link leads to, and by the account."""
    real = tmp_path / "disk" / "me"
    (real / "project" / "lib").mkdir(parents=True)
    home, link = tmp_path / "me", tmp_path / "link"
    home.symlink_to(real)
    link.symlink_to(real)
    monkeypatch.setenv("HOME", str(home))
    named = (f"{home}/project/..", f"{link}", f"{real}", f"{real.parent}", "~", f"{home}/", f"{link}/project/../.")
    assert tool_folders({"CPATH": ":".join(named), "PATH": ""}) == []
    shown = tool_folders({"CPATH": f"{home}/project/lib:{link}/project/lib", "PATH": ""})
    assert shown == [home / "project" / "lib", link / "project" / "lib"]
    monkeypatch.delenv("HOME")
    assert tool_folders({"CPATH": str(Path.home()), "PATH": ""}) == []


@pytest.mark.parametrize("folder", ["/tmp", "/tmp/", "/etc", "/dev", "/dev/shm", "/proc", "/home", "/root", "/var"])
def test_a_variable_that_names_a_folder_of_other_things_shows_nothing_of_it(folder: str) -> None:
    """Shown, /tmp would be the whole machine's, and lie over the folder that a child may write to."""
    assert tool_folders({"LD_LIBRARY_PATH": folder, "PATH": ""}) == []


def test_variables_that_name_what_cannot_be_looked_at_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with too long a name raises the same error as one that this user may not look into."""

    def no_account(_number: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", no_account)
    monkeypatch.delenv("HOME")
    named = {"LD_LIBRARY_PATH": f"/{'x' * 300}", "CUDA_HOME": f"/{'x' * 300}", "CC": " ", "CXX": "", "PATH": ""}
    assert tool_folders(named) == []


def test_of_an_environment_that_is_named_as_a_toolkit_only_the_toolkit_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """CUDA_HOME=$CONDA_PREFIX is common, and conda keeps an environment's variables, keys among them, in its folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = tmp_path / "conda"
    for name in ("bin", "lib", "nvvm", "etc/conda/activate.d", "conda-meta"):
        (environment / name).mkdir(parents=True)
    found = tool_folders({"CUDA_HOME": str(environment), "PATH": ""})
    assert found == [environment / name for name in ("bin", "lib", "nvvm")]


def test_a_compiler_in_the_home_folder_shows_its_own_parts_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("bin", "lib", "notes-linux-secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib" / "all").symlink_to(tmp_path)
    compiler = tmp_path / "bin" / "mycc"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    assert tool_folders({"CC": str(compiler), "PATH": ""}) == [tmp_path / "bin", tmp_path / "lib"]


def test_a_tool_around_what_must_be_hidden_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lib" / "corpus").mkdir(parents=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
    assert tmp_path / "lib" in visible_roots()
    assert tmp_path / "lib" not in visible_roots((tmp_path / "lib" / "corpus",))
    assert tmp_path / "lib" in visible_roots((tmp_path / "library",))


@NEEDS_LANDLOCK
def test_behind_landlock_threads_can_be_named_where_there_is_a_gpu(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA does so when it starts, and reports an error of the operating system where it cannot."""
    code = (
        "import os, threading\n"
        "def name(place):\n"
        "    try: open(f'{place}/comm', 'w').write('worker'); print(open(f'{place}/comm').read().strip())\n"
        "    except OSError as error: print(error.strerror)\n"
        "def there(): name(f'/proc/self/task/{threading.get_native_id()}'); name(f'/proc/{os.getpid()}')\n"
        "thread = threading.Thread(target=there); thread.start(); thread.join()\n"
        "name(f'/proc/{os.getppid()}/task/{os.getppid()}')"
    )
    monkeypatch.setattr(sandbox_module, "gpu_nodes", lambda: ["/dev/full"])
    assert say(code, work, level="landlock").split("\n") == ["worker", "Permission denied", "Permission denied"]
    monkeypatch.setattr(sandbox_module, "gpu_nodes", list)
    assert say(code, work, level="landlock").split("\n")[0] == "Permission denied"
