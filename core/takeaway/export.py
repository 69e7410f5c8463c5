"""A run's model as a folder that needs no `ar`: train file, weights, tokenizer, model card and a program."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.backends import contract
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import ArError, UsageError
from autoresearch.core.files import remove_folder, write_text
from autoresearch.core.report.document.gather import ReportData
from autoresearch.core.report.document.page import code_span
from autoresearch.core.report.wording import counted, mean_text, one_line
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import ExperimentRow
from autoresearch.core.store.weights import KeptWeights
from autoresearch.core.trainfile.source_check import check_source
from autoresearch.core.trial.weights import WeightsFault, copy_weights

CARD, PROGRAM, SOURCE, WEIGHTS, TOKENIZER, FACTS = (
    "README.md",
    "sample.py",
    "train.py",
    "model.safetensors",
    "tokenizer.model",
    "config.json",
)


@dataclass(frozen=True)
class Framework:
    """A backend's part in using its weights elsewhere."""

    name: str
    lines: Sequence[str]
    """See `contract.Runtime.export_lines`."""
    packages: Sequence[str]
    """Packages of the framework, as `pip` names them."""


def export(folder: Path, reader: LedgerReader, report: ReportData, kept: KeptWeights, framework: Framework) -> None:
    """Write the folder, which must be new or empty, in one step.

    Raises `UsageError` where it holds something, `ArError` where it cannot be written, `DataError` without the text's
    tokenizer.
    """
    check_new(folder)
    source = reader.source(kept.experiment)
    config = report.run.config
    prepared = Prepared.open(Path(config["prepared"]))
    vocab = check_source(source, prepared.vocabularies)
    facts = facts_of(report, kept, vocab)
    part = folder.with_name(f".{folder.name}.partial")
    try:
        remove_folder(part)
        part.mkdir(parents=True)
        write_text(part / SOURCE, source)
        copy_weights(kept.path, part / WEIGHTS, sha256=kept.sha256)
        shutil.copyfile(prepared.tokenizer_path(vocab), part / TOKENIZER)
        write_text(part / FACTS, json.dumps(facts, indent=2) + "\n")
        write_text(part / PROGRAM, program(facts, framework))
        write_text(part / CARD, card(report, kept, facts, framework, reader.lineage(kept.experiment)))
        _write_contract(part)
        part.replace(folder)
    except WeightsFault as fault:
        raise ArError(f"the weights cannot be taken: {fault}.", fix="delete them; --train makes others") from fault
    except OSError as error:
        raise ArError(
            f"{folder} cannot be written: {error.strerror}.", fix="free some space, or name another"
        ) from error
    finally:
        remove_folder(part)


def check_new(folder: Path) -> None:
    """Check that a folder is new or empty. Raises `UsageError`."""
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(f"{folder} holds something already.", fix="name a new folder")


def facts_of(report: ReportData, kept: KeptWeights, vocab: int) -> dict[str, Any]:
    """Collect what the program and other readers need, as JSON. Results are in bits per byte."""
    config = report.run.config
    return {
        "backend": config["backend"],
        "vocab_size": vocab,
        "eval_seq_len": config["eval_seq_len"],
        "seed": kept.seed,
        "tier": config["preset"],
        "train_seconds": config["train_seconds"],
        "corpus": corpus_name(config["corpus"]),
        "prepared_sha256": config["prepared_sha256"],
        "run": report.run.tag,
        "experiment": kept.experiment,
        "weights_sha256": kept.sha256,
        "weights_bpb": kept.val_bpb,
        "results": {} if report.headline is None else report.headline.plain(),
        "device": config["device"],
        "ar_version": config["ar_version"],
    }


def corpus_name(corpus: str) -> str:
    """Name a corpus without the folders of the machine that it lies on."""
    return Path(corpus).name if Path(corpus).is_absolute() else corpus


def program(facts: Mapping[str, Any], framework: Framework) -> str:
    """Write the program that loads the weights and continues a text."""
    spec = ", ".join(f"{name}={facts[name]!r}" for name in ("vocab_size", "eval_seq_len", "seed", "tier"))
    lines = [
        '"""Continue a text: python sample.py "Once upon a time"."""',
        "import sys",
        "from pathlib import Path",
        "from types import SimpleNamespace",
        "import numpy as np",
        "from sentencepiece import SentencePieceProcessor",
        "import train",
        f"spec, folder = SimpleNamespace({spec}), Path(__file__).parent",
        *framework.lines,
        "text = SentencePieceProcessor(model_file=str(folder / 'tokenizer.model'))",
        "row, rng = [text.piece_to_id('<s>'), *text.encode(' '.join(sys.argv[1:]))], np.random.default_rng(0)",
        "for _ in range(100):",
        "    seen = row[-spec.eval_seq_len:]",
        "    tokens = np.array([seen + [0] * (spec.eval_seq_len - len(seen))], np.int64)",
        "    logits = predict(tokens)[0, len(seen) - 1].astype(np.float64) / 0.8",
        "    chances = np.exp(logits - logits.max())",
        "    row.append(int(rng.choice(len(chances), p=chances / chances.sum())))",
        "    if row[-1] == row[0]:  # the document ends",
        "        break",
        "print(text.decode([token for token in row if token != row[0]]))",
    ]
    return "\n".join(lines) + "\n"


def figures(report: ReportData, kept: KeptWeights) -> list[str]:
    """Write the sentences of a model card that say what was measured."""
    head, verified = report.headline, report.verified
    said = []
    if head is not None and head.experiment == kept.experiment:
        said.append(
            f"Measured mean: **{mean_text(head.best)}** bits per byte over {counted(head.best.trials, 'trial')}."
        )
        if head.baseline is not None and head.gain is not None:
            half = "" if head.gain_half is None else f" ± {head.gain_half:.4f}"
            said.append(
                f"Baseline: {mean_text(head.baseline)} over {counted(head.baseline.trials, 'trial')}; "
                f"difference {head.gain:+.4f}{half}."
            )
        if head.best.selected:
            said.append("These trials chose the change, so their mean looks better than the file is.")
        if head.best.half is not None:
            said.append("± is half the 95 % interval.")
    if kept.val_bpb is not None:
        said.append(f"These very weights, trained with seed {kept.seed}: {kept.val_bpb:.4f} bits per byte.")
    if verified is not None and verified.get("experiment") == kept.experiment:
        said.append(
            f"Held-out test set, {verified['seeds']} fresh seeds: {verified['delta']:+.4f} "
            f"(95 % {verified['low']:+.4f} to {verified['high']:+.4f}) against the baseline."
        )
    return said


def card(
    report: ReportData,
    kept: KeptWeights,
    facts: Mapping[str, Any],
    framework: Framework,
    lineage: Sequence[ExperimentRow],
) -> str:
    """Write the model card. Words of researchers stand in code spans: no link, mention or HTML.

    `lineage` are the changes that the file consists of.
    """
    config, head = report.run.config, report.headline
    changes = [f"- {code_span(row.hypothesis[:300])}" for row in lineage]
    packages = " ".join([*framework.packages, "numpy", "safetensors", "sentencepiece"])
    mean = head.best if head is not None and head.experiment == kept.experiment else None  # of this very file
    seeds = ", ".join(str(seed) for seed, _ in mean.points[:20]) if mean is not None else ""
    lines = [
        "---",
        "tags: [autoresearch]",
        f"library_name: {json.dumps(framework.name)}",
        "---",
        "",
        f"# {one_line(report.run.tag, 100)}: {'baseline' if not kept.experiment else f'experiment {kept.experiment}'}",
        "",
        f"A small language model, trained for {config['train_seconds']:g} s (preset {code_span(config['preset'])}) "
        f"on {code_span(one_line(str(config['device']), 100))} by a train file that `ar` has researched.",
        "",
        "## Figures",
        "",
        *figures(report, kept),
        "",
        f"- Text: {code_span(facts['corpus'])}, vocabulary {facts['vocab_size']}; SHA-256 of the prepared text "
        f"`{facts['prepared_sha256']}`",
        *([] if mean is None else [f"- Seeds of the measured mean: {seeds or 'not recorded'}"]),
        f"- Run {code_span(report.run.tag)}, {report.totals.decided} experiments, {len(report.keeps)} kept; "
        f"ar {config['ar_version']}",
        "",
        "Bits per byte of different texts, or of other devices at the same training time, do not compare.",
        "",
        "## Use",
        "",
        f"    pip install {packages}",
        '    python sample.py "Once upon a time"',
        "",
        "`train.py` is the train file: running it is running its author's code.",
        "",
        "## Kept changes",
        "",
        *(changes or ["None: this is the baseline."]),
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _write_contract(folder: Path) -> None:
    """Put beside the program what a train file may import of `ar`: the interfaces, one file."""
    package = folder / "autoresearch" / "backends"
    package.mkdir(parents=True)
    for init in (package.parent / "__init__.py", package / "__init__.py"):
        write_text(init, "")
    shutil.copyfile(str(contract.__file__), package / "contract.py")
