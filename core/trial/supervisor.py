"""One trial, from its request to its result. See `training` and `evaluation` for the two halves."""

from __future__ import annotations

import contextlib
import threading
import time

from autoresearch.core.adopt.script import check_script
from autoresearch.core.adopt.terms import require_sandbox, told
from autoresearch.core.awake import awake
from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import TrialError
from autoresearch.core.events import Observer
from autoresearch.core.trainfile.contamination import check_contamination
from autoresearch.core.trainfile.gate import check_gate
from autoresearch.core.trainfile.source_check import SourceFault, check_source
from autoresearch.core.trial import training
from autoresearch.core.trial.compile_cache import incumbents_cache
from autoresearch.core.trial.context import Measurements, TrialContext
from autoresearch.core.trial.evaluation import Evaluation
from autoresearch.core.trial.processes import ProcessSupervisor, TrialCancelled, TrialEnded, TrialInterrupted
from autoresearch.core.trial.record import Record
from autoresearch.core.trial.request import TrialRequest, TrialResult, TrialStatus
from autoresearch.core.trial.sandbox.environment import child_variables, load_runtime
from autoresearch.core.trial.sandbox.levels import HIDING_LEVELS, open_sandbox
from autoresearch.core.trial.weights import WEIGHTS

DISK_SHARE = 2
"""Disk space of a child, as a multiple of the largest weights: a compiler's cache needs room beside them."""

__all__ = ["TrialCancelled", "TrialInterrupted", "run_trial"]


def run_trial(
    request: TrialRequest, *, observer: Observer | None = None, cancel: threading.Event | None = None
) -> TrialResult:
    """Train, score and audit one train file. Whatever the train file does ends in a result, not in an exception.

    Raises `TrialError` when the trial could not be started or recorded, `DataError` when the prepared corpus cannot be
    used, `PrerequisiteError` when the backend or the isolation level is missing, `TrialCancelled` when `cancel` was
    set, `TrialInterrupted` when a process of the core's own was killed. No process of the trial is left when this
    returns or raises.
    """
    started = time.monotonic()
    facts = Measurements()
    status: TrialStatus = "ok"
    reason = None
    with awake(), Record(request.folder, request.source, observer) as record:
        try:
            _run(request, record, facts, cancel)
        except TrialEnded as end:
            status, reason = end.status, end.reason
        except OSError as error:
            fix = "mend that, then give the same command again: nothing is lost"
            raise TrialError(f"the trial in {record.folder} cannot go on: {error}.", fix=fix) from error
        # At a level at which a child can read files, a later train file could begin where this one ended.
        record.keep_weights = request.keep_weights and status == "ok" and facts.isolation in HIDING_LEVELS
        result = facts.result(request, status, reason, time.monotonic() - started, record.log_path)
        record.finish(result)
    return result


def _run(request: TrialRequest, record: Record, facts: Measurements, cancel: threading.Event | None) -> None:
    prepared = Prepared.open(request.prepared)
    # Check everything that can be checked before a device is used, the cheapest first.
    try:
        if request.upstream is not None:
            vocab_size = check_script(request.source, request.upstream.vocab_size, prepared.vocabularies)
        else:
            vocab_size = check_source(request.source, prepared.vocabularies)
        if request.gate:
            check_gate(request.source)
        check_contamination(request.source, prepared, vocab_size, request.baseline)
    except SourceFault as fault:
        raise TrialEnded("invalid", str(fault)) from fault
    prepared.quick_check(vocab_size)
    runtime = load_runtime(request.backend)
    # A train child must not see the corpus, which holds the text it is judged on, nor the files of other trials.
    sandbox = open_sandbox(request.isolation, (prepared.folder.absolute(), record.folder))
    facts.isolation = sandbox.level
    upstream = None
    if request.upstream is not None:
        require_sandbox(sandbox.level)
        upstream = told(prepared, vocab_size, request.budget.train_seconds)
    disk_limit_mb = DISK_SHARE * request.weights_limit_mb
    with ProcessSupervisor(
        record, memory_limit_mb=request.memory_limit_mb, disk_limit_mb=disk_limit_mb, cancel=cancel
    ) as processes:
        environment = child_variables(runtime.launch_environment(), request.environment)
        context = TrialContext(request, vocab_size, prepared, environment, sandbox, record, processes, upstream, facts)
        cache = incumbents_cache(context, runtime.compile_caches())
        evaluation = Evaluation(context)
        try:
            evaluation.begin()
            frozen = training.train(context, evaluation.get_ready, evaluation.lead_seconds, cache)
            with contextlib.closing(frozen):
                try:
                    if request.score:
                        evaluation.score(frozen)
                except TrialEnded:
                    facts.weights_sha256 = frozen.sha256
                    raise
                facts.weights_sha256 = frozen.sha256
                if request.keep_weights and sandbox.level in HIDING_LEVELS:
                    frozen.keep(record.folder / WEIGHTS)
        finally:
            evaluation.close()
