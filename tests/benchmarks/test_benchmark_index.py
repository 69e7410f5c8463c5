"""What `make bench` runs and writes. The measurements themselves are not tests."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("_"))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.__main__ as module

    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_benchmark_says_what_it_measures_and_can_be_run(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert "run" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_index_names_every_benchmark_and_who_runs_it(bench) -> None:
    names = [path.stem for path in MODULES]
    assert set(bench.BY_HAND) <= set(names)
    text = bench.index(names, {"packing": ""})
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(names)
    assert next(row for row in rows if "packing" in row).startswith("| [packing](#packing) | Packing alone")
    assert next(row for row in rows if row.startswith("| judge |")).endswith(f"hand, {bench.BY_HAND['judge']} |")


def test_what_is_not_run_now_stays_in_the_results(bench, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "RESULTS.md")
    (tmp_path / "RESULTS.md").write_text("# Benchmarks\n\n## packing\n\nof last week\n\n## gone\n\nold\n")
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "quick"])
    quick = "\n".join(['"""Quick."""', "def run():", "    return [dict(name='x', median=1234.5, unit='s', note='n')]"])
    (tmp_path / "quick.py").write_text(quick)
    (tmp_path / "packing.py").write_text('"""Packing."""')
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    monkeypatch.setitem(sys.modules, "benchmarks.quick", compiled(quick))
    assert bench.main() == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "of last week" in text
    assert "| x | 1,234 | s | n |" in text
    assert "old" not in text, "what there is no more is not shown"


def test_the_results_describe_every_benchmark_as_it_is_now(bench) -> None:
    sections = bench.read_sections()
    described = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES}
    assert [name for name, text in sections.items() if f"## {name}\n\n{described[name]}\n\n" not in text] == []
    text = bench.RESULTS.read_text(encoding="utf-8")
    assert text.startswith(bench.index(sorted(described), sections)), "`python -m benchmarks` writes the index anew"


def test_a_busy_machine_is_named_as_one(bench, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.quick", compiled('"""Quick."""'))
    assert "Others wanted the machine" in bench.section("quick", [], 1.0, load=9.0)
    assert "Others" not in bench.section("quick", [], 1.0, load=1.0)


def compiled(source: str):
    import types

    module = types.ModuleType("benchmarks.quick")
    exec(source, module.__dict__)
    return module
