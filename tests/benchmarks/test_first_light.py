"""The first day's measurements: parts that fail alone, resume, and end in a page. One short run on the null backend."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from prerequisites import lacking

ROOT = Path(__file__).parents[2]
PART = "import json, sys; answer = sys.argv[sys.argv.index('--answer') + 1]; "


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.first_light as module

    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def part(light, code: str, seconds: float = 20.0) -> dict:
    return light.run_part([sys.executable, "-c", PART + code], "speed", seconds, {})


def test_a_part_gives_its_figures_or_says_why_there_are_none(light) -> None:
    assert part(light, "open(answer, 'w').write(json.dumps({'x': 1}))")["figures"] == {"x": 1}
    died = part(light, "print('the card is on fire'); sys.exit(9)")
    assert (died["status"], died["why"]) == ("failed", "the card is on fire | its process ended with 9")
    cut = part(light, "open(answer, 'w').write('{'); sys.exit(0)")
    assert cut["status"] == "failed", "half an answer is none"
    skipped = part(light, "open(answer, 'w').write(json.dumps({'skipped': 'no such level'}))")
    assert skipped["status"] == "skipped"


def test_a_part_that_hangs_is_ended_with_all_that_it_has_started(light, tmp_path) -> None:
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(2); open({str(mark)!r}, 'w')"
    slow = part(light, f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}])", seconds=0.5)
    assert slow["status"] == "failed"
    assert slow["why"].endswith("it took longer than 0 s") or "longer than" in slow["why"]
    import time

    time.sleep(2.2)
    assert not mark.exists()


def test_a_second_call_does_what_is_missing_and_what_failed_comes_last(light, tmp_path) -> None:
    record = light.Figures(tmp_path / "record.json")
    record.add("a", {"status": "ok", "figures": {}})
    record.add("b", {"status": "failed", "why": "?"})
    record.add("c", {"status": "skipped", "figures": {"skipped": "?"}})
    assert light.Figures(record.path).waiting(["a", "b", "c", "d"]) == ["d", "b"]
    record.path.write_text("not json")
    with pytest.raises(SystemExit, match="name another file"):
        light.Figures(record.path)


def test_a_text_that_lies_on_the_machine_twice_is_taken_once(light, tmp_path, monkeypatch) -> None:
    for name in ("a/one.py", "b/one.py", "b/two.py"):
        path = tmp_path / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n" * (50 if "one" in name else 60))
    (tmp_path / "lib" / "odd.py").write_bytes(b"\xff" * 400)
    monkeypatch.setattr(light.sysconfig, "get_paths", lambda: dict.fromkeys(("stdlib", "purelib"), tmp_path / "lib"))
    monkeypatch.setattr(light.site, "getsitepackages", list)
    assert light.write_corpus(tmp_path / "out", 600) == str(tmp_path / "out")
    lines = (tmp_path / "out" / "python.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert light.write_corpus(tmp_path / "few", 10**9) == "stdlib", "too few bytes for a corpus of their own"


def test_a_bare_python_gets_the_wheels_and_the_checkout_in_a_layer_of_its_own(light, tmp_path, monkeypatch) -> None:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        lacking("this Python has no pip")
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "lantern-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lantern.py", "lit = True\n")
        wheel.writestr("lantern-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: lantern\nVersion: 1\n")
        wheel.writestr("lantern-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("lantern-1.dist-info/RECORD", "")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    python = light.layered(tmp_path / "python", tmp_path / "wheels")
    code = "import lantern, autoresearch; print(autoresearch.__file__)"
    said = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(said.strip()).resolve() == (ROOT / "autoresearch" / "__init__.py").resolve()
    [link] = (tmp_path / "python").glob("lib/python*/site-packages/autoresearch")
    link.unlink()
    link.symlink_to(tmp_path / "gone")  # of a checkout that was removed
    light.layered(tmp_path / "python", tmp_path / "wheels")
    assert link.resolve() == (ROOT / "autoresearch").resolve()
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match="holds no wheels"):
        light.install(tmp_path / "none", tmp_path)


def test_the_page_gets_a_section_for_each_device_and_keeps_the_others(light, tmp_path) -> None:
    page = tmp_path / "hardware.md"
    page.write_text(f"# Hardware\n\n{light.BEGIN}\n\n### Old card, `cuda`\n\nkept\n\n{light.END}\n\nafter\n")
    trial = {"val_bpb": 1.23456, "tokens": 10**6, "audit": {"max_abs": 0.01}, "said": "cuda: a | b <script>\n\n# x"}
    record = light.Figures(tmp_path / "record.json")
    facts = {"backend": "cuda", "preset": "h100", "when": "2026-01-02", "status": "ok"}
    record.add("machine", {**facts, "figures": {"device": "New card", "cores": 16, "products_flops": {"bf16": 7e14}}})
    record.add("speed", {**facts, "figures": {**trial, "tokens_per_second": 1.1e6, "mfu": 0.334}})
    record.add("seed 0", {**facts, "figures": trial})
    record.add("profile", {**facts, "status": "failed", "why": "no | room"})
    for _ in range(2):  # written again, it stands there once
        light.write_docs(record.path, page)
    text = page.read_text()
    assert text.count("### New card, `cuda`, preset `h100`") == 1
    assert "### Old card, `cuda`\n\nkept" in text
    assert text.endswith(f"{light.END}\n\nafter\n")
    assert "| speed | 1,100,000 | 33.4 % |" in text
    assert "cuda: a / b &lt;script> # x |" in text
    assert "1.2346" in text
    assert "- no figures for profile: no / room" in text
    page.write_text("# Hardware\n")
    with pytest.raises(SystemExit, match="no place for the tables"):
        light.write_docs(record.path, page)


def test_the_projects_own_page_has_a_place_for_the_tables(light) -> None:
    assert light.BEGIN in light.PAGE.read_text()
    assert light.END in light.PAGE.read_text()


def test_the_command_measures_a_backend_from_nothing_and_one_dead_part_costs_only_itself(tmp_path) -> None:
    command = [sys.executable, "-m", "benchmarks.first_light", "--backend", "null", "--small"]
    command += ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "record.json"), "--only", "trial"]
    first = subprocess.run(
        [*command, "--only", "speed: half the rows"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stderr
    broken = tmp_path / "train.py"
    source = (ROOT / "backends" / "null" / "train.py").read_text()
    broken.write_text(source.replace("    squares = {", "    raise RuntimeError('no luck')\n    squares = {"))
    second = subprocess.run(
        [*command, "--only", "speed", "--file", str(broken)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "trial ..." not in second.stderr, "what is done is not done again"
    parts = json.loads((tmp_path / "record.json").read_text())["parts"]
    assert parts["trial"]["figures"]["val_bpb"] > 0
    assert parts["trial"]["figures"]["audit"]["ok"]
    assert parts["speed: half the rows"]["status"] == "skipped", "the null backend has no such constant"
    assert parts["speed"]["status"] == "failed"
    assert "no luck" in parts["speed"]["why"]


def test_caches_are_made_once_and_copied_for_trials_of_other_lengths(light, tmp_path) -> None:
    bench = light.Bench("null", "demo", True, tmp_path, seconds={"speed": 9.0})
    assert (bench.budgets.speed, bench.budgets.long) == (9.0, light.SMALL_BUDGETS.long)
    first = bench.carried(5.0)
    assert not first.folder.exists(), "nothing to copy yet"
    from autoresearch.core.trial.compile_cache import name_of

    made = first.folder / name_of(first.source, 5.0)
    made.mkdir(parents=True)
    (made / "kernel").write_text("code")
    other = bench.carried(7.5)
    assert (other.folder / name_of(other.source, 7.5) / "kernel").read_text() == "code"


def test_a_budget_that_does_not_exist_is_refused(light, capsys) -> None:
    assert light.budget("long=115") == ("long", 115.0)
    with pytest.raises(SystemExit):
        light.main(["--budget", "longest=1"])
    assert "invalid budget value: 'longest=1'" in capsys.readouterr().err


def test_the_table_says_how_a_trial_computed_and_not_what_it_lacked(light) -> None:
    said = "cuda: cuda, compiled, Flex (no FA3: no module; no FA4: it (too) is missing), fused MLP (0.3 ms)"
    assert light.way_of({"said": said}) == "cuda: cuda, compiled, Flex, fused MLP (0.3 ms)"
    assert light.way_of({}) is None
