"""MLflow: its server, or a database on this machine; ``mlflow ui``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from repro_rl.run.trackers.base import Table, TrackedRun

LAST = "iteration"  # the metric that says which rows are there
KEY_TAG = "repro_rl.run"  # tag with the run's key
PARAMETERS = 100  # of a request, the server's limit
LONGEST = 500  # characters of a parameter; older servers take no more
# Of a server that does not answer: by default its client tries for minutes.
LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class RunTracker:
    """One run, found again by a tag. Its rows cannot be taken back; those it has are not sent again."""

    def __init__(self) -> None:
        for name, value in LIMITS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._client_of, self._metric, self._parameter = MlflowClient, Metric, Param
        self._client: Any = None
        self._id = ""

    def open(self, run: TrackedRun) -> int:
        """See ``Tracker.open``."""
        client = self._client = self._client_of(tracking_uri=run.address)
        experiment = client.get_experiment_by_name(run.project)
        number = experiment.experiment_id if experiment else client.create_experiment(run.project)
        found = client.search_runs([number], filter_string=f"tags.`{KEY_TAG}` = '{run.key}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
        else:
            tags = {KEY_TAG: run.key, "stage": run.stage}
            self._id = client.create_run(number, run_name=run.name, tags=tags).info.run_id
            values = [
                self._parameter(name, str(value)[:LONGEST]) for name, value in sorted(run.settings.items())
            ]
            for begin in range(0, len(values), PARAMETERS):
                client.log_batch(self._id, params=values[begin : begin + PARAMETERS])
        return max((point.step for point in client.get_metric_history(self._id, LAST)), default=0)

    def add(self, iteration: int, metrics: Mapping[str, float], tables: Mapping[str, Table]) -> None:
        """See ``Tracker.add``; a table becomes a file of the form that its viewer shows as one."""
        for name, table in tables.items():
            content = {"columns": list(table.columns), "data": [list(row) for row in table.rows]}
            text = json.dumps(content, ensure_ascii=False)
            self._client.log_text(self._id, text, f"{name}/iteration-{iteration:05d}.json")
        now = int(1000 * time.time())
        self._client.log_batch(
            self._id, metrics=[self._metric(name, value, now, iteration) for name, value in metrics.items()]
        )

    def close(self, outcome: str) -> None:
        """See ``Tracker.close``."""
        self._client.set_terminated(self._id, status=STATUS[outcome])
