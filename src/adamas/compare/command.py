"""Run the studies of one `adamas compare` command, and show their results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from adamas.compare.api import look_over, run_study
from adamas.compare.report import write_report
from adamas.compare.report.live import Progress
from adamas.compare.report.terminal import print_verdict
from adamas.compare.study.errors import StudyError
from adamas.compare.study.settings import Options, Settings
from adamas.compare.study_result import StudyResult
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Summary
from adamas.language import Language


@dataclass(frozen=True)
class Consoles:
    """Where the command writes: results to standard output, everything else to standard error."""

    out: Console
    err: Console


def run_command(
    names: list[str], options: Options, consoles: Consoles, as_json: bool, lang: Language = "en"
) -> list[StudyResult]:
    """Run the studies one after the other, write one report, and print the tables or the JSON.

    Args:
        names: The workloads, as typed.
        options: The options of all studies.
        consoles: Where to write.
        as_json: Whether to print one JSON object in place of the tables.
        lang: The language of the tables and the report; the JSON is English.
    """
    results: list[StudyResult] = []
    shown: list[Summary] = []
    page, unwritten = Path(), ""
    all_settings = _all_settings(names, options)
    for number, settings in enumerate(all_settings, start=1):
        if len(all_settings) > 1:
            title = f"{settings.workload.name} ({number} of {len(all_settings)})"
            consoles.err.print(title, highlight=False, markup=False)
        results.append(run_study(settings, Progress(consoles.err)))
        shown.append(results[-1].summary.in_language(lang))
        try:  # before anything is printed: a terminal that fails may not cost the page
            page, unwritten = write_report(shown), ""
        except OSError as error:
            unwritten = (
                f"out={settings.out} cannot take the report ({error.strerror}); free space, or mend its permissions"
            )
        if not as_json:  # the table is printed as soon as a study is finished
            print_verdict(consoles.out, shown[-1])
    if as_json:
        lossless = consoles.out.encoding.startswith("utf")
        found = {**to_json([result.summary for result in results]), "report": "" if unwritten else str(page)}
        consoles.out.file.write(json.dumps(found, allow_nan=False, ensure_ascii=not lossless, indent=2) + "\n")
        consoles.out.file.flush()
    if unwritten:
        raise StudyError(f"{unwritten}: every run is kept, and the same command then writes it without training")
    consoles.err.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return results


def _all_settings(names: list[str], options: Options) -> list[Settings]:
    """Look all jobs over before the first study begins; refuse two studies of one name."""
    found = [options.settings(look_over(name, options)) for name in dict.fromkeys(names)]
    for number, each in enumerate(found):
        for other in found[:number]:
            if other.workload.name == each.workload.name:
                raise ValueError(
                    f"{other.workload.typed!r} and {each.workload.typed!r} are both called {each.workload.name}: their "
                    "runs would be taken for one another's; compare them one by one, each with an --out of its own"
                )
    return found
