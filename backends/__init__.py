"""Backends, one folder each: found by listing this folder, imported on first use.

To add one, add a folder with `train.py`, `runtime.py` and `presets.toml`.
"""

from pathlib import Path

if __name__ == "backends":
    raise ImportError(
        "import it as autoresearch.backends: `import backends` from the repository root makes a second copy"
    )

ROOT = Path(__file__).parent


def names() -> list[str]:
    """List the backends by folder name."""
    return sorted(path.parent.name for path in ROOT.glob("*/runtime.py"))


def folder(name: str) -> Path:
    """Return the folder of a backend. Raises `KeyError` when there is none of that name."""
    if name not in names():
        raise KeyError(name)
    return ROOT / name
