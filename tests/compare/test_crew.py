"""Workers as processes: forked by a foreman or each on its own, replaced, told to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adamas.compare.runner import crew
from adamas.compare.runner.conduct import conduct
from adamas.compare.runner.crew import Crew, WorkersDiedError
from adamas.compare.runner.foreman import GAVE_UP
from adamas.compare.runner.fork import FORKS
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import StudyResult, summarise
from tests.compare.conftest import ROOT
from tests.compare.studies import children, until
from tests.compare.tiny_job import settings

forks = pytest.mark.skipif(not FORKS, reason="workers are forked on Linux alone")

FOREMAN = """
import os, sys
from adamas.compare.runner.foreman import Foreman

def work():
    with open(sys.argv[1], "a") as file:
        file.write(".")
    {work}

sys.exit(Foreman(work, count=2, replacements=3).run())
"""


def foreman(work: str, notes: Path) -> subprocess.Popen[bytes]:
    """Two workers who note that they began, and do this."""
    command = [sys.executable, "-c", FOREMAN.format(work=work), str(notes)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


@forks
@pytest.mark.parametrize(
    "work", ["os._exit(3)", "raise RuntimeError('no')", "os.kill(os.getpid(), 9)", "sys.exit('no')"]
)
def test_a_foreman_gives_up_when_workers_keep_dying(work: str, tmp_path: Path) -> None:
    process = foreman(work, tmp_path / "notes")
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == GAVE_UP
    assert (tmp_path / "notes").read_text() in ("....", ".....")  # two, three anew; the last may be stopped unbegun
    assert ("RuntimeError: no" in said or "\nno\n" in f"\n{said}") is ("no" in work)
    code = {"os._exit(3)": 3, "os.kill(os.getpid(), 9)": -9}.get(work, 1)
    assert f"a worker ended with exit code {code}" in said


@forks
def test_workers_end_with_the_input_that_they_share(tmp_path: Path) -> None:
    process = foreman("sys.stdin.read()", tmp_path / "notes")
    until(lambda: len(children(process.pid)) == 2, "the workers")
    os.kill(children(process.pid)[0], signal.SIGKILL)
    until(lambda: (tmp_path / "notes").read_text() == "...", "a replacement")
    process.communicate(timeout=60)
    assert process.returncode == 0


@forks
def test_a_foreman_passes_on_that_all_is_to_stop(tmp_path: Path) -> None:
    process = foreman("import time; time.sleep(600)", tmp_path / "notes")
    until(lambda: (tmp_path / "notes").exists() and (tmp_path / "notes").read_text() == "..", "the workers")
    workers = children(process.pid)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.parametrize("count", [1, 2])
def test_processes_that_end_unasked_are_replaced_until_that_is_a_fault(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "WORKER", "this")  # prints, and ends
    with pytest.raises(WorkersDiedError, match=r"(?s)exit code 0.*Zen of Python"):
        watch(Crew(count), tmp_path)


@forks
def test_a_foreman_who_gave_up_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WORKER", "tests.compare.hopeless_worker")
    with pytest.raises(WorkersDiedError, match=rf"exit code {GAVE_UP}"):
        watch(Crew(2), tmp_path)


def watch(workers: Crew, out: Path) -> None:
    """Replace who dies, for a minute."""
    deadline = time.monotonic() + 60
    with workers:
        workers.give({}, out / "workers.log")
        while time.monotonic() < deadline:
            workers.replace_dead()
            time.sleep(0.02)


FORK = """
import os, subprocess, sys, tempfile
from adamas.compare.runner.fork import Fork, may_fork

assert may_fork()
with tempfile.TemporaryFile() as output:
    print("from the parent", end=" ")  # not written twice, though it is still in a buffer
    fork = Fork(lambda: print(sys.stdin.readline().upper()) or sys.exit(3), output)
    assert fork.poll() is None
    try:
        fork.wait(0.2)
    except subprocess.TimeoutExpired:
        print("waited", end=" ")
    assert os.getsid(fork.pid) == fork.pid
    fork.stdin.write(b"word")
    fork.stdin.close()
    assert fork.wait(60) == fork.poll() == 3
    fork.terminate()  # gone already
    for end, code in (("terminate", -15), ("kill", -9)):
        fork = Fork(sys.stdin.read, output)
        getattr(fork, end)()
        assert fork.wait(60) == code
    output.seek(0)
    print(output.read().decode())
"""


@forks
def test_a_fork_does_as_a_process_of_its_own() -> None:
    found = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (found.stdout.split(), found.stderr) == (["from", "the", "parent", "waited", "WORD"], "")


@forks
def test_a_process_with_threads_is_not_forked() -> None:
    script = (
        "import threading; from adamas.compare.runner.fork import may_fork; "
        "threading.Thread(target=threading.Event().wait, daemon=True).start(); print(may_fork())"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=False)
    assert found.stdout == b"False\n"


def test_workers_that_cannot_be_forked_find_the_same(
    tiny_result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "FORKS", False)
    found = summarise(conduct(settings(tmp_path, workers=2), lambda snapshot: None))
    assert to_json([found]) == to_json([tiny_result])


FAULTS = """
import ctypes, resource, torch
from adamas.compare.runner.worker import M_MMAP_THRESHOLD, keep_freed_memory
torch.set_num_threads(1)
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)  # glibc's default, without its guesses of a better one

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [torch.ones(5 << 20) for _ in range(3)]
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5

before = faults()
keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="glibc alone gives memory back in this way",
)
def test_a_worker_keeps_the_memory_that_a_step_frees() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    before, after = map(int, said.split())
    assert before > 1_000  # 60 MiB in pages of 4 KiB: 15,360, or fewer where pages are larger
    assert after < before / 100
