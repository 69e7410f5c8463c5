"""A presets.toml that somebody has spoilt is one line that names the place in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoresearch import backends
from autoresearch.core.config import load_presets
from autoresearch.core.errors import PrerequisiteError

SOUND = (Path(next(iter(backends.__path__))) / "null" / "presets.toml").read_text(encoding="utf-8")


def refused(path: Path) -> str:
    """Read presets that are none, and return the message."""
    with pytest.raises(PrerequisiteError) as told:
        load_presets(path)
    assert "\n" not in str(told.value) and len(str(told.value)) < 600
    assert told.value.fix is not None and "git checkout" in told.value.fix
    return str(told.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train_seconds = nan", "train_seconds: Input should be"),
        ("train_seconds = inf", "train_seconds: Input should be"),
        ("train_seconds = -1", "train_seconds: Input should be greater than 0"),
        ("score_rows = 0", "score_rows: Input should be greater than or equal to 1"),
        ("score_rows = [1]", "score_rows: Input should be a valid integer"),
        ("description = 1979-05-27", "description: Input should be a valid string"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path: Path, line: str, said: str) -> None:
    name = line.split(" ")[0]
    kept = [one for one in SOUND.splitlines() if not one.startswith(f"{name} =")]
    at = next(index for index, one in enumerate(kept) if one.startswith("[")) + 1
    (tmp_path / "presets.toml").write_text("\n".join([*kept[:at], line, *kept[at:]]))
    assert said in refused(tmp_path / "presets.toml")


@pytest.mark.parametrize("text", ["a = 3", '[a]\nlike = "a"', '[a]\nlike = ["b"]', "a = " + "[" * 10_000, "[a]"])
def test_tables_that_are_no_presets_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "presets.toml").write_text(text)
    assert "cannot be read as presets" in refused(tmp_path / "presets.toml")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "it is a pipe, not a file" in refused(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert "it is a device, not a file" in refused(tmp_path / "zero")
