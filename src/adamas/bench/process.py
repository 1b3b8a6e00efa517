"""One comparison in a process of its own, so that the thread pools of two peers never meet.

The process is started as `python -m adamas.bench.process` with an order in JSON on standard input. It prints, in JSON,
either its row or what failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

import torch

from adamas.bench.clock import Effort
from adamas.bench.device import Cpu
from adamas.bench.harness import Harness, compare, said
from adamas.bench.peers import find, missing, versions
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario


def environment(effort: Effort) -> dict[str, str]:
    """Return the environment of a comparison: what peers read at import, above all their numbers of threads."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(effort.threads),
        "PJRT_NPROC": str(effort.threads),  # size of JAX's thread pool on a CPU
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def least_disturbed(scenario: Scenario, name: str, effort: Effort) -> Row:
    """Measure again while other processes disturb the row, and return the least disturbed one."""
    rows = [in_own_process(scenario, name, effort)]
    while rows[-1].disturbed and len(rows) < effort.tries:
        rows.append(in_own_process(scenario, name, effort))
    return min(rows, key=lambda row: (row.figures and row.figures.others) or 0.0)


def in_own_process(scenario: Scenario, name: str, effort: Effort) -> Row:
    """Compare with the peer of that name in a fresh process; a row without figures says the reason."""
    peer = find(name)
    row = Row.of(scenario, name, versions(peer), missing(peer))
    if row.reason is not None:
        return row
    order = {"scenario": asdict(scenario), "peer": name, "effort": asdict(effort)}
    process = subprocess.run(
        [sys.executable, "-m", "adamas.bench.process"],
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
    return Row.of(scenario, name, row.versions, f"could not be measured: {failed}")


def main() -> None:
    """Carry out the order on standard input and print the answer."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever peers print goes to standard error, not into the answer
    order = json.loads(sys.stdin.read())
    try:
        effort = Effort(**order["effort"])
        torch.set_num_threads(effort.threads)
        row = compare(Scenario.from_json(order["scenario"]), find(order["peer"]), Harness(Cpu(), effort))
        answer.write(json.dumps({"row": row.to_json()}))
    except Exception as error:
        answer.write(json.dumps({"failed": said(error)}))
    answer.close()


if __name__ == "__main__":
    main()
