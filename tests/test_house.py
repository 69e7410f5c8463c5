"""The rules of the house, as far as a test can hold them."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoresearch.core.takeaway.bundle import read_bundle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "mlx", "litellm", "optuna", "autoresearch.agent", "autoresearch.backends.cuda")


def unusable(path: Path) -> bool:
    """A tracker's adapter without its tracker, which is an extra that `make test` does not install."""
    return path.parent.name == "adapters" and path.stem != "__init__" and importlib.util.find_spec(path.stem) is None


def core_modules() -> list[str]:
    files = sorted(
        path
        for path in (ROOT / "core").rglob("*.py")
        if "cli" not in path.relative_to(ROOT).parts and not unusable(path)
    )
    names = [path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in files]
    return ["autoresearch." + name.removesuffix(".__init__") for name in names]


def imported_by(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def modules_of_the_core() -> set[str]:
    return imported_by("\n".join(f"import {module}" for module in core_modules()))


@pytest.mark.parametrize("name", HEAVY)
def test_no_module_of_the_core_imports_a_framework_a_model_client_or_a_researcher(modules_of_the_core, name):
    assert "autoresearch.core.run.loop" in modules_of_the_core
    assert not {module for module in modules_of_the_core if module == name or module.startswith(f"{name}.")}


@pytest.mark.parametrize("name", ["core", "agent", "backends"])
def test_importing_a_folder_by_its_bare_name_is_refused(name):
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"autoresearch.{name}" in done.stderr


def tracked_texts() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix == ".arcert":
            texts[name] = "\n".join(part.decode("utf-8") for part in read_bundle(path).values())
        elif path.is_file() and path.suffix not in (".png", ".jpg", ".parquet"):
            texts[name] = path.read_text(encoding="utf-8")
    return texts


def test_the_project_speaks_only_of_itself():
    # Absolute paths of one machine, and hosts that packages come from: neither is true anywhere else.
    # The words are put together here, so that this file passes its own test.
    hosts = [
        ".".join(parts) for parts in (("pypi", "org"), ("python" + "hosted", "org"), ("download", "pytorch", "org"))
    ]
    places = ["/".join(["", *parts]) for parts in (("work", ""), ("root", ""), ("tmp", "bash"), ("opt", "wheels"))]
    pattern = re.compile("|".join(rf"(?<![\w.~}}$]){re.escape(word)}" for word in (*hosts, *places)))
    found = {name: match.group() for name, text in tracked_texts().items() if (match := pattern.search(text))}
    assert found == {}


def requirement_names(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0] for requirement in requirements}
    return {normal(name) for name in names} - {"autoresearch-dual"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_that_is_installed_has_a_pinned_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = requirement_names([*project["dependencies"], *extras["mlx"], *extras["dev"]])
    pinned = re.findall(r"^([\w.-]+)==[\w.]+", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert wanted - {normal(name) for name in pinned} == set()


def test_the_poisoned_releases_of_litellm_cannot_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (line,) = [requirement for requirement in project["dependencies"] if requirement.startswith("litellm")]
    for version in ("1.82.7", "1.82.8", "1.107.0"):
        assert f"!={version}" in line


def test_the_installed_packages_are_the_folders_of_the_checkout():
    for room in ("core", "agent", "backends"):
        link = ROOT / "autoresearch" / room
        assert link.is_symlink() and link.resolve() == ROOT / room
        for folder in {path.parent for path in (ROOT / room).rglob("*.py")}:
            assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} is no package"


def test_every_backend_folder_holds_the_same_three_files():
    for folder in (path for path in (ROOT / "backends").iterdir() if (path / "__init__.py").is_file()):
        for name in ("train.py", "runtime.py", "presets.toml"):
            assert (folder / name).is_file(), f"{folder.name}/{name}"


def test_the_page_that_init_writes_is_the_one_people_read():
    link = ROOT / "autoresearch" / "program.md"
    assert link.is_symlink() and link.resolve() == ROOT / "program.md"


def test_links_in_the_documentation_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_benchmark_can_be_run_by_name():
    for path in (path for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("_")):
        assert re.search(r"^def run\(.*\) -> list\[dict", path.read_text(encoding="utf-8"), re.MULTILINE), path.name
