"""The errors that end a study."""

from __future__ import annotations


class StudyError(RuntimeError):
    """A study could not be finished; the message says why, and finished runs stay in the storage."""


class JobFailedError(StudyError):
    """Too many runs failed; the message carries the traceback of the first."""


class DiscardedError(StudyError):
    """Another process discarded the study while this one worked on it."""


class WorkersDiedError(StudyError):
    """Worker processes kept dying; the message carries the end of their log."""


class StorageError(StudyError):
    """The database of the trials cannot be used any more; the message says why and what to do."""


class PilotError(StudyError):
    """The pilot found no learning rate that a study could build on."""


class EveryRunDivergedError(StudyError):
    """No config of an arm gave a finite figure."""


class NoScaleError(StudyError):
    """A relative margin needs a mean above 0, and the mean is not."""


class ChangedError(ValueError):
    """The storage holds a study with another specification."""
