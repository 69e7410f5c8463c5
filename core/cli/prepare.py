"""`ar prepare`: a corpus, made ready for trials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, ensure_prepared, pass_settings, resolve_backend, resolve_preset
from autoresearch.core.cli.params import CorpusType, Vocabularies

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared


@click.command()
@click.option(
    "--corpus",
    type=CorpusType(),
    metavar="NAME|PATH",
    help="stdlib, climbmix, tinystories, a file or a folder.  [default: preset's]",
)
@click.option("--vocab", type=Vocabularies(), metavar="V,...", help="Vocabulary sizes.  [default: preset's]")
@click.option("--seq-len", type=Vocabularies(), metavar="T,...", help="Row lengths of scoring.  [default: preset's]")
@click.option("--shards", type=click.IntRange(min=1), metavar="N", help="Shards to fetch.  [default: preset's]")
@click.option("--val-bytes", type=click.IntRange(min=1), metavar="N", help="Validation text.  [default: preset's]")
@pass_settings
def prepare(
    settings: Settings,
    corpus: str | None,
    vocab: tuple[int, ...] | None,
    seq_len: tuple[int, ...] | None,
    shards: int | None,
    val_bytes: int | None,
) -> None:
    """Make a corpus ready for trials: splits, tokenizers, shards and the rows that are scored.

    Called again it does only what is missing. A local corpus is any file or folder of .txt, .md, .jsonl and .parquet.
    `ar loop` and `ar train` prepare what they need by themselves, with the preset's values.
    """
    backend = resolve_backend(settings)
    preset = resolve_preset(settings, backend)
    prepared = ensure_prepared(
        settings, preset, corpus=corpus, vocabularies=vocab, seq_lens=seq_len, val_bytes=val_bytes, shards=shards
    )
    facts = describe(prepared)
    click.echo(json.dumps(facts) if settings.json else summary(facts))


def describe(prepared: Prepared) -> dict[str, Any]:
    """What there is now. Bytes are raw UTF-8; yardsticks are bits per byte of the validation text."""
    manifest = prepared.manifest
    return {
        "folder": str(prepared.folder),
        "corpus": manifest.source.corpus,
        "revision": manifest.source.revision,
        "files": manifest.source.files,
        "splits": {
            name: {"documents": split.documents, "bytes": split.bytes} for name, split in manifest.splits.items()
        },
        "removed": manifest.removed.model_dump(),
        "yardsticks": manifest.yardsticks.model_dump(),
        "vocabularies": [
            {
                "size": vocabulary.size,
                "train_tokens": vocabulary.train_tokens,
                "bytes_per_token": manifest.splits["train"].bytes / max(vocabulary.train_tokens, 1),
                "seq_lens": sorted({rows.seq_len for rows in vocabulary.rows}),
            }
            for vocabulary in manifest.vocabularies
        ],
    }


def summary(facts: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{facts['corpus']} is prepared in {facts['folder']}"]
    for name, split in facts["splits"].items():
        lines.append(f"  {name:<6} {split['bytes']:>14,} bytes in {split['documents']:,} documents")
    for vocabulary in facts["vocabularies"]:
        lengths = ", ".join(map(str, vocabulary["seq_lens"]))
        lines.append(
            f"  vocabulary {vocabulary['size']}: {vocabulary['train_tokens']:,} training tokens, "
            f"{vocabulary['bytes_per_token']:.2f} bytes each; scored at T = {lengths}"
        )
    removed, yardsticks = facts["removed"], facts["yardsticks"]
    lines.append(
        f"  kept out of train because val or test hold it: {removed['duplicate_documents']:,} duplicates, "
        f"{removed['overlap_bytes']:,} bytes of long overlaps"
    )
    lines.append(f"  to beat: gzip {yardsticks['gzip_bpb']:.4f}, xz {yardsticks['xz_bpb']:.4f} bits per byte")
    return "\n".join(lines)
