"""The documentation points at what is there."""

import json
import re
from pathlib import Path

import click
import pytest

from autoresearch.core.cli.main import COMMANDS, cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


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
    pages = [*(ROOT / "docs").rglob("*.md"), *NOTEBOOKS]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_benchmark_that_a_page_runs_as_a_module_does_something_then(page):
    for name in set(re.findall(r"python -m (benchmarks\.\w+)", page.read_text(encoding="utf-8"))):
        module = ROOT / f"{name.replace('.', '/')}.py"
        assert 'if __name__ == "__main__":' in module.read_text(encoding="utf-8"), f"{name}: use --only"


def test_the_map_of_the_code_names_every_file_and_folder_at_its_top():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    core, agent = (text.split(f"\n{name}/", 1)[1].split("\n\n", 1)[0] for name in ("core", "agent"))
    for folder, part in ((ROOT / "core", core), (ROOT / "agent", agent)):
        files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        folders = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
        assert [name for name in sorted(files | folders) if f"  {name}" not in part] == []


def test_every_module_that_a_description_in_the_code_names_exists():
    lost = []
    for path in [path for room in ("agent", "backends", "benchmarks", "core") for path in (ROOT / room).rglob("*.py")]:
        for name in re.findall(r"`((?:agent|backends|benchmarks|core)(?:\.\w+)+)`", path.read_text(encoding="utf-8")):
            parts = name.split(".")
            # The last word may be a name in the module.
            ends = [ROOT.joinpath(*parts[:end]) for end in (len(parts), len(parts) - 1) if end > 1]
            if not any(end.with_suffix(".py").is_file() or (end / "__init__.py").is_file() for end in ends):
                lost.append(f"{path.relative_to(ROOT)}: {name}")
    assert lost == []


def commands_in(page):
    """Every call of `ar` in a page's blocks of code, or in a notebook's cells, as lists of words."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = [line[1:] for source in cells for line in source if line.startswith("!")]
    else:
        blocks = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    for line in lines:
        call = re.match(r"(?:[A-Z_]+=\S+ )*ar (?P<words>.+?)(?: {2,}#.*| # .*|&&.*|\|.*|> .*)?$", line)
        if call:
            yield re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", call["words"]).split()


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_shows_exists(page):
    for words in commands_in(page):
        group, known = cli, {"--help", "--version"}
        known |= {name for option in cli.params for name in option.opts + option.secondary_opts}
        for word in words:
            name = word.partition("=")[0]
            if name.startswith("--"):
                assert name in known, words
            elif isinstance(group, click.Group) and name in group.list_commands(click.Context(group)):
                group = group.get_command(click.Context(group), name)
                known |= {name for option in group.params for name in option.opts + option.secondary_opts}
        assert group is not cli or words[0].startswith("-"), words
