"""Every experiment as a git commit, made by plumbing: no checkout, and the user's index and files are never touched.

Experiment n of run <tag> is refs/autoresearch/<tag>/<n>; the branch autoresearch/<tag> stands at the best so far.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoresearch.core.errors import PrerequisiteError, SourceError, UsageError

_FALLBACK_NAME, _FALLBACK_EMAIL = "autoresearch", "autoresearch@localhost"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")


def check_tag(tag: str) -> str:
    """The tag, if it can name a folder and a branch. Raises `UsageError`."""
    # `git check-ref-format` allows more than a folder name should hold, and forbids these last three.
    if not _TAG.fullmatch(tag) or ".." in tag or tag.endswith((".", ".lock")):
        raise UsageError(
            f"{tag!r} cannot name a run.", fix="use letters, digits, '-', '_' and '.', for example --tag wider-mlp"
        )
    return tag


def branch_name(tag: str) -> str:
    """The branch of a run."""
    return f"autoresearch/{tag}"


def experiment_ref(tag: str, number: int) -> str:
    """The ref of an experiment."""
    return f"refs/autoresearch/{tag}/{number}"


@dataclass(frozen=True)
class Repository:
    """The git repository that a workspace lies in, at its top or in a folder of it."""

    workspace: Path
    prefix: str
    """The workspace's folder inside the repository, "" or ending in "/"."""

    @classmethod
    def open(cls, workspace: Path) -> Repository:
        """Raises `SourceError` when there is no git, no repository, or no commit in it yet."""
        if not workspace.is_dir():
            raise SourceError(
                f"{workspace} is no folder.", fix="name the workspace with --workspace, or make one: ar init DIR"
            )
        probe = cls(workspace, "")
        try:
            inside = probe._git("rev-parse", "--is-inside-work-tree")
        except SourceError as error:
            if "not a git repository" not in str(error):
                raise
            inside = "false"
        if inside != "true":
            fix = "in that folder: git init && git add . && git commit -m start; or make a workspace: ar init DIR"
            raise SourceError(f"{workspace} is not in the work tree of a git repository.", fix=fix)
        repository = cls(workspace, probe._git("rev-parse", "--show-prefix"))
        repository.head()
        return repository

    def head(self) -> str:
        """The commit that is checked out."""
        commit = self._resolve("HEAD")
        if commit is None:
            raise SourceError(
                f"the repository at {self.workspace} has no commit yet.", fix="git add . && git commit -m start"
            )
        return commit

    def current_branch(self) -> str | None:
        """The branch that is checked out, or None on a detached HEAD."""
        return self._git("symbolic-ref", "--quiet", "--short", "HEAD", allow_failure=True) or None

    def read(self, commit: str, path: str) -> str:
        """A file of a commit; `path` is relative to the workspace."""
        return self._git("cat-file", "blob", f"{commit}:{self.prefix}{path}", strip=False)

    def changed(self, path: str) -> bool:
        """Whether the file in the work tree differs from HEAD's, or is not in HEAD."""
        committed = self._resolve(f"HEAD:{self.prefix}{path}")
        there = (self.workspace / path).is_file()
        if committed is None or not there:
            return committed is not None or there
        # Without -w nothing is stored, and unlike `git diff` it never refreshes the index.
        return self._git("hash-object", "--", path) != committed

    def commit(self, path: str, source: str, *, parent: str, message: str, date: float) -> str:
        """A commit on `parent` in which only `path` differs. The same arguments give the same commit. Moves no ref."""
        blob = self._git("hash-object", "-w", "--stdin", stdin=source)
        name = f"{self.prefix}{path}"
        entry = self._git("ls-tree", "--full-tree", parent, "--", name)
        mode = entry.split(" ", 1)[0] if entry else "100644"
        with tempfile.TemporaryDirectory(prefix="ar-index-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._git("read-tree", parent, environment=index)
            self._git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", environment=index)
            tree = self._git("write-tree", environment=index)
        when = f"{int(date)} +0000"
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        identity = {**self._identity(), **dates}
        return self._git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message, environment=identity)

    def ref(self, name: str) -> str | None:
        """The commit that a full ref name stands at, or None."""
        return self._resolve(f"{name}^{{commit}}")

    def refs(self, tag: str) -> dict[int, str]:
        """Experiment number -> commit, of every ref of a run."""
        prefix = f"refs/autoresearch/{tag}/"
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)", prefix).splitlines()
        found = (line.removeprefix(prefix).split(" ") for line in lines)
        return {int(number): commit for number, commit in found if number.isdigit()}

    def move_ref(self, name: str, commit: str, *, expected: str | None, reason: str) -> None:
        """Set a ref that now stands at `expected` (None: that does not exist). Raises `SourceError` if it does not."""
        self._git("update-ref", "--create-reflog", "-m", reason, name, commit, expected or "")

    def drop_ref(self, name: str) -> None:
        """Delete a ref; its commits go with git's next clean-up."""
        self._git("update-ref", "-d", name)

    def _resolve(self, name: str) -> str | None:
        return self._git("rev-parse", "--verify", "--quiet", name, allow_failure=True) or None

    def _identity(self) -> Mapping[str, str]:
        """Nothing where git knows an author; else a stand-in, so that a fresh machine needs no set-up."""
        if self._git("var", "GIT_AUTHOR_IDENT", allow_failure=True) and self._git(
            "var", "GIT_COMMITTER_IDENT", allow_failure=True
        ):
            return {}
        return {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", _FALLBACK_NAME), ("EMAIL", _FALLBACK_EMAIL))
        }

    def _git(
        self,
        *arguments: str,
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        allow_failure: bool = False,
        strip: bool = True,
    ) -> str:
        """Standard output of one git command in the workspace."""
        # What git itself sets for hooks would point it at another repository or index.
        inherited = {k: v for k, v in os.environ.items() if k not in _GIT_VARIABLES}
        command = ["git", "-c", "core.fsync=all", "-c", "core.quotePath=false", *arguments]
        try:
            done = subprocess.run(
                command,
                cwd=self.workspace,
                input=stdin.encode("utf-8", errors="surrogatepass"),
                capture_output=True,
                env={**inherited, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **(environment or {})},
                check=False,
                start_new_session=True,  # a Ctrl-C is for the loop, which finishes what it is writing
            )
        except FileNotFoundError:
            raise PrerequisiteError("git is not installed.", fix="install git and put it on PATH") from None
        if done.returncode != 0 and not allow_failure:
            said = " ".join(done.stderr.decode("utf-8", errors="replace").split())
            raise SourceError(f"`git {' '.join(arguments[:2])}` failed in {self.workspace}: {said}")
        out = done.stdout.decode("utf-8", errors="surrogateescape")
        return ("" if done.returncode else out.strip()) if strip else out


_GIT_VARIABLES = frozenset(
    (
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"),
        *("GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"),
    )
)
