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

from benchmarks.ledger import fill

SIZE = 10_000
LOADS = 7
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCROLL = """() => new Promise((done) => {
  const box = document.getElementById("scroll"), gaps = [], long = [];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)));
  observer.observe({ entryTypes: ["longtask"] });
  let last = performance.now(), left = 120;
  const step = (now) => {
    gaps.push(now - last);
    last = now;
    box.scrollTop += 700;
    if (--left) requestAnimationFrame(step); else setTimeout(() => done({ gaps: gaps.slice(1), long }), 200);
  };
  requestAnimationFrame(step);
})"""
"""Through 84,000 pixels of table: milliseconds between frames, and of tasks above 50 ms."""
FILTER = """() => {
  const field = document.getElementById("filter"), started = performance.now();
  field.value = "99";
  field.dispatchEvent(new Event("input"));
  return performance.now() - started;
}"""


def run() -> list[dict[str, Any]]:
    """Loads, scrolling, filtering and an experiment's page."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        fill(Path(name) / "runs" / "run", SIZE)
        with served(Path(name)) as url:
            chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            loads = [load(chromium, url) for _ in range(LOADS)]
            chromium.close()
    note = f"{SIZE} experiments, {LOADS} loads"
    rows = [
        row(what, [one[what] for one in loads], note) for what in ("first paint", "all rows and the chart", "filter")
    ]
    gaps = [gap for one in loads for gap in one["scroll"]["gaps"]]
    long = [task for one in loads for task in one["scroll"]["long"]]
    rows.append(row("scrolling: between frames", gaps, f"{len(gaps)} frames; 99 % under {quantile(gaps, 0.99):.0f} ms"))
    longest = f"{len(long)} tasks above 50 ms" + (f", the longest {max(long):.0f} ms" if long else "")
    rows.append({"name": "scrolling: long tasks a load", "median": len(long) / LOADS, "unit": "", "note": longest})
    return rows


def load(chromium: Any, url: str) -> dict[str, Any]:
    """One visit with an empty cache."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    page.goto(url)
    page.get_by_text(f"{SIZE} of {SIZE}").wait_for()
    whole = 1000 * (time.perf_counter() - started)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    found = {"first paint": painted, "all rows and the chart": whole, "scroll": page.evaluate(SCROLL)}
    found["filter"] = page.evaluate(FILTER)
    page.close()
    return found


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
        "note": f"{note}; {min(milliseconds):.0f} to {max(milliseconds):.0f}",
    }


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


if __name__ == "__main__":
    for one in run():
        print(f"{one['name']}: {one['median']:.1f} {one['unit']} ({one['note']})")
