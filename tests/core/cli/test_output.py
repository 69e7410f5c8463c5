"""Files that a command writes at its end are refused before it computes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autoresearch.core.cli.context import Settings
from autoresearch.core.cli.output import check_writable, draw_picture
from autoresearch.core.errors import UsageError


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


def _link_to_itself(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return "loop/p.png"


def _below_a_file(folder: Path) -> str:
    (folder / "file").touch()
    return "file/p.png"


PLACES = {
    "a folder": (lambda folder: ".", "it is a folder"),
    "a pipe": (_pipe, "it is not a plain file"),
    "a link to itself": (_link_to_itself, "ymbolic"),
    "below a file": (_below_a_file, "Not a directory"),
    "a name that is too long": (lambda folder: "x" * 300 + ".png", "too long"),
    "a file system without files": (lambda folder: "/proc/nothing/p.png", "/proc/nothing/p.png cannot be written"),
    "the home of nobody": (lambda folder: "~nobody-of-that-name/p.png", "home"),
    "a zero byte": (lambda folder: "a\0b.png", "null"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_takes_no_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    make, words = PLACES[place]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words) as told:
        check_writable(Path(make(tmp_path)), "name another")
    assert "cannot be written" in str(told.value) and "\n" not in str(told.value) and told.value.fix == "name another"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        check_writable(tmp_path / "closed" / "deep" / "p.png", "name another")


def test_a_place_that_will_do_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.png").write_text("old")
    monkeypatch.chdir(tmp_path)
    assert check_writable(Path("old.png"), "") == tmp_path / "old.png"
    assert check_writable(Path("new/deep/p.png"), "") == tmp_path / "new" / "deep" / "p.png"
    assert check_writable(tmp_path, "", folder=True) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"] and (tmp_path / "old.png").read_text() == "old"


def test_a_folder_s_place_that_holds_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="it is not a folder"):
        check_writable(tmp_path / "file", "", folder=True)


def test_a_picture_that_cannot_be_drawn_any_more_is_said_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    assert not draw_picture(Settings(), tmp_path / "p.png", full)
    assert capsys.readouterr().err == f"the picture {tmp_path / 'p.png'} cannot be written: No space left on device\n"
    assert draw_picture(Settings(), tmp_path, lambda: None) and not draw_picture(Settings(), tmp_path, lambda: False)
