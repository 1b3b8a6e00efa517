"""Train the runs of a study in the calling process, where a debugger can stop inside the job."""

from __future__ import annotations

import time

from adamas.compare.job.evaluate import one_thread
from adamas.compare.runner.pool import Lost, Runner
from adamas.compare.runner.storage import close_storage
from adamas.compare.runner.worker import Worker, join_study
from adamas.compare.study.settings import Settings

_IDLE_SECONDS = 0.05  # between two looks at a queue while other machines train its tasks


class Inline(Runner):
    """A runner without processes. It computes with one thread, as workers do, and so gives the same figures."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def __exit__(self, *raised: object) -> None:
        """Close the connections to the database."""
        if self._worker is not None:
            close_storage(self._worker.trials.storage)

    def start(self, settings: Settings, study_id: int) -> None:
        """Work on this study from now on."""
        order = {"storage": settings.storage_url, "study": settings.study_name, "study_id": study_id}
        trials = join_study(order)
        if trials is not None:
            self._worker = Worker(trials, settings.workload, settings.trained_arms)

    def wait(self) -> list[Lost]:
        """Train one task; if none is waiting, wait a moment for other machines. No run loses its worker."""
        with one_thread():
            if self._worker is None or not self._worker.step():
                time.sleep(_IDLE_SECONDS)
            else:
                self.error = self._worker.error
        return []
