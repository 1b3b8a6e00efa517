"""Train the runs of a study in the calling process, where a debugger can stop inside the job."""

from __future__ import annotations

import time
from types import TracebackType

from adamas.compare.job.evaluate import one_thread
from adamas.compare.runner.worker import Worker, join_study
from adamas.compare.study.settings import Settings

_IDLE_SECONDS = 0.05  # between two looks at a queue whose tasks other machines train


class Inline:
    """A runner without processes. It computes with one thread, as workers do, and so gives the same figures."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    @property
    def error(self) -> Exception | None:
        """The last error that the job raised; None if it raised none."""
        return self._worker.error if self._worker else None

    def __enter__(self) -> Inline:
        """Do nothing: the work begins with the first task."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections to the database."""
        if self._worker is not None:
            self._worker.trials.storage.remove_session()
            self._worker.trials.storage.engine.dispose()

    def start(self, settings: Settings, study_id: int) -> None:
        """Work on this study from now on."""
        order = {"storage": settings.storage_url, "study": settings.study_name, "study_id": study_id}
        trials = join_study(order)
        if trials is not None:
            self._worker = Worker(trials, settings.workload, settings.trained_arms)

    def wait(self) -> None:
        """Train one task; if none is waiting, wait a moment for other machines."""
        with one_thread():
            if self._worker is None or not self._worker.step():
                time.sleep(_IDLE_SECONDS)
