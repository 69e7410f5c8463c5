"""A backend's compute kernel: the files of one commit, checked by their hashes, never imported here.

`backends/<name>/kernel.json` holds the repository, the commit and every file's SHA-256. The files lie in this Python's
environment, where every trial may read them and none can write. A repository can hold anything under the same name
tomorrow, so nothing is used whose commit and hashes are not written down.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autoresearch import backends
from autoresearch.core.errors import DataError, PrerequisiteError
from autoresearch.core.files import sha256_of

PIN = "kernel.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Kernel:
    """A kernel's repository, commit and files (path -> SHA-256); no commit and no files: they are not known yet."""

    repository: str
    revision: str
    files: Mapping[str, str]

    @property
    def pinned(self) -> bool:
        """Tell whether the hashes of its files are known."""
        return bool(_COMMIT.fullmatch(self.revision) and self.files)

    @property
    def folder(self) -> Path:
        """Folder of its files once they are checked. A backend's runtime builds the same path."""
        return kernels_folder() / f"{self.repository.replace('/', '--')}-{self.revision[:12]}"

    def as_json(self) -> str:
        """Write it as `kernel.json` holds it."""
        content = {"repository": self.repository, "revision": self.revision, "files": dict(sorted(self.files.items()))}
        return json.dumps(content, indent=1) + "\n"


def kernels_folder() -> Path:
    """Return the folder of all kernels, in this Python's environment."""
    return Path(sys.prefix, "share", "kernels")


def kernel_of(backend: str) -> Kernel | None:
    """Read what a backend pins; None for a backend that loads no kernel. Raises `DataError`."""
    path = Path(next(iter(backends.__path__)), backend, PIN)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        kernel = Kernel(str(content["repository"]), str(content["revision"]), dict(content["files"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}.", fix="put it back (`git checkout`)") from error
    for name in kernel.files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise DataError(f"{path} names a file outside the kernel: {name!r}.", fix="put it back (`git checkout`)")
    return kernel


def kernel_files(backend: str) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file of a backend's kernel, once it is installed."""
    kernel = kernel_of(backend)
    if kernel is not None and kernel.pinned and kernel.folder.is_dir():
        for name in sorted(kernel.files):
            yield f"kernel/{kernel.repository}/{name}", kernel.folder / name


def fault_in(folder: Path, kernel: Kernel) -> str | None:
    """Say which file is missing, differs, or is one too many; None when all are as pinned."""
    found = _hashes(folder)
    for name in sorted(found.keys() | kernel.files.keys()):
        if name not in found:
            return f"{name} is missing"
        if name not in kernel.files:
            return f"{name} is not among the pinned files"
        if found[name] != kernel.files[name]:
            return f"{name} is another file than the pinned one"
    return None


def install(kernel: Kernel) -> Path:
    """Download a pinned kernel, check every file and put it where trials find it; nothing of it is imported.

    Raises `PrerequisiteError` when commit or hashes are not known yet, `DataError` when a file is not the pinned one.
    """
    if not kernel.pinned:
        raise PrerequisiteError(
            f"it is not known yet which files of {kernel.repository} to expect, so none are used.",
            fix="`ar prepare --kernel --json` downloads a commit and prints its hashes; check them, write them into "
            f"the backend's {PIN}, and run `ar prepare --kernel` again. Trials use PyTorch's attention until then",
        )
    if kernel.folder.is_dir() and fault_in(kernel.folder, kernel) is None:
        return kernel.folder
    with _downloaded(kernel, kernel.revision) as folder:
        fault = fault_in(folder, kernel)
        if fault is not None:
            raise DataError(
                f"{kernel.repository} at {kernel.revision[:12]} is not as pinned: {fault}; nothing was installed.",
                fix="try again; if it stays so, do not use it",
            )
        shutil.rmtree(kernel.folder, ignore_errors=True)
        kernel.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, kernel.folder)
    return kernel.folder


def look(kernel: Kernel, revision: str) -> Kernel:
    """Download a commit, or what a branch's name stands for now, and return it with its hashes; keep nothing."""
    commit = revision if _COMMIT.fullmatch(revision) else _resolve(kernel.repository, revision)
    with _downloaded(kernel, commit) as folder:
        return Kernel(kernel.repository, commit, _hashes(folder))


class _downloaded:  # noqa: N801
    """A context with the files of a commit in a folder of their own, gone at its end."""

    def __init__(self, kernel: Kernel, revision: str) -> None:
        self._kernel, self._revision = kernel, revision
        self._folder = tempfile.TemporaryDirectory(prefix="ar-kernel-")

    def __enter__(self) -> Path:
        import huggingface_hub

        folder = Path(self._folder.name) / "files"
        try:
            huggingface_hub.snapshot_download(
                self._kernel.repository,
                repo_type="kernel",
                revision=self._revision,
                local_dir=folder,
                allow_patterns=["build/**", "metadata.json"],
            )
        except Exception as error:
            self._folder.cleanup()
            raise _failed(self._kernel.repository, error) from error
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        return folder

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _resolve(repository: str, revision: str) -> str:
    import huggingface_hub

    try:
        return str(huggingface_hub.HfApi().repo_info(repository, repo_type="kernel", revision=revision).sha)
    except Exception as error:
        raise _failed(repository, error) from error


def _failed(repository: str, error: Exception) -> DataError:
    words = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(f"{repository} could not be fetched: {words}", fix="check the network and try again")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
