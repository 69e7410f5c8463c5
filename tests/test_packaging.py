"""A wheel, an sdist and an editable install all hold what the checkout holds, and each file once."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from prerequisites import lacking

ROOT = Path(__file__).parent.parent
ROOMS = ("core", "agent", "backends")

# Lists the files of the package that a bare interpreter finds, and its modules that cannot be found. `-S` keeps the
# running interpreter's own editable install out of sight; its other packages are needed by some `__init__.py`.
SCRIPT = """
import importlib.util, json, os, site, sys
site.addsitedir(sys.argv[1])
sys.path.append(sys.argv[2])
import autoresearch
(root,) = autoresearch.__path__
files = [
    os.path.relpath(os.path.join(folder, name), os.path.dirname(root))
    for folder, folders, names in os.walk(root, followlinks=True) for name in names if not name.endswith(".pyc")
]
modules = [name[:-3].replace(os.sep, ".").removesuffix(".__init__") for name in files if name.endswith(".py")]
missing = [name for name in modules if importlib.util.find_spec(name) is None]
print(json.dumps({"root": root, "files": sorted(files), "missing": missing}))
"""


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def project_files() -> list[str]:
    """The files of the checkout that git tracks or would track."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)]


def package_files() -> list[str]:
    """What every kind of installation must hold: three folders, and the package's own files."""
    own = [name for name in project_files() if name.startswith("autoresearch/") and Path(name).name not in ROOMS]
    return sorted([*own, *(f"autoresearch/{name}" for name in project_files() if name.split("/")[0] in ROOMS)])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, because building leaves files beside pyproject.toml."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    for name in project_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy


def build(kind: str, source: Path, target: Path) -> Path:
    target.mkdir()
    script = f"import setuptools.build_meta as backend; backend.build_{kind}({str(target)!r})"
    run(sys.executable, "-c", script, cwd=source)
    (built,) = target.iterdir()
    return built


def found_by_python(site_folder: Path) -> dict:
    packages = sysconfig.get_paths()["purelib"]
    return json.loads(run(sys.executable, "-I", "-S", "-B", "-c", SCRIPT, site_folder, packages))


def unpacked(wheel: Path, target: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"autoresearch"}
        archive.extractall(target)
    return target


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory) -> Path:
    return build("sdist", checkout, tmp_path_factory.mktemp("sdist") / "dist")


def test_a_wheel_holds_every_file_of_the_package_once(checkout, tmp_path):
    site = unpacked(build("wheel", checkout, tmp_path / "dist"), tmp_path / "site")
    found = found_by_python(site)
    assert found["files"] == package_files()
    assert found["missing"] == []
    assert not [path for path in site.rglob("*") if path.is_symlink()]


def test_an_sdist_holds_every_file_of_the_package_once_and_no_links(sdist):
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    names = [member.name.partition("/")[2] for member in members if not member.isdir()]
    assert len(names) == len(set(names))
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert sorted(name for name in names if name.startswith("autoresearch/")) == package_files()
    beside = {name for name in names if not name.startswith(("autoresearch/", "autoresearch_dual.egg-info/"))}
    assert beside == {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_a_wheel_from_an_sdist_holds_the_same_files(sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    site = unpacked(build("wheel", source, tmp_path / "dist"), tmp_path / "site")
    assert found_by_python(site)["files"] == package_files()


def test_an_editable_install_reads_the_checkout_itself(checkout, tmp_path):
    built = build("editable", checkout, tmp_path / "dist")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path / "site")
    found = found_by_python(tmp_path / "site")
    assert Path(found["root"]) == checkout / "autoresearch"
    assert found["files"] == package_files()
    assert found["missing"] == []


@pytest.fixture(scope="module")
def uv(tmp_path_factory) -> str:
    """The uv command: an installed one, or one that pip puts into a folder of its own."""
    found = shutil.which("uv")
    if found:
        return found
    if importlib.util.find_spec("pip") is None:
        lacking("there is neither uv nor pip")
    folder = tmp_path_factory.mktemp("uv")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), "uv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lacking(f"pip cannot install uv here: {done.stderr[-300:]}")
    return str(folder / "bin" / "uv")


@pytest.mark.parametrize("flags", [(), ("--editable",)], ids=["plain", "editable"])
def test_uv_installs_the_same_files(uv, flags, checkout, tmp_path):
    # Without isolation, so that setuptools is that of this interpreter and nothing is downloaded.
    options = ("--no-deps", "--no-build-isolation", "--python", sys.executable, "--target", tmp_path / "site")
    run(uv, "pip", "install", "--offline", "--no-cache", *options, *flags, checkout)
    found = found_by_python(tmp_path / "site")
    assert found["files"] == package_files()
    assert found["missing"] == []
