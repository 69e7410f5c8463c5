"""A loop with a language model that misbehaves: thirty experiments, where every other call goes wrong.

    python -m benchmarks.faults [null] [cuda]

runs `ar loop --researcher llm` against a local server in a workspace of its own. It reports the outcome of every
fault, and whether the loop's account, its ledger and the server's bill agree. The model's good replies are edits of
the tuner's menu, several where a bold change is asked for. Two more models are named, one that the server does not
know and one whose key it refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from autoresearch.agent.structural import MENU
from autoresearch.agent.syntax.constants import constants_of
from autoresearch.core.trainfile.constants import write_constants

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from model_server import TOKENS_IN, TOKENS_OUT, Act, ModelServer, reply

EXPERIMENTS = 30
BUDGETS = {"null": 0.3, "cuda": 5.0}
USD = (2.0, 10.0)
"""Per million tokens, in and out."""
FAULTS: dict[str, Act] = {
    "429": {"status": 429},
    "500": {"status": 500},
    "a proxy's error page": {"raw": "<html>gateway</html>"},
    "timeout": {"sleep": 4, "text": "late"},
    "stream cut off": {"cut": True, "text": "HYPOTHESIS"},
    "empty": {"text": ""},
    "prose only": {"text": "I would try a larger learning rate."},
    "another language": {"text": "```rust\nfn main() {}\n```"},
    "broken block": {"text": "<<<<<<< SEARCH\nWARMDOWN = 0.5\n>>>>>>> REPLACE"},
    "lines that are not there": {"text": reply("x = old_name(1)", "x = new_name(2)")},
    "another file": {"text": "runtime.py\n" + reply("WARMDOWN = 0.5", "WARMDOWN = 0.6")},
    "giant reply": {"text": "spam " * 200_000},
}


class Model:
    """The server's script, and a note of every fault that was sent."""

    def __init__(self, seed: int = 0) -> None:
        self.sent: list[str] = []
        self._rng = random.Random(seed)

    def __call__(self, number: int, body: dict[str, Any]) -> Act:
        """Every other request of the model goes wrong, in each way in turn."""
        name = str(body["model"])
        if name in ("unknown", "locked"):
            self.sent.append(f"{'wrong model name' if name == 'unknown' else 'bad key'}")
            return {"status": 404 if name == "unknown" else 401, "message": f"{name} is refused"}
        own = sum(sent not in ("wrong model name", "bad key") for sent in self.sent)
        fault = list(FAULTS)[own // 2 % len(FAULTS)] if own % 2 == 0 else ""
        self.sent.append(fault)
        return FAULTS[fault] if fault else self._good(body)

    def _good(self, body: dict[str, Any]) -> Act:
        if len(body["messages"]) == 1:
            return {"text": "What helped and what did not is in the list."}
        task = body["messages"][1]["content"]
        source = re.search(r"```python\n(.*?)\n```", task, re.S)
        rule = task.partition("A rule for this turn")[2]
        if source is None:
            return {"text": "There is no train file."}
        edited, category = self._edit(source.group(1) + "\n", rule)
        head = f"HYPOTHESIS: an edit\nCATEGORY: {category}\nPREDICTED_DELTA: -0.01\nRISK: low\n\n"
        return {"text": f"{head}```python\n{edited}```\n"}

    def _edit(self, source: str, rule: str) -> tuple[str, str]:
        closed = rule.partition("rest now:")[2]
        menu = [edit for edit in MENU if edit.category not in closed]
        self._rng.shuffle(menu)
        wanted = 6 if "bold" in rule else 1 if "structural" in rule else 0
        now, category = source, "optimizer"
        for edit in menu:
            edited = edit.apply(now) if wanted else None
            if edited is not None:
                now, category, wanted = edited, edit.category, wanted - 1
        constants = constants_of(now)
        name = self._rng.choice([one for one in ("WARMDOWN", "INIT_SCALE", "MUON_LR", "HEAD_LR") if one in constants])
        return write_constants(now, {name: round(self._rng.uniform(0.01, 0.9), 6)}), category


def loop(backend: str) -> dict[str, Any]:
    """One loop: its exit code, its summary, the server's bill, and outcomes by fault."""
    model = Model()
    with tempfile.TemporaryDirectory() as folder, ModelServer(model) as server:
        workspace = Path(folder) / "w"
        ar = [sys.executable, "-m", "autoresearch.core.cli.main"]
        environment = {**os.environ, "OPENAI_API_KEY": "sk-a-key-that-is-secret"}
        subprocess.run([*ar, "init", str(workspace)], check=True, capture_output=True, env=environment)
        argv = [*ar, "--backend", backend, "--preset", "demo", "--workspace", str(workspace), "--json", "loop"]
        argv += ["--tag", "faults", "-n", str(EXPERIMENTS), "--budget", str(BUDGETS[backend]), "--judge", "greedy"]
        argv += ["--researcher", "llm", "--max-usd", "5", "--model-timeout", "2", "--api-base", server.url]
        for name in ("unknown", "locked", "works"):
            argv += ["--model", f"openai/{name}", "--price", f"openai/{name}={USD[0]:g}/{USD[1]:g}"]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode or not lines:
            raise RuntimeError(f"the loop ended with {done.returncode}: {done.stderr[-2000:]}")
        run = workspace / "runs" / "faults"
        calls = [json.loads(line) for line in (run / "calls.jsonl").read_text(encoding="utf-8").splitlines()]
        leaked = sum(b"sk-a-key" in path.read_bytes() for path in run.rglob("*") if path.is_file())
        outcomes = _outcomes(model.sent, [one["outcome"] for one in calls if one["event"] == "ended"], server.requests)
        billed = server.billed * (TOKENS_IN * USD[0] + TOKENS_OUT * USD[1]) / 1e6
        result = {"summary": lines[-1]["summary"], "billed": billed, "outcomes": outcomes, "leaked": leaked}
        return {**result, **_ledger(run), "tokens_billed": server.billed * TOKENS_IN}


def _ledger(run: Path) -> dict[str, Any]:
    """The ledger's proposals: how many had each outcome, and the tokens and dollars of all."""
    with contextlib.closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        proposals = ledger.execute("SELECT outcome, error, tokens_in, usd FROM proposals").fetchall()
        decided = ledger.execute("SELECT count(*) FROM experiments WHERE state = 'decided' AND number > 0").fetchone()[
            0
        ]
    for outcome, error, _, _ in proposals:
        if outcome != "accepted":
            print(f"  {outcome}: {error}", file=sys.stderr)
    kinds = dict(Counter(outcome for outcome, *_ in proposals if outcome != "accepted"))
    sums = {"ledger_tokens": sum(row[2] for row in proposals), "ledger_usd": sum(row[3] for row in proposals)}
    return {"decided": decided, "withdrawn": kinds, **sums}


def _outcomes(sent: list[str], ended: list[str], requests: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Count, for each fault, what the loop did next."""
    found: dict[str, Counter[str]] = {}
    for i, fault in enumerate(sent):
        if not fault or i >= len(ended):
            continue
        outcome = "asked again" if ended[i] not in ("key", "model") else "next model"
        if ended[i] == "reply":
            told = requests[i + 1]["messages"][-1]["content"] if i + 1 < len(requests) else ""
            outcome = "told what is wrong" if told.startswith("Your edit was not taken") else "taken over by the tuner"
        found.setdefault(fault, Counter())[f"{ended[i]}: {outcome}"] += 1
    return found


def run(backends: tuple[str, ...] = ("null", "cuda")) -> list[dict[str, Any]]:
    """Run each backend's loop: the outcome of every fault, and figures that do not agree."""
    rows = []
    for backend in backends:
        result = loop(backend)
        summary, billed = result["summary"], result["billed"]
        print(f"{backend}: {json.dumps(summary)}", file=sys.stderr)
        faults = sum(sum(one.values()) for one in result["outcomes"].values())
        withdrawn = ", ".join(f"{times} {outcome}" for outcome, times in result["withdrawn"].items()) or "none"
        lost = result["tokens_billed"] - result["ledger_tokens"]
        for name, value, unit, note in (
            ("experiments decided", result["decided"], f"of {EXPERIMENTS}", f"{faults} faults"),
            ("billed by the server", billed, "$", f"{result['tokens_billed']:,} tokens in"),
            (
                "the loop's account is off by",
                round(abs(float(summary["usd"]) - billed), 9),
                "$",
                "--max-usd goes by it",
            ),
            ("the ledger is off by", round(abs(result["ledger_usd"] - billed), 9), "$", f"{lost:,} tokens lost"),
            ("proposals that became no experiment", summary["failed_proposals"], "", withdrawn),
            ("files with the key in them", result["leaked"], "files", ""),
        ):
            rows.append({"name": f"faults, {backend}: {name}", "median": value, "unit": unit, "note": note})
        for fault, outcomes in result["outcomes"].items():
            words = "; ".join(f"{outcome} ({times})" for outcome, times in outcomes.items())
            times = sum(outcomes.values())
            rows.append({"name": f"faults, {backend}: {fault}", "median": times, "unit": "times", "note": words})
    return rows


if __name__ == "__main__":
    for row in run(tuple(sys.argv[1:]) or ("null", "cuda")):
        print(row)
