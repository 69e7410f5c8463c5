"""Git: the one place that runs it, and every experiment as a commit.

Commits are made by plumbing commands, without a checkout: the user's index and files are never touched. Experiment n of
run <tag> is refs/autoresearch/<tag>/<n>, and the branch autoresearch/<tag> is at the best experiment so far.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autoresearch.core.environment import git_environment
from autoresearch.core.errors import PrerequisiteError, SourceError, UsageError
from autoresearch.core.textfile import read_text

_FALLBACK_NAME, _FALLBACK_EMAIL = "autoresearch", "autoresearch@localhost"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")

LOCK_SECONDS = 10.0
"""Seconds after which the lock on a run's ref is taken for one that a killed git has left: git holds it for
milliseconds."""
_LOCK_POLL_SECONDS = 0.05
_LOCKED = re.compile(r"Unable to create '(.+?\.lock)': File exists")
"""Git's words for a file that another git has locked."""
_REF = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64}|ref: \S+)\s*")
"""Content of a ref's file."""
_REF_BYTES = 4096
RESERVED = {"trials": "the trials of `ar train`", "mlflow": "the files of a tracker"}
"""Names of other folders beside those of the runs, and what they hold."""


def check_tag(tag: str) -> str:
    """Return the tag if it can name a folder and a branch. Raises `UsageError`."""
    # `git check-ref-format` allows more than a folder name should hold, and forbids these last three.
    if not _TAG.fullmatch(tag) or ".." in tag or tag.endswith((".", ".lock")):
        raise UsageError(
            f"{tag[:100]!r} cannot name a run.",
            fix="use letters, digits, '-', '_' and '.', 100 at most, for example --tag wider-mlp",
        )
    if (held := RESERVED.get(tag.lower())) is not None:  # a Mac's folders do not tell capitals from small letters
        raise UsageError(f"a run cannot be named {tag!r}: that folder holds {held}.", fix="choose another --tag")
    return tag


def branch_name(tag: str) -> str:
    """Return the name of a run's branch."""
    return f"autoresearch/{tag}"


def experiment_ref(tag: str, number: int) -> str:
    """Return the full name of an experiment's ref."""
    return f"refs/autoresearch/{tag}/{number}"


def lost_ref(tag: str, number: int, commit: str) -> str:
    """Return the name of the ref that keeps an experiment which the ledger has lost, once its number is another's."""
    return f"refs/autoresearch/{tag}/lost/{number}-{commit[:10]}"


def run_git(
    folder: Path,
    *arguments: str,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    allow_failure: bool = False,
    strip: bool = True,
) -> str:
    """Run one git command in a folder and return its standard output, without surrounding blanks if `strip`.

    Raises `SourceError` with git's own words when it fails; `allow_failure` returns "" instead. Raises like `try_git`.
    """
    done = try_git(folder, *arguments, stdin=stdin, environment=environment)
    if done.returncode != 0 and not allow_failure:
        said = " ".join(done.stderr.decode("utf-8", errors="replace").split()) or f"exit code {done.returncode}"
        if lock := _LOCKED.search(said):
            raise SourceError(
                f"{lock[1]} is there: another git is at work in this repository, or one that was killed has left it.",
                fix=f"if no git is running, rm {shlex.quote(lock[1])}, then give the same command again",
            )
        raise SourceError(f"`git {' '.join(arguments[:2])}` failed in {folder}: {said}")
    out = done.stdout.decode("utf-8", errors="surrogateescape")
    return ("" if done.returncode else out.strip()) if strip else out


def try_git(
    folder: Path, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run one git command in a folder, whatever its exit code.

    Raises `SourceError` when a signal kills it twice, and `PrerequisiteError` when git is not installed.
    """
    done = _run_once(folder, arguments, stdin, environment)
    if done.returncode < 0:
        # A service manager that stops the loop tells every process of the service, git included, and `pkill -f` finds
        # git by the run's refs. The loop ends by itself then, and what it is writing must be whole. Never taken for
        # git's answer: a ref is not missing because nobody could look.
        done = _run_once(folder, arguments, stdin, environment)
    if done.returncode < 0:
        words = f"it was killed by signal {-done.returncode}; the same command may work again"
        raise SourceError(f"`git {' '.join(arguments[:2])}` failed in {folder}: {words}")
    return done


def _run_once(
    folder: Path, arguments: Sequence[str], stdin: str, environment: Mapping[str, str] | None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-c", "core.fsync=all", "-c", "core.quotePath=false", *arguments],
            cwd=folder,
            input=stdin.encode("utf-8", errors="surrogatepass"),
            capture_output=True,
            env={**git_environment(), "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **(environment or {})},
            check=False,
            start_new_session=True,  # a Ctrl-C is for the loop, which finishes what it is writing
        )
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise SourceError(f"{folder} is not a folder.") from error
        raise PrerequisiteError("git is not installed.", fix="install git and put it on PATH") from None


def fallback_identity(folder: Path) -> Mapping[str, str]:
    """Return author and committer for a machine where git knows none, as variables; nothing where it does."""
    if all(run_git(folder, "var", f"GIT_{role}_IDENT", allow_failure=True) for role in ("AUTHOR", "COMMITTER")):
        return {}
    return {
        f"GIT_{role}_{field}": value
        for role in ("AUTHOR", "COMMITTER")
        for field, value in (("NAME", _FALLBACK_NAME), ("EMAIL", _FALLBACK_EMAIL))
    }


@dataclass(frozen=True)
class Repository:
    """The git repository that holds a workspace, at its top or in a folder."""

    workspace: Path
    prefix: str
    """Path of the workspace inside the repository, "" or ending in "/"."""

    @classmethod
    def open(cls, workspace: Path) -> Repository:
        """Open the repository of a workspace. Raises `SourceError` without a repository or without a commit in it."""
        if not workspace.is_dir():
            raise SourceError(
                f"{workspace} is not a folder.", fix="name the workspace with --workspace, or make one: ar init DIR"
            )
        try:
            # Two lines: the answer, and the prefix, which is empty at the top.
            inside, _, prefix = run_git(workspace, "rev-parse", "--is-inside-work-tree", "--show-prefix").partition(
                "\n"
            )
        except SourceError as error:
            if "not a git repository" not in str(error):
                raise
            inside, prefix = "false", ""
        if inside != "true":
            raise SourceError(
                f"{workspace} is not in the work tree of a git repository.",
                fix="make a workspace with `ar init DIR` and go there; if this is one: git init && git add . && "
                "git commit -m start",
            )
        repository = cls(workspace, prefix)
        repository.head()
        return repository

    def head(self) -> str:
        """Return the commit that is checked out. Raises `SourceError` when there is none."""
        commit = self._resolve("HEAD")
        if commit is None:
            raise SourceError(
                f"the repository at {self.workspace} has no commit yet.", fix="git add . && git commit -m start"
            )
        return commit

    def current_branch(self) -> str | None:
        """Return the branch that is checked out, or None on a detached HEAD."""
        return self._try_git("symbolic-ref", "--quiet", "--short", "HEAD") or None

    def read(self, commit: str, path: str) -> str:
        """Read a file of a commit; `path` is relative to the workspace."""
        return self._git("cat-file", "blob", f"{commit}:{self.prefix}{path}", strip=False)

    def changed(self, path: str) -> bool:
        """Tell whether the file in the work tree differs from HEAD's, or is not in HEAD."""
        committed = self._resolve(f"HEAD:{self.prefix}{path}")
        there = (self.workspace / path).is_file()
        if committed is None or not there:
            return committed is not None or there
        # Without -w nothing is stored, and unlike `git diff` it never refreshes the index.
        return self._git("hash-object", "--", path) != committed

    def commit(self, path: str, source: str, *, parent: str, message: str, date: float) -> str:
        """Commit `source` at `path` on top of `parent` and return the commit. Moves no ref.

        Equal arguments give equal commits, so a step that a crash cut off can be taken again.
        """
        blob = self._git("hash-object", "-w", "--stdin", stdin=source)
        name = f"{self.prefix}{path}"
        entry = self._git("ls-tree", "--full-tree", parent, "--", name)
        mode = entry.split(" ", 1)[0] if entry else "100644"
        with tempfile.TemporaryDirectory(prefix="ar-index-") as folder:
            # An index of its own: the person's staged changes and work tree are never touched.
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._git("read-tree", parent, environment=index)
            self._git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", environment=index)
            tree = self._git("write-tree", environment=index)
        # The date comes from the ledger, which makes the commit's hash the same whenever the step is taken again.
        # With an @ git takes any number for seconds, also that of a clock which begins in 1970.
        when = f"@{max(0, int(date))} +0000"
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        identity = {**self._identity, **dates}
        return self._git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message, environment=identity)

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        return fallback_identity(self.workspace)

    def ref(self, name: str) -> str | None:
        """Return the commit of a full ref name, or None."""
        return self._resolve(f"{name}^{{commit}}")

    def check_branch(self, tag: str) -> None:
        """Check that git can make a run's branch. Raises `SourceError` where another branch takes its place.

        A branch is a file in a folder of its name's first part: `autoresearch` and `autoresearch/<tag>` exclude each
        other.
        """
        branch = branch_name(tag)
        above, below = branch.partition("/")[0], self._git("for-each-ref", "--count=1", f"refs/heads/{branch}/")
        name = above if self.ref(f"refs/heads/{above}") else below.partition("refs/heads/")[2]
        if name:
            raise SourceError(
                f"the branch {name!r} leaves no room for the run's own, {branch!r}.",
                fix=f"git branch -m {shlex.quote(name)} another-name",
            )

    def refs(self, tag: str) -> dict[int, str]:
        """Return the commit of every experiment that has a ref, by its number."""
        prefix = f"refs/autoresearch/{tag}/"
        lines = self._git("for-each-ref", "--format=%(refname) %(objectname)", prefix).splitlines()
        found = (line.removeprefix(prefix).split(" ") for line in lines)
        return {int(number): commit for number, commit in found if number.isdigit()}

    def lost_refs(self, tag: str) -> list[str]:
        """Return the full names of the refs that keep experiments which the run's ledger has lost."""
        return self._git("for-each-ref", "--format=%(refname)", f"refs/autoresearch/{tag}/lost/").splitlines()

    def missing(self, commits: Sequence[str]) -> set[str]:
        """Return those of the commits that git does not have."""
        answers = self._git("cat-file", "--batch-check", stdin="".join(f"{commit}\n" for commit in commits))
        return {line.removesuffix(" missing") for line in answers.splitlines() if line.endswith(" missing")}

    def drop_empty_objects(self) -> None:
        """Remove the objects without content.

        A git before 2.36 does not flush objects, so that a power cut leaves the last ones empty, and git writes none
        that it finds there.
        """
        folder = self.workspace / self._git("rev-parse", "--git-path", "objects")
        for path in folder.glob("[0-9a-f][0-9a-f]/*"):
            if path.stat().st_size == 0:
                path.unlink()

    def create_refs(self, refs: Mapping[str, str]) -> None:
        """Make refs that are not there, given by full name and commit, in one step. Raises `SourceError`."""
        if refs:
            lines = "".join(f"create {name} {commit}\n" for name, commit in sorted(refs.items()))
            self._update_refs(list(refs), "--stdin", stdin=lines)

    def move_ref(self, name: str, commit: str, *, expected: str | None, reason: str) -> None:
        """Set a ref that is now at `expected` (None: it does not exist). Raises `SourceError` if it is elsewhere."""
        try:
            self._update_refs([name], "--create-reflog", "-m", reason, name, commit, expected or "")
        except SourceError:
            # A first try that was killed when it had moved the ref already leaves nothing to do.
            if self.ref(name) != commit:
                raise

    def drop_ref(self, name: str) -> None:
        """Delete a ref; its commits go with git's next clean-up."""
        self._update_refs([name], "-d", name)

    def _update_refs(self, names: Sequence[str], *arguments: str, stdin: str = "") -> None:
        """Run `git update-ref`, once more where one of the refs was locked or broken."""
        try:
            self._git("update-ref", *arguments, stdin=stdin)
        except SourceError:
            if not [name for name in names if self._unlock(name) or self._drop_broken(name)]:
                raise
            self._git("update-ref", *arguments, stdin=stdin)

    def _unlock(self, name: str) -> bool:
        """Wait until another git has released a ref of the run, and return whether one held it.

        A git that was killed, or a power cut, leaves its lock for good, and no later loop could go on. The refs are the
        run's own, and this process holds the run: a lock that stays for LOCK_SECONDS is nobody's, and is removed.
        """
        lock = self.workspace / self._git("rev-parse", "--git-path", f"{name}.lock")
        before, until = _stamp(lock), time.monotonic() + LOCK_SECONDS
        if before is None:
            return False
        while _stamp(lock) == before:
            if time.monotonic() > until:
                lock.unlink(missing_ok=True)
                break
            time.sleep(_LOCK_POLL_SECONDS)
        return True

    def _resolve(self, name: str) -> str | None:
        return self._try_git("rev-parse", "--verify", "--quiet", name) or None

    def _git(
        self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None, strip: bool = True
    ) -> str:
        return run_git(self.workspace, *arguments, stdin=stdin, environment=environment, strip=strip)

    def _try_git(self, *arguments: str) -> str:
        return run_git(self.workspace, *arguments, allow_failure=True)

    def _drop_broken(self, name: str) -> bool:
        """Remove a ref that holds neither a commit nor a name, and return whether it was one.

        A git before 2.36 does not flush refs, so that a power cut leaves one empty: no git moves it any more.
        """
        path = self.workspace / self._git("rev-parse", "--git-path", name)
        try:
            broken = _REF.fullmatch(read_text(path, _REF_BYTES)) is None
        except UnicodeDecodeError:
            broken = True
        except OSError:  # there is no such file, or it is longer than any ref
            broken = False
        if broken:
            path.unlink(missing_ok=True)
        return broken


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a value that differs for another file of the same name; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
