"""`ar prepare`: prepare a corpus for trials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, ensure_prepared, pass_settings, resolve_backend, resolve_preset
from autoresearch.core.cli.params import CorpusType, Vocabularies, Whole, is_typed

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared


@click.command()
@click.option(
    "--corpus",
    type=CorpusType(),
    metavar="NAME|PATH",
    help="Text to prepare: stdlib, climbmix, tinystories, a file or a folder.  [default: the preset's]",
)
@click.option(
    "--vocab", type=Vocabularies(), metavar="V,...", help="Sizes of the vocabularies to make.  [default: the preset's]"
)
@click.option(
    "--seq-len",
    type=Vocabularies(),
    metavar="T,...",
    help="Tokens per scored row; several lengths may be given.  [default: the preset's]",
)
@click.option(
    "--shards",
    type=Whole(min=1),
    metavar="N",
    help="Number of shards to fetch from a corpus on the hub.  [default: the preset's]",
)
@click.option("--val-bytes", type=Whole(min=1), metavar="N", help="Bytes of validation text.  [default: the preset's]")
@click.option(
    "--kernel",
    is_flag=True,
    help="Install the backend's pinned attention kernel instead of text; with --json, show the hashes of its newest "
    "commit and install nothing.",
)
@pass_settings
def prepare(
    settings: Settings,
    corpus: str | None,
    vocab: tuple[int, ...] | None,
    seq_len: tuple[int, ...] | None,
    shards: int | None,
    val_bytes: int | None,
    kernel: bool,
) -> None:
    """Prepare a corpus for trials: make splits, tokenizers, shards and the rows to score.

    A second call makes only what is missing. A local corpus is a file or a folder of .txt, .md, .jsonl and .parquet.
    `ar loop` and `ar train` prepare the preset's corpus automatically.
    """
    if kernel:
        check_alone(click.get_current_context())
    backend = resolve_backend(settings)
    if kernel:
        click.echo(install_kernel(settings, backend.name))
        return
    preset = resolve_preset(settings, backend)
    check_shards(shards, corpus or preset.data.corpus)
    prepared = ensure_prepared(
        settings, preset, corpus=corpus, vocabularies=vocab, seq_lens=seq_len, val_bytes=val_bytes, shards=shards
    )
    facts = describe(prepared)
    click.echo(json.dumps(facts) if settings.json else summary(facts))


def check_alone(ctx: click.Context) -> None:
    """Refuse options about a text beside --kernel, which prepares none. Raises `UsageError`."""
    from autoresearch.core.errors import UsageError

    idle = next((name for name in ("corpus", "vocab", "seq_len", "shards", "val_bytes") if is_typed(ctx, name)), None)
    if idle is not None:
        raise UsageError(
            f"--kernel prepares no text, and reads no --{idle.replace('_', '-')}.", fix="leave one of them out"
        )


def check_shards(shards: int | None, corpus: str) -> None:
    """Refuse a number of shards for a corpus that has none. Raises `UsageError`."""
    from autoresearch.core.data.hub import HUB_CORPORA
    from autoresearch.core.errors import UsageError

    if shards is not None and corpus not in HUB_CORPORA:
        raise UsageError(
            f"--shards is for corpora of the hub ({', '.join(HUB_CORPORA)}), and the corpus is {corpus}.",
            fix="leave it out",
        )


def install_kernel(settings: Settings, backend: str) -> str:
    """Install the backend's kernel, or with --json look at its newest commit; return what to print."""
    from autoresearch.core.data.kernel import install, kernel_of, look
    from autoresearch.core.errors import UsageError

    pinned = kernel_of(backend)
    if pinned is None:
        raise UsageError(f"the {backend} backend loads no kernel.", fix="name another --backend")
    if settings.json:
        return look(pinned, "main").as_json().rstrip()
    return f"{pinned.repository} at {pinned.revision} is in {install(pinned)}"


def describe(prepared: Prepared) -> dict[str, Any]:
    """Describe a prepared corpus as --json prints it. Sizes are raw UTF-8 bytes; yardsticks are bits per byte."""
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
    """Write the description for a person."""
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
        f"  removed from train (also in val or test): {removed['duplicate_documents']:,} duplicates, "
        f"{removed['overlap_bytes']:,} bytes of long overlaps"
    )
    lines.append(f"  for comparison: gzip {yardsticks['gzip_bpb']:.4f}, xz {yardsticks['xz_bpb']:.4f} bits per byte")
    return "\n".join(lines)
