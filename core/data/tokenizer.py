"""A lossless sentencepiece tokenizer: decoding returns any text byte for byte.

Two spellings need care. U+2581 stands for the space inside sentencepiece, so a literal one would come back as a space:
it is encoded as its three byte tokens instead. And text that spells a special token (`<s>`, `<0x41>`) must never be
learned as one piece, or training fails on the duplicate: such spellings are cut apart in the training text.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoresearch.core.errors import DataError

BOS = "<s>"
SPACE = "\u2581".encode()
SPACE_BYTES = ("<0xE2>", "<0x96>", "<0x81>")
UNLEARNABLE = re.compile("(?<=<)(?=(?:s|unk|0x[0-9A-F]{2})>)|[\u2581\u2585]")
"""Matches the places where training text is cut: inside the spelling of a special token, and at two characters that
sentencepiece reserves (it would drop the whole piece for a U+2585). Characters that are cut out here can still be
encoded, through their bytes."""
PIECE_BYTES = 4000
"""Largest piece of training text, in bytes. Sentencepiece silently drops sentences longer than 4192 bytes."""
MAX_VOCABULARY = 65535
"""Largest vocabulary, because tokens are stored as uint16."""


class Tokenizer:
    """Encodes and decodes text with one vocabulary."""

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        import sentencepiece

        self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._threads = threads or os.cpu_count() or 1
        self._space = np.array([self._processor.piece_to_id(piece) for piece in SPACE_BYTES], dtype=np.uint16)
        self.bos_id: int = self._processor.piece_to_id(BOS)
        self.vocab_size: int = self._processor.vocab_size()

    @classmethod
    def open(cls, path: Path) -> Tokenizer:
        """Read a model file. Raises `DataError`."""
        try:
            return cls(path.read_bytes())
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read as a tokenizer: {error}.", fix="run `ar prepare` again") from error

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode each text as uint16 (n,) tokens, without BOS. Raises `DataError` for text that UTF-8 cannot hold."""
        try:
            pieces = [text.encode("utf-8").split(SPACE) for text in texts]
        except UnicodeEncodeError as error:
            raise DataError(f"text holds half a surrogate pair, which UTF-8 cannot hold: {error}.") from error
        flat = [part for parts in pieces for part in parts]
        encoded = iter(self._processor.encode(flat, num_threads=self._threads, return_type="numpy"))
        return [self._join([next(encoded) for _ in parts]) for parts in pieces]

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Return the text of these tokens. Leave out BOS and unknown, which decode to their spellings (`<s>`)."""
        text: str = self._processor.decode(np.asarray(tokens).tolist())
        return text

    def token_bytes(self) -> list[int]:
        """Return the UTF-8 bytes that each token stands for; 0 for BOS and unknown."""
        ids = range(self.vocab_size)
        special = [self._processor.is_control(one) or self._processor.is_unknown(one) for one in ids]
        single = [self._processor.is_byte(one) for one in ids]
        pieces = [self._processor.id_to_piece(one).encode("utf-8").replace(SPACE, b" ") for one in ids]
        return [0 if special[one] else 1 if single[one] else len(pieces[one]) for one in ids]

    def _join(self, parts: list[np.ndarray]) -> np.ndarray:
        joined = [parts[0].astype(np.uint16)]
        for part in parts[1:]:
            joined += [self._space, part.astype(np.uint16)]
        return np.concatenate(joined) if len(joined) > 1 else joined[0]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> bytes:
    """Learn a vocabulary of exactly `vocab_size` pieces. Returns the model file's bytes.

    Raises `DataError` when the text has too little variety for so large a vocabulary, or too much for so small a one,
    and what reading `texts` raises.
    """
    import sentencepiece

    if not 2 <= vocab_size <= MAX_VOCABULARY:
        raise DataError(f"a vocabulary of {vocab_size} is impossible.", fix=f"choose one of at most {MAX_VOCABULARY}")
    model = io.BytesIO()
    raised: list[BaseException] = []
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_remember(training_pieces(texts), raised),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            required_chars="\n\t",
            character_coverage=0.9999,
            unk_id=0,
            bos_id=1,
            eos_id=-1,
            pad_id=-1,
            num_threads=os.cpu_count() or 1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if raised:
            raise raised[0] from None
        raise _vocabulary_error(vocab_size, str(error)) from error
    return model.getvalue()


def _remember(pieces: Iterable[str], raised: list[BaseException]) -> Iterator[str]:
    """Yield the pieces, and put an error that ends them into `raised`: sentencepiece makes a RuntimeError of each."""
    try:
        yield from pieces
    except GeneratorExit:  # sentencepiece wants no more of them, for a reason of its own
        raise
    except BaseException as error:
        raised.append(error)
        raise


def training_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Cut texts into pieces of at most PIECE_BYTES: after a line, else after a space, else anywhere.

    Also cut at UNLEARNABLE. The pieces of a text, joined, are the text without the reserved characters.
    """
    for text in texts:
        for part in UNLEARNABLE.split(text):
            yield from _short_pieces(part)


def _short_pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        piece = text[start : start + PIECE_BYTES]
        if len(piece.encode("utf-8")) > PIECE_BYTES:
            piece = piece.encode("utf-8")[:PIECE_BYTES].decode("utf-8", errors="ignore")
        if start + len(piece) < len(text):
            cut = piece.rfind("\n") + 1 or piece.rfind(" ") + 1
            piece = piece[:cut] if cut > 0 else piece
        yield piece
        start += len(piece)


def _vocabulary_error(vocab_size: int, message: str) -> DataError:
    if largest := re.search(r"value <= (\d+)", message):
        return DataError(
            f"a vocabulary of {vocab_size} is too large for this corpus: its text yields at most {largest[1]} pieces.",
            fix=f"choose --vocab {largest[1]} or less, or a larger corpus",
        )
    if smallest := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return DataError(
            f"a vocabulary of {vocab_size} is too small: the characters and bytes alone take {smallest[1]} pieces.",
            fix=f"choose --vocab {int(smallest[1]) + 64} or more",
        )
    return DataError(f"no vocabulary of {vocab_size} could be learned: {message}.", fix="choose another --vocab")
