"""What `adamas compare` does, once its options are read: conduct, summarise, report, say."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Console

from adamas.compare.report import write_report
from adamas.compare.report.live import Progress
from adamas.compare.report.terminal import print_verdict
from adamas.compare.runner.conduct import DiscardedError, JobFailedError, conduct
from adamas.compare.runner.crew import Crew, WorkersDiedError
from adamas.compare.search.pilot import UnusableJobError
from adamas.compare.search.selection import EveryRunDivergedError
from adamas.compare.study.settings import Settings
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import NoScaleError, StudyResult, summarise

# The study could not be finished, for a reason that its message explains.
FAILURES = (
    JobFailedError,
    DiscardedError,
    WorkersDiedError,
    UnusableJobError,
    EveryRunDivergedError,
    NoScaleError,
)


@dataclass(frozen=True)
class Voice:
    """Where the tool speaks: results on standard output, everything else on standard error."""

    out: Console
    err: Console


def compare(all_settings: list[Settings], voice: Voice, as_json: bool, waiting: Crew) -> list[StudyResult]:
    """Conduct studies one after the other, write one report, print the tables or the JSON.

    Args:
        all_settings: the studies.
        voice: where to speak.
        as_json: print one JSON object in place of the tables.
        waiting: workers for the first study, started already.
    """
    results: list[StudyResult] = []
    for number, settings in enumerate(all_settings, start=1):
        name = settings.workload.name
        if len(all_settings) > 1:
            voice.err.print(f"{name} ({number} of {len(all_settings)})", highlight=False, markup=False)
        with Progress(voice.err) as watch, waiting if number == 1 else Crew(settings.workers) as crew:
            record = conduct(settings, watch, crew)
        results.append(summarise(record))
        if not as_json:  # what is finished is told at once
            print_verdict(voice.out, results[-1])
    page = write_report(results)
    if as_json:
        voice.out.file.write(json.dumps(to_json(results), allow_nan=False, ensure_ascii=False, indent=2) + "\n")
        voice.out.file.flush()
    voice.err.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return results
