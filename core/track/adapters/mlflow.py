"""MLflow: reports to the server in MLFLOW_TRACKING_URI, else to the folder `mlflow` beside the runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

# MLflow has deprecated the folder store, the only one that needs neither a server nor a database library. The variable
# must be set before the library is imported.
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")

from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from autoresearch.core.track.tracker import PROJECT, TrackedRun

KEY = "autoresearch.key"
"""The tag by which a resumed run finds its earlier entry."""


class MlflowTracker:
    """Reads MLflow's own environment variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME ...)."""

    def __init__(self) -> None:
        self._client: Any = None
        self._run_id = ""

    def start(self, run: TrackedRun) -> str:
        """Create a run tagged with the key, or resume the one that has this tag."""
        place = os.environ.get("MLFLOW_TRACKING_URI") or (run.folder.parent / "mlflow").as_uri()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        self._client = MlflowClient(tracking_uri=place)
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([number], filter_string=f"tags.`{KEY}` = '{run.key}'", max_results=1)
        if known:
            self._run_id = known[0].info.run_id
            self._client.set_terminated(self._run_id, status="RUNNING")
        else:
            self._run_id = self._client.create_run(number, tags={KEY: run.key}, run_name=run.tag).info.run_id
            for option, value in run.config.items():
                self._client.log_param(self._run_id, option, value)
        return f"{place}, experiment {name}"

    def log(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Log numbers as metrics, and texts as tags whose names begin with the step."""
        at = int(1000 * numbers["decided"])
        metrics = [Metric(name, value, at, step) for name, value in numbers.items()]
        tags = [RunTag(f"{step}.{name}", value[:5000]) for name, value in texts.items()]
        self._client.log_batch(self._run_id, metrics=metrics, tags=tags)

    def end(self, state: str, texts: Mapping[str, str]) -> None:
        """Write the texts as tags and set the run's status."""
        for name, value in texts.items():
            self._client.set_tag(self._run_id, name, value[:5000])
        status = {"finished": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED")
        self._client.set_terminated(self._run_id, status=status)


TRACKER = MlflowTracker
