"""The recording of a command in a terminal."""

from __future__ import annotations

import json
import sys

from benchmarks._record import record, text_of


def test_a_recording_holds_what_the_terminal_showed_and_what_was_drawn_over_is_gone_in_its_text(tmp_path):
    program = "import sys; print(sys.stdout.isatty()); print('half way', end='\\r\\x1b[2K'); print('done'); sys.exit(3)"
    assert record(tmp_path / "a.cast", [sys.executable, "-c", program]) == 3
    header, *pieces = [json.loads(line) for line in (tmp_path / "a.cast").read_text().splitlines()]
    assert (header["version"], header["width"]) == (2, 100)
    assert all(kind == "o" for _, kind, _ in pieces)
    assert text_of(tmp_path / "a.cast") == "True\ndone\n"
