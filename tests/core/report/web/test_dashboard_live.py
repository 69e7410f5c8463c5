"""The dashboard in a real browser beside `ar loop` in another process: real trials, sandbox, audit and all."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from served import served

AR = [sys.executable, "-m", "autoresearch.core.cli.main"]


def test_the_page_follows_a_real_run_from_its_first_trial_to_its_end(page, library, tmp_path):
    corpus, workspace = library / "text", tmp_path / "w"
    environment = {**os.environ, "AR_DATA_DIR": str(library / "data")}
    subprocess.run([*AR, "init", str(workspace)], check=True, capture_output=True, env=environment)
    run = ["--backend", "null", "--preset", "demo", "--workspace", str(workspace), "loop", "--tag", "t", "-n", "1"]
    setting = ["--corpus", str(corpus), "--budget", "1", "--judge", "greedy"]
    with subprocess.Popen([*AR, *run, *setting], env=environment, stderr=subprocess.PIPE, text=True) as loop:
        until = time.monotonic() + 60
        while not (workspace / "runs/t/ledger.sqlite").is_file() and loop.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        with served(workspace) as port:
            page.set_default_timeout(90_000)
            page.goto(f"http://127.0.0.1:{port}/#/t")
            page.locator("#now").get_by_role("link", name="experiment 0").wait_for()
            page.locator("#now .loss").wait_for()
            page.get_by_text("2 of 2", exact=True).wait_for()
            page.get_by_text("finished: 1 experiment is decided").wait_for()
            # The baseline's score is always audited; the first experiment's only where it could speak for a keep.
            page.get_by_role("link", name="experiment 0", exact=True).click()
            page.get_by_text("passed: ").wait_for()
            page.go_back()
            page.get_by_role("link", name="experiment 1", exact=True).click()
            page.locator("#one .plot path.series").first.wait_for()  # drawn once the browser knows its width
            assert page.locator("#one .plot path.series").count() == 1
            assert page.locator(".diff .add").count() > 0
            page.goto("about:blank")
        _, said = loop.communicate(timeout=30)
        assert loop.returncode == 0, said
