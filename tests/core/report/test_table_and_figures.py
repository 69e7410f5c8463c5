import io
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import click
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from autoresearch.core.cli.status import HEADINGS
from autoresearch.core.report.document.figures import Labels, corners, draw_progress, value_range
from autoresearch.core.report.terminal.table import draw, write_table
from autoresearch.core.store.columns import COLUMNS, TABLE
from autoresearch.core.store.rows import ExperimentRow


def experiment(number, status, val_bpb, hypothesis="a change", delta=None, reason=None):
    return ExperimentRow(
        number=number,
        state="decided",
        parent=0,
        commit=None,
        source_sha256="",
        hypothesis=hypothesis,
        category="init",
        researcher="tuner",
        predicted_delta=None,
        parameters={},
        created=0.0,
        status=status,
        val_bpb=val_bpb,
        delta=delta,
        reason=reason,
        metrics={"wall_seconds": 31.4},
    )


RUN = [
    experiment(0, "keep", 2.6, "baseline"),
    experiment(1, "discard", 2.7, "a worse idea", 0.1),
    experiment(2, "crash", None, "a broken idea", reason="out of memory"),
    experiment(3, "keep", 2.5, "a better idea", -0.1),
    experiment(4, "discard", 9.0, "a terrible idea", 6.5),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_gets_tab_separated_lines():
    stream = io.StringIO()
    write_table(RUN, stream)
    lines = [line.split("\t") for line in stream.getvalue().splitlines()]
    assert lines[0] == [COLUMNS[name].title for name in TABLE]
    assert lines[1] == ["0", "keep", "2.6000", "-", "31", "tuner", "baseline"]
    assert lines[3] == ["2", "crash", "-", "-", "31", "tuner", "a broken idea (out of memory)"]
    assert lines[4][3] == "-0.1000"
    assert {len(line) for line in lines} == {len(TABLE)}


def test_a_hypothesis_cannot_break_the_table():
    stream = io.StringIO()
    write_table([experiment(0, "keep", 2.6, "one\ttwo\nthree \x1b[2J[bold]")], stream)
    assert stream.getvalue().splitlines()[1].split("\t")[-1] == "one two three [2J[bold]"


def test_a_hypothesis_becomes_no_picture_on_a_terminal():
    stream = Terminal()
    write_table([experiment(0, "keep", 2.6, "rows[:100:] and :zap: [red]")], stream)
    assert "rows[:100:] and :zap: [red]" in stream.getvalue()


def test_a_terminal_gets_a_drawn_table():
    stream = Terminal()
    write_table(RUN, stream)
    assert "a terrible idea" in stream.getvalue()
    assert "\t" not in stream.getvalue()


@pytest.mark.parametrize("width", [1, 12, 40, 60])
def test_a_narrow_terminal_gets_every_fact_in_a_paragraph(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    write_table(RUN, stream)
    shown = " ".join(click.unstyle(stream.getvalue()).split())
    for words in (
        "n 4",
        "status discard",
        "val_bpb 9.0000",
        "change +6.5000",
        "seconds 31",
        "description a terrible idea",
    ):
        assert words in shown


def test_a_terminal_of_eighty_columns_names_each_run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    cells = ["night", "finished", "null/demo", "40", "4", "5", "#24", "1.2969 ± 0.0380", "-0.3363", "1.3402", "40 done"]
    draw(HEADINGS, [cells], stream)
    shown = click.unstyle(stream.getvalue())
    assert all(f"{heading.title} {cell}" in shown for heading, cell in zip(HEADINGS, cells, strict=True))
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_terminal_gets_a_line_for_each_experiment_cut_between_words(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    long = experiment(
        5, "discard", 2.7, "DEPTH 4 -> 6, LEARNING_RATE 0.25 -> 0.707: " + "a step large enough " * 9, 0.1
    )
    short, full = Terminal(), Terminal()
    write_table([*RUN, long], short)
    lines = click.unstyle(short.getvalue()).splitlines()
    assert len(lines) == 1 + len(RUN) + 1
    assert all(len(line) <= 90 for line in lines)
    kept = lines[-1].split("  ")[-1].strip().removesuffix("…")
    assert long.hypothesis.startswith(kept)
    assert long.hypothesis[len(kept)] in " ,:"
    write_table([*RUN, long], full, full=True)
    assert full.getvalue().count("large") == 9


def read_png(path: Path) -> tuple[int, int, int]:
    """Width, height, and how many different bytes its pixels have."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    position, pixels = 8, b""
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            pixels += data[position + 8 : position + 8 + length]
        position += length + 12
    return width, height, len(set(zlib.decompress(pixels)))


@pytest.mark.parametrize(
    "rows",
    [RUN, RUN[:1], [experiment(0, "crash", None)], [], [experiment(0, "keep", 2.6), experiment(1, "discard", 2.6)]],
    ids=["a run", "a baseline", "a failed baseline", "nothing", "equal scores"],
)
def test_the_picture_is_drawn_whatever_there_is(tmp_path, rows):
    path = tmp_path / "new" / "progress.png"
    draw_progress(rows, {0: 2.61}, path, {"gzip": 2.55, "xz": 1.0})
    width, height, shades = read_png(path)
    assert (width, height) == (1600, 900)
    assert shades > 50


def test_words_in_the_picture_cover_neither_the_line_nor_a_dot_nor_each_other():
    figure = Figure(figsize=(8, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 30), ylim=(2.0, 3.0))
    figure.draw_without_rendering()
    steps = [(0.0, 2.9), (3.0, 2.8), (4.0, 2.79), (15.0, 2.5), (27.0, 2.2)]
    dots = [(n, 2.95 - 0.025 * n) for n in range(30)]
    line = corners(steps, 30.0)
    labels = Labels(axes, line, dots)
    placed = [labels.add("some words about a change", step, "black") for step in steps]
    assert 2 <= sum(placed) <= len(steps)
    assert sum(placed) == len(axes.texts)
    boxes = [text.get_window_extent() for text in axes.texts]
    for box in boxes:
        assert sum(box.overlaps(other) for other in boxes) == 1
        for here, there in pairwise(axes.transData.transform(line)):
            assert not box.overlaps(Bbox([here, there]))
        for dot in axes.transData.transform(dots):
            assert not box.contains(*dot)
        assert axes.get_window_extent().containsx(box.x1)


def test_one_terrible_result_does_not_flatten_the_picture():
    low, high = value_range(RUN, [(0, 2.6), (3, 2.5)])
    assert low < 2.5
    assert 2.7 < high < 3.0
