"""The reasons why a study cannot use a job, as errors while it is checked and as problems for the user."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

from adamas import user_code
from adamas.compare.study.workload import Workload


@dataclass(frozen=True)
class Problem:
    """A reason why a study cannot use a job.

    Attributes:
        where: The job as the user named it.
        what: What is wrong.
        remedy: What the user can do about it.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        """Return the problem as an error message has it."""
        return f"job={self.where!r}: {self.what}; {self.remedy}" if self.remedy else f"job={self.where!r}: {self.what}"


class Fault(Exception):
    """A piece of a job is wrong: the arguments are what is wrong, and what the user can do about it."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)

    def of(self, workload: Workload) -> Problem:
        """Return the problem with the name of the job."""
        return Problem(workload.typed or workload.name, *self.args)


@contextlib.contextmanager
def faults_of(what: str, remedy: str = "") -> Generator[None]:
    """Turn an error of the user's code into a fault that names the piece, and a remedy if there is one."""
    try:
        yield
    except Fault:
        raise
    except (Exception, SystemExit) as error:
        raise Fault(f"{what} raised {user_code.told(error)}", remedy) from error
