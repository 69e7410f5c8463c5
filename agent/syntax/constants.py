"""The constants of a train file as researchers read them: a file without a constants block has none."""

from __future__ import annotations

from autoresearch.core.errors import SourceError
from autoresearch.core.trainfile.constants import ConstantValue, is_number, read_constants

Number = int | float


def constants_of(source: str) -> dict[str, ConstantValue]:
    """Read every literal constant of the block; none where there is no block or it does not parse.

    A history may hold broken files: they crashed, and still they are experiments to learn from.
    """
    try:
        return read_constants(source)
    except SourceError:
        return {}


def numbers_of(source: str) -> dict[str, Number]:
    """Read every numeric constant of the block."""
    return {name: value for name, value in constants_of(source).items() if is_number(value)}
