"""The last profile, as a researcher is shown it."""

from __future__ import annotations

import json

from autoresearch.core.run.history import PROFILE_CHARACTERS, last_profile

SOURCE = "def build(spec):\n    return 1\n"


def leave(
    runs, name: str, *, preset: str = "cpu", source: str = SOURCE, page: str = "# Where the time goes\n\nin tanh\n"
):
    folder = runs / "trials" / name
    folder.mkdir(parents=True)
    (folder / "profile.md").write_text(page)
    (folder / "train.py").write_text(source)
    (folder / "result.json").write_text(json.dumps({"preset": preset}))


def test_the_newest_profile_of_this_backend_and_preset_is_shown_with_what_it_is_of(tmp_path):
    leave(tmp_path, "20260101-000000-cuda", page="# Where the time goes\n\nin the old place\n")
    leave(tmp_path, "20260102-000000-cuda-2")
    leave(tmp_path, "20260103-000000-cuda", preset="demo")
    leave(tmp_path, "20260104-000000-mlx")
    shown = last_profile(tmp_path, "cuda", "cpu", f"# a comment more\n{SOURCE}")
    assert shown.startswith("Of the best train file so far, ")
    assert shown.endswith("Where the time goes\n\nin tanh")
    assert last_profile(tmp_path, "cuda", "cpu", "x = 1\n").startswith("Of another version of the train file, ")


def test_no_profile_is_nothing_and_a_damaged_one_is_passed_over(tmp_path):
    assert last_profile(tmp_path, "cuda", "cpu", SOURCE) == ""
    leave(tmp_path, "20260101-000000-cuda", page="x" * 2 * PROFILE_CHARACTERS)
    leave(tmp_path, "20260102-000000-cuda")
    (tmp_path / "trials/20260102-000000-cuda/profile.md").write_bytes(b"\xff\xfe")
    leave(tmp_path, "20260103-000000-cuda")
    (tmp_path / "trials/20260103-000000-cuda/result.json").write_text("[]")
    assert last_profile(tmp_path, "cuda", "cpu", SOURCE).count("x") == PROFILE_CHARACTERS
