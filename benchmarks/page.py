"""The dashboard in a headless Chromium, 10,000 experiments. Goals: first paint under 1 s, scrolling without stalls."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

from benchmarks.ledger import fill

SIZE = 10_000
LOADS = 7
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCROLL = """() => new Promise((done) => {
  const box = document.getElementById("scroll");
  let left = 120;
  const step = () => {
    box.scrollTop += 700;
    if (--left) requestAnimationFrame(step); else requestAnimationFrame(done);
  };
  requestAnimationFrame(step);
})"""
FRAMES = 120
"""Through 84,000 pixels of table."""
FILTER = """() => {
  const field = document.getElementById("filter"), started = performance.now();
  field.value = "99";
  field.dispatchEvent(new Event("input"));
  return performance.now() - started;
}"""


def run() -> list[dict[str, Any]]:
    """Loads, scrolling, filtering and the lessons of the run."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        fill(Path(name) / "runs" / "run", SIZE)
        with served(Path(name)) as url:
            chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            loads = [load(chromium, url, Path(name) / "trace.json") for _ in range(LOADS)]
            chromium.close()
            overviews = [overview(url) for _ in range(LOADS)]
    note = f"{SIZE} experiments, {LOADS} loads"
    rows = [
        row(what, [one[what] for one in loads], note) for what in ("first paint", "all rows and the chart", "filter")
    ]
    rows.append(row("the lessons of the run", overviews, note))
    what = "of the main thread's processor time, so that other work on the machine does not count"
    rows.append(row("scrolling: a frame", [sum(one["scroll"]) / FRAMES for one in loads], what))
    rows.append(row("scrolling: the longest task", [max(one["scroll"]) for one in loads], "as above; a stall is 50"))
    return rows


def load(chromium: Any, url: str, trace: Path) -> dict[str, Any]:
    """One visit with an empty cache."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    page.goto(url)
    page.get_by_text(f"{SIZE} of {SIZE}").wait_for()
    whole = 1000 * (time.perf_counter() - started)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    chromium.start_tracing(page=page, path=trace, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    page.evaluate(SCROLL)
    chromium.stop_tracing()
    found = {"first paint": painted, "all rows and the chart": whole, "scroll": tasks(trace)}
    found["filter"] = page.evaluate(FILTER)
    page.close()
    return found


def overview(url: str) -> float:
    """Milliseconds until the data of the lessons are there."""
    started = time.perf_counter()
    with urlopen(urljoin(url, "/api/runs/run/overview")) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - started)


def tasks(trace: Path) -> list[float]:
    """Milliseconds of processor time of every task of the page's main thread."""
    events = json.loads(trace.read_text())["traceEvents"]
    names = {(one["pid"], one["tid"]): one["args"]["name"] for one in events if one["name"] == "thread_name"}
    main = {thread for thread, name in names.items() if name == "CrRendererMain"}
    mine = [one for one in events if one.get("ph") == "X" and (one["pid"], one["tid"]) in main]
    return [one.get("tdur", 0) / 1000 for one in mine if one["name"] == "RunTask"]


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """`ar dashboard` in a process of its own."""
    command = [str(Path(sys.executable).with_name("ar")), "--workspace", str(workspace), "dashboard", "--port", "0"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def row(name: str, milliseconds: list[float], note: str) -> dict[str, Any]:
    return {
        "name": name,
        "median": statistics.median(milliseconds),
        "unit": "ms",
        "note": f"{note}; {min(milliseconds):.1f} to {max(milliseconds):.1f}",
    }


if __name__ == "__main__":
    for one in run():
        print(f"{one['name']}: {one['median']:.1f} {one['unit']} ({one['note']})")
