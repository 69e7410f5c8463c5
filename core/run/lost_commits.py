"""Making the commits of experiments again that git lacks: a run was restored or copied without its refs.

A commit follows from its source, parent, message and time, and all of these are in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autoresearch.core.errors import SourceError
from autoresearch.core.store.git import Repository
from autoresearch.core.store.rows import ExperimentRow


def make_again(
    repository: Repository,
    rows: Sequence[ExperimentRow],
    commit: Callable[[ExperimentRow, str], str],
    base: str,
) -> set[int]:
    """Make every experiment's commit that git lacks, where it comes out the same; return those still missing.

    `commit` makes an experiment's commit on top of a parent; `base` is the commit that the run was started from.
    Another author, or a repository without the commit that the run was started from, gives other commits.
    """
    missing = repository.missing([str(row.commit) for row in rows])
    if missing:
        repository.drop_empty_objects()
    lost = {row.number: row for row in rows if str(row.commit) in missing}
    commits = {row.number: str(row.commit) for row in rows}
    while lost:
        # A proposal that was moved to another parent may have a lower number than that one.
        ready = [row for row in lost.values() if row.number == 0 or row.parent not in lost]
        made = {row.number for row in ready if _comes_out(row, commit, _parents(repository, row, commits, base))}
        if not made:
            break
        lost = {number: row for number, row in lost.items() if number not in made}
    return set(lost)


def check_needed(tag: str, lost: set[int], needed: Sequence[int]) -> None:
    """Raise `SourceError` where the run cannot go on without one of the lost commits."""
    number = next((one for one in needed if one in lost), None)
    if number is None:
        return
    refs = f"refs/autoresearch/{tag}/*"
    raise SourceError(
        f"git lacks the commit of experiment {number} of the run {tag!r}, which was copied or restored without its "
        "refs.",
        fix=f"git fetch, with the repository that has them, '{refs}:{refs}'; or `ar apply --tag {tag}`, commit, and "
        "start another run with --tag",
    )


def _parents(repository: Repository, row: ExperimentRow, commits: Mapping[int, str], base: str) -> Sequence[str]:
    if row.number:
        return [commits[row.parent]] if row.parent in commits else []
    # A baseline that was measured again begins at the commit that was checked out then.
    return list(dict.fromkeys((base, repository.head())))


def _comes_out(row: ExperimentRow, commit: Callable[[ExperimentRow, str], str], parents: Sequence[str]) -> bool:
    for parent in parents:
        try:
            if commit(row, parent) == row.commit:
                return True
        except SourceError:  # git lacks the parent
            continue
    return False
