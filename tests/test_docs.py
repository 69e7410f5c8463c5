"""The documentation points at what is there."""

import re
from pathlib import Path

import pytest

from autoresearch.core.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def anchors(page):
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_inside_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other), target


def test_the_readme_names_every_command():
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if not re.search(rf"^\|.*`ar {name}\b", table, re.MULTILINE)] == []


def test_every_page_of_the_documentation_can_be_reached():
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]
    lost = [
        page.name for page in pages if not any(page.name in text for name, text in texts.items() if name != page.name)
    ]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_folder_that_a_page_names_exists(page):
    rooms = "agent|autoresearch|backends|benchmarks|core|docs|tests"
    text = page.read_text(encoding="utf-8")
    # Of benchmarks/RESULTS.md, `make bench` is the author.
    named = set(re.findall(rf"`((?:{rooms})/[\w./-]*)`", text)) - {"benchmarks/RESULTS.md"}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    modules = set(re.findall(r"python -m (benchmarks\.\w+)", text))
    assert [name for name in sorted(modules) if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []
