"""Folders that somebody else has filled are removed whole, and nothing beside them."""

from __future__ import annotations

import os
from pathlib import Path

from autoresearch.core.files import remove_folder


def test_a_folder_goes_with_all_that_is_in_it_and_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("x")
    (folder / "a" / "link").symlink_to(outside)
    (folder / "to nothing").symlink_to("nowhere")
    os.mkfifo(folder / "a" / "b" / "pipe")
    remove_folder(folder)
    assert not folder.exists()
    assert (outside / "kept").read_text() == "kept"


def test_depth_and_modes_do_not_matter(tmp_path: Path) -> None:
    folder, here = tmp_path / "folder", Path.cwd()
    folder.mkdir()
    os.chdir(folder)
    try:
        for _ in range(3000):  # deeper than Python calls itself, and than a path can be
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("file").write_text("x")
    finally:
        os.chdir(here)
    (folder / "closed").mkdir()
    (folder / "closed" / "file").write_text("x")
    (folder / "closed").chmod(0o000)
    remove_folder(folder)
    assert not folder.exists()


def test_a_link_or_a_file_in_its_place_is_removed_itself(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "file").write_text("x")
    for name in ("link", "file", "missing"):
        remove_folder(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
