"""Conduct a study: pilot, grids, refinement, confirmation, finals.

Each stage's runs follow from the stages before it alone. So a study that was interrupted anywhere is continued by
asking for the same runs again, and neither the number of workers nor the order in which they finish changes a result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import optuna
from optuna.storages import RDBStorage

from adamas.compare import followup, grids, pilot
from adamas.compare.arms import ARMS
from adamas.compare.budgets import SEARCH_SEEDS
from adamas.compare.cell import Cell, Outcome
from adamas.compare.crew import Crew
from adamas.compare.grids import Grid
from adamas.compare.pilot import Pilot
from adamas.compare.selection import Winner, winner
from adamas.compare.settings import Settings
from adamas.compare.snapshot import Snapshot, snapshot
from adamas.compare.specification import differences, specification
from adamas.compare.storage import open_storage
from adamas.compare.trials import Trials

POLL_SECONDS = 0.5
SPECIFICATION = "specification"  # user attribute of the Optuna study


class ChangedError(ValueError):
    """The storage holds a study of another specification."""


class JobFailedError(RuntimeError):
    """The job raised; carries its traceback."""


@dataclass(frozen=True)
class Record:
    """A finished study.

    Attributes:
        settings: what was asked for.
        specification: what the runs depend on.
        pilot: what the pilot found.
        grids: the first runs of each arm.
        searched: all runs of each arm that its winner was chosen from.
        winners: the chosen cells.
        outcomes: of every run, the pilot's and the finals' included.
    """

    settings: Settings
    specification: dict[str, Any]
    pilot: Pilot
    grids: dict[str, Grid]
    searched: dict[str, list[Cell]]
    winners: dict[str, Winner]
    outcomes: dict[Cell, Outcome]

    def finals(self, arm: str) -> list[Outcome]:
        """The finalists of an arm, by seed."""
        return [self.outcomes[cell] for cell in self.winners[arm].finals(self.settings.seeds)]


def conduct(settings: Settings, watch: Callable[[Snapshot], None]) -> Record:
    """Run what is missing of the study, and read what it found.

    Args:
        settings: what the user asked for.
        watch: called about twice a second.

    Raises:
        ChangedError: the storage holds a study with another specification.
        JobFailedError: the job raised.
        KeyboardInterrupt: the user stopped it; what finished stays.
    """
    spec = specification(settings.workload, settings.budget, settings.seeds)
    storage = open_storage(settings.storage_url, create=True)
    try:
        with Conductor(settings, storage, watch) as conductor:
            conductor.open(spec)
            return stages(settings, spec, conductor.complete)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def stages(
    settings: Settings, spec: dict[str, Any], complete: Callable[[list[Cell]], Mapping[Cell, Outcome]]
) -> Record:
    """Go through the stages; `complete` returns the outcomes of the runs it is given."""
    budget, metric = settings.budget, settings.workload.metric
    outcomes = dict(complete(pilot.cells(budget)))
    found = pilot.read(budget, outcomes, metric)
    layout = grids.grids(found, budget)
    searched: dict[str, list[Cell]] = {arm: [] for arm in ARMS}

    def extend(further: Mapping[str, list[Cell]]) -> None:
        for arm, cells in further.items():
            searched[arm] = searched[arm] + cells
        outcomes.update(complete([cell for cells in further.values() for cell in cells]))

    extend({arm: grid.cells() for arm, grid in layout.items()})
    extend({arm: followup.refine(layout[arm], budget, outcomes, metric) for arm in ARMS})
    decaying = [arm for arm in ARMS if ARMS[arm].decay != "none"]
    extend({arm: followup.confirm(searched[arm], budget, outcomes, metric) for arm in decaying})
    winners = {
        arm: winner(arm, cells, outcomes, metric, SEARCH_SEEDS if budget.confirmed and arm in decaying else 1)
        for arm, cells in searched.items()
    }
    # Seed by seed, so that the arms' runs of a pair are neighbours in time.
    pairs = zip(*(winners[arm].finals(settings.seeds) for arm in ARMS), strict=True)
    outcomes |= complete([cell for pair in pairs for cell in pair])
    return Record(settings, spec, found, layout, searched, winners, outcomes)


class Conductor:
    """Gets runs done: asks the storage for them, keeps workers alive, waits.

    Args:
        settings: what the user asked for.
        storage: the database.
        watch: called about twice a second.
    """

    def __init__(self, settings: Settings, storage: RDBStorage, watch: Callable[[Snapshot], None]) -> None:
        self._settings = settings
        self._storage = storage
        self._watch = watch
        self._stack = contextlib.ExitStack()
        self._crew: Crew | None = None
        self._since = datetime.now()  # naive and local, as Optuna's times of trials are

    def __enter__(self) -> Conductor:
        """Begin; workers start when there is work."""
        self._stack.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""
        self._stack.__exit__(kind, error, trace)

    def open(self, spec: dict[str, Any]) -> None:
        """Make or continue the study; refuse one with another specification."""
        name = self._settings.study_name
        if self._settings.fresh:
            with contextlib.suppress(KeyError):
                optuna.delete_study(study_name=name, storage=self._storage)
        study = optuna.create_study(study_name=name, storage=self._storage, load_if_exists=True)
        before = study.user_attrs.get(SPECIFICATION)
        if before is None:
            study.set_user_attr(SPECIFICATION, spec)
        elif lines := differences(before, spec):
            raise ChangedError(
                f"{self._settings.storage_shown} holds a study of another specification, and the two would not mix:\n  "
                + "\n  ".join(lines)
                + "\nUse the same options to continue it, --fresh to discard it, or another --out to keep both."
            )
        self._trials = Trials(study, self._storage)
        self._first = len(self._trials.all())  # trials of earlier runs of the tool have lower numbers

    def complete(self, cells: Iterable[Cell]) -> dict[Cell, Outcome]:
        """Get the runs done and return their outcomes."""
        wanted = list(cells)
        while True:
            self._trials.return_lost()
            self._trials.want(wanted)
            outcomes = self._trials.outcomes()
            if errors := self._trials.errors(after=self._first - 1):
                raise JobFailedError(errors[0])
            self._watch(snapshot(self._settings, self._trials.all(), self._since))
            if all(cell.key in outcomes for cell in wanted):
                return {cell: outcomes[cell.key] for cell in wanted}
            if self._crew is None:
                self._crew = self._stack.enter_context(self._hire())
            self._crew.replace_dead()
            time.sleep(POLL_SECONDS)

    def _hire(self) -> Crew:
        settings = self._settings
        order = {
            "storage": settings.storage_url,
            "study": settings.study_name,
            "workload": asdict(settings.workload),
        }
        return Crew(order, settings.workers, settings.out / "workers.log")
