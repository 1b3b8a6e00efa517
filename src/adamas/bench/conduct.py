"""Run a comparison in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

from adamas.bench.measure import Effort
from adamas.bench.peers import find, missing, versions
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario


def environment(effort: Effort) -> dict[str, str]:
    """Of a comparison: what peers read when they are imported, their numbers of threads above all."""
    threads = str(effort.threads)
    peers = {
        "OMP_NUM_THREADS": threads,
        "PJRT_NPROC": threads,  # the pool of JAX on a CPU
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return {**os.environ, **peers}


def quietest(scenario: Scenario, name: str, effort: Effort) -> Row:
    """Measure as `conduct`, again while other processes disturb it, and return the least disturbed row."""
    rows = [conduct(scenario, name, effort)]
    while rows[-1].disturbed and len(rows) < effort.tries:
        rows.append(conduct(scenario, name, effort))
    return min(rows, key=lambda row: (row.figures and row.figures.others) or 0.0)


def conduct(scenario: Scenario, name: str, effort: Effort) -> Row:
    """Measure a scenario beside the peer of that name; one that cannot be measured gives a reason and no figures."""
    peer = find(name)
    reason = missing(peer)
    if reason is not None:
        return Row.of(scenario, name, versions(peer), reason=reason)
    order = {"scenario": scenario.to_json(), "peer": name, "effort": asdict(effort)}
    process = subprocess.run(
        [sys.executable, "-m", "adamas.bench.pair"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
        env=environment(effort),
    )
    answer = json.loads(process.stdout or "{}")
    if "row" in answer:
        return Row.from_json(answer["row"])
    failed = answer.get("failed", f"its process ended with exit code {process.returncode}")
    return Row.of(scenario, name, versions(peer), reason=f"could not be measured: {failed}")
