"""A run's files and commits: opened, repaired after a crash, and written from the ledger."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from autoresearch.core.config import Preset, runs_dir, train_file
from autoresearch.core.errors import PrerequisiteError, SourceError
from autoresearch.core.findings.offered import Findings
from autoresearch.core.findings.peers import OtherRuns
from autoresearch.core.proposal import Attempt, Proposal
from autoresearch.core.config import RunConfig
from autoresearch.core.store.attempts import attempt_of
from autoresearch.core.store.constants import write_preset
from autoresearch.core.store.exports import append_results, drop_weights, export_best, export_results
from autoresearch.core.store.fingerprint import fingerprint
from autoresearch.core.store.integrity import Integrity
from autoresearch.core.store.ledger import Ledger
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.source import Repository, branch_name, check_tag, experiment_ref
from autoresearch.core.store.texts import Texts


class RunFiles:
    """What a run is on disk: ledger, commits and refs, and the files that follow from the ledger.

    `attempts` holds every decided experiment as researchers see it; sources are read from the ledger when asked for.
    """

    def __init__(
        self,
        workspace: Path,
        tag: str,
        config: RunConfig,
        preset: Preset,
        *,
        allow_dirty: bool = False,
        integrity: Integrity | None = None,
        others: OtherRuns | None = None,
    ) -> None:
        """Start the run, or take it up where it stopped. Starting needs a train file without uncommitted changes.

        `integrity` watches the files that its verdicts hang on; None watches nothing. `others` are the runs whose
        findings are offered to it.
        """
        self.tag, self.config, self._preset, self._allow_dirty = check_tag(tag), config, preset, allow_dirty
        self.workspace = workspace
        self._integrity = integrity
        self._untidy: list[ExperimentRow] = []
        self._spent: list[int] = []
        self.repository = Repository.open(workspace)
        self.folder = runs_dir(workspace) / tag
        self._path = train_file(workspace, config.backend).relative_to(workspace).as_posix()
        if not (self.folder / "ledger.sqlite").is_file():
            self._check_start()
        self.ledger = Ledger(self.folder)
        self._texts = Texts(self.folder)
        try:
            self._open()
            self.findings = None if others is None else Findings(self.ledger, others)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> RunFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._texts.close()
        self.ledger.close()

    def _check_start(self) -> None:
        branch = branch_name(self.tag)
        if self.repository.ref(f"refs/heads/{branch}") or self.repository.refs(self.tag):
            fix = f"choose another --tag, or delete the branch {branch} and its refs/autoresearch/{self.tag}"
            raise SourceError(f"git has experiments of an earlier run {self.tag!r}, but its ledger is gone.", fix=fix)
        self.program()
        self._starting_source()

    def _open(self) -> None:
        if not self.ledger.created:
            self.ledger.create(self.tag, self.config.plain(), self.repository.head())
        else:
            self.config.check_same(dict(self.ledger.run().config), self.tag)
            self.ledger.heartbeat()
        if self._integrity is not None:
            self._integrity.begin(self.ledger)
        if self.repository.current_branch() == branch_name(self.tag):
            message = f"the branch {branch_name(self.tag)} is checked out, and the run moves it."
            raise PrerequisiteError(message, fix="git switch - (or git switch --detach)")
        self._ensure_baseline()
        self.attempts = [self._attempt(self.ledger.experiment(number)) for number in self.ledger.decisions()]
        self._ensure_refs()
        export_results(self.ledger)
        self._advance()
        drop_weights(self.ledger)

    def _starting_source(self) -> str:
        return starting_source(self.repository, self.config.backend, self._preset, allow_dirty=self._allow_dirty)

    def _ensure_baseline(self) -> None:
        """Experiment 0, unless it is there. One that failed starts again from the train file as it is now."""
        baseline = self.ledger.experiment(0) if self.ledger.next_number() else None
        if baseline is not None and (baseline.state != "decided" or baseline.status == "keep"):
            return
        source, created = self._starting_source(), time.time()
        commit = self.repository.commit(
            self._path, source, parent=self.repository.head(), message=f"{self.tag}: baseline", date=created
        )
        if baseline is not None:
            self.ledger.restart_baseline(source, commit=commit, fingerprint=fingerprint(source), created=created)
        else:
            proposal = Proposal(source=source, hypothesis="baseline", category="baseline")
            self._record(0, proposal, parent=0, commit=commit, created=created, program=self.program())

    def program(self) -> str:
        """program.md as it is now."""
        path = self.workspace / "program.md"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fix = "make a workspace with `ar init DIR`, or name one with --workspace"
            raise PrerequisiteError(f"there is no readable {path}: {error}.", fix=fix) from error

    def _commit(self, source: str, parent: int, message: str, date: float) -> str:
        commit = str(self.ledger.experiment(parent).commit)
        return self.repository.commit(self._path, source, parent=commit, message=message, date=date)

    def _record(
        self, number: int, proposal: Proposal, *, parent: int, commit: str, created: float, program: str
    ) -> None:
        mark = fingerprint(proposal.source)
        self.ledger.propose(
            number, proposal, parent=parent, commit=commit, fingerprint=mark, program=program, created=created
        )

    def tidy(self) -> None:
        """Bring table, branch, best file and disk in line with the decisions since the last call.

        Apart from `decide`, so that the next trial need not wait for it; after a crash, opening the run does the same.
        """
        if not self._untidy:
            return
        append_results(self.ledger, self._untidy)
        if any(row.status == "keep" for row in self._untidy):
            self._advance()
        for number in self._spent:
            drop_weights(self.ledger, number)
        self._untidy, self._spent = [], []

    def _advance(self) -> None:
        """Branch and best file to the incumbent. After a crash the branch may stand at another experiment."""
        best = self.ledger.incumbent()
        if best is None:
            return
        name = f"refs/heads/{branch_name(self.tag)}"
        there = self.repository.ref(name)
        if there != best.commit:
            if there is not None and not self.ledger.has_commit(there):
                fix = f"git branch -f {branch_name(self.tag)} {best.commit} (this drops what was put there)"
                raise SourceError(f"the branch {branch_name(self.tag)} was moved by somebody else.", fix=fix)
            self.repository.move_ref(name, str(best.commit), expected=there, reason=f"keep {best.number}")
        export_best(self.ledger)

    def incumbent_number(self) -> int:
        """The best experiment so far; the baseline while there is none."""
        number = self.ledger.run().incumbent
        return 0 if number is None else number

    def _attempt(self, row: ExperimentRow) -> Attempt:
        return attempt_of(row, partial(self._texts.read, row.source_sha256))

    def _ensure_refs(self) -> None:
        """What a crash left undone: a ref for everything in flight, and none for what was withdrawn."""
        for row in self.ledger.undecided():
            self._ensure_ref(row)
        known = {row.number for row in self.ledger.experiments()}
        for number in self.repository.refs(self.tag).keys() - known:
            self.repository.drop_ref(experiment_ref(self.tag, number))

    def _ensure_ref(self, row: ExperimentRow) -> None:
        name = experiment_ref(self.tag, row.number)
        there = self.repository.ref(name)
        if there != row.commit:
            self.repository.move_ref(name, str(row.commit), expected=there, reason="autoresearch: experiment")


def starting_source(repository: Repository, backend: str, preset: Preset, *, allow_dirty: bool) -> str:
    """The workspace's train file with the preset's constants. Raises `PrerequisiteError` when it is unfit."""
    file = train_file(repository.workspace, backend)
    path = file.relative_to(repository.workspace).as_posix()
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fix = "make a workspace with `ar init DIR`, or name one with --workspace"
        raise PrerequisiteError(f"there is no readable train file {file}: {error}.", fix=fix) from error
    if not allow_dirty and repository.changed(path):
        fix = f"git add {path} && git commit, or --allow-dirty to start from it as it is"
        raise PrerequisiteError(f"{file} has changes that are not committed.", fix=fix)
    return write_preset(source, preset)
