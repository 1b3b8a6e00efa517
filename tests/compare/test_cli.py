from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import adamas
from adamas.cli import app
from adamas.compare import api
from adamas.compare.study.errors import JobFailedError
from adamas.compare.study.settings import Settings
from adamas.compare.verdict.decision import Verdict
from adamas.compare.verdict.result import Summary
from tests.compare.conftest import ROOT
from tests.compare.studies import descendants, until


def invoke(*arguments: str):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, list(arguments))


def test_version() -> None:
    assert invoke("--version").stdout == f"adamas {adamas.__version__}\n"


def test_help_teaches() -> None:
    shown = invoke("compare", "--help").stdout
    for part in ("adamas compare --seeds 20", "Ctrl-C", "--storage", "Exit codes"):
        assert part in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "unknown workload 'nonsense'; the known ones are: "),
        (("--budget", "huge"), "unknown budget 'huge'; the known ones are: scout, quick, standard, thorough"),
        (("--margin", "-1"), "margin='-1' must be a positive number"),
        (("--seeds", "1"), "seeds=1 must be >= 2"),
        (("--timeout", "0"), "timeout=0 must be > 0"),
        (("--lang", "fr"), "lang='fr' must be en or zh"),
        (("--workers", "-1"), "workers=-1 must be >= 0"),
        (("--trials", "5"), "trials=5 must be >= 30 with the budget standard"),
        (("--arms", "adamw"), "arms='adamw' must contain adam_l2 and adamw, which the verdict is about; add adam_l2"),
        (("--arms", "adam_l2,adamw,torch.optim:Lion"), "arm 'torch.optim:Lion' cannot be imported"),
        (("--metric", "los"), "returned cross_entropy, accuracy, but not 'los'"),
        (("--metric", "accuracy"), "metric='accuracy' is better when higher"),
        (("--device", "tpu"), "device='tpu' cannot be used"),
        (("nowhere.py:job",), "job='nowhere.py:job': there is no file nowhere.py"),
        (("digits", "nonsense"), "unknown workload 'nonsense'"),
        (("noise", "--arms", "adam_l2,adamw,torch.optim:SGD"), "not for torch.optim:SGD"),
        (("--storage", "sqlite://"), "storage=sqlite:// must be a file or a server"),
        (("--storage", "not a url"), "storage=not a url cannot be opened"),
        (("--storage", "nosuch://me:secret@host/trials"), "storage=nosuch://me:***@host/trials cannot be opened"),
        (("--storage", "oracle://me:secret@host/trials"), "(oracle is not known to give each run to one worker alone)"),
        (("--storage", "sqlite:////proc/nowhere/trials.db"), "/proc/nowhere/trials.db cannot be opened"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    found = invoke("compare", *arguments, "--out", str(tmp_path))
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stdout == ""


def test_an_unknown_option_exits_with_2() -> None:
    assert invoke("compare", "--sead", "3").exit_code == 2


@pytest.fixture
def finished(tiny_result: Summary, monkeypatch: pytest.MonkeyPatch) -> Summary:
    """Let every study of the command be the finished tiny study."""
    monkeypatch.setattr(api, "conduct", lambda settings, watch: tiny_result.record)
    return tiny_result


def test_json_is_all_there_is_on_standard_output(finished: Summary) -> None:
    found = invoke("compare", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["studies"][0]["workload"] == "tiny"
    assert "index.html" in found.stderr


def test_the_table_ends_with_the_code(finished: Summary) -> None:
    found = invoke("compare")
    assert found.exit_code == 0
    assert found.stdout.splitlines()[-1] == finished.code[-1]


@pytest.mark.parametrize(("kind", "code"), [("undecided", 3), ("no_difference", 0), ("switch", 0)])
def test_require_verdict(finished: Summary, monkeypatch: pytest.MonkeyPatch, kind: str, code: int) -> None:
    from dataclasses import replace

    result = replace(finished, verdict=Verdict(kind, "Advice", "evidence."))  # type: ignore[arg-type]
    monkeypatch.setattr(api, "summarise", lambda record: result)
    assert invoke("compare", "--require-verdict").exit_code == code
    assert invoke("compare").exit_code == 0


def test_several_workloads_make_one_object_and_one_page(tiny_result: Summary, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    def conduct(settings: Settings, watch: object) -> object:
        settings = replace(tiny_result.record.settings, workload=replace(settings.workload, metric="loss", findings=""))
        return replace(tiny_result.record, settings=replace(settings, out=tmp_path))

    monkeypatch.setattr(api, "conduct", conduct)
    found = invoke("compare", "digits", "modular", "digits", "--json")
    assert found.exit_code == 0, found.output
    assert [study["workload"] for study in json.loads(found.stdout)["studies"]] == ["digits", "modular"]
    assert "digits (1 of 2)" in found.stderr
    page = (tmp_path / "index.html").read_text()
    assert page.count("<h1") == 1


def test_init_writes_a_job_and_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "my job.py"
    found = invoke("compare", "--init", str(path))
    assert found.exit_code == 0
    assert f"adamas compare '{path}:job' --budget quick" in found.stdout  # as a shell takes it
    compile(path.read_text(), str(path), "exec")
    path.write_text("mine")
    found = invoke("compare", "--init", str(path))
    assert found.exit_code == 2
    assert f"init={path} exists already" in found.stderr
    assert path.read_text() == "mine"
    assert invoke("compare", "--init", str(tmp_path / "no" / "job.py")).exit_code == 2


def test_the_shell_completes_commands_and_workloads() -> None:
    """The environment is that of bash: the words so far, and the number of the word that the user types."""
    for words, expected in (
        ("adamas com", "compare"),
        ("adamas compare mod", "modular"),
        ("adamas compare --budget q", "quick"),
    ):
        environment = {"_ADAMAS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        found = CliRunner().invoke(app, [], prog_name="adamas", env=environment)
        assert expected in found.stdout.split(), words


def test_a_failing_job_exits_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(settings: Settings, watch: object) -> None:
        raise JobFailedError("Traceback ... no data here")

    monkeypatch.setattr(api, "conduct", fail)
    found = invoke("compare", "--out", str(tmp_path))
    assert found.exit_code == 1
    assert "no data here" in found.stderr


def test_stopping_says_how_to_continue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(settings: Settings, watch: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "conduct", stop)
    monkeypatch.setattr(sys, "argv", ["adamas", "compare", "--fresh", "--out", "my folder"])
    found = invoke("compare", "--out", str(tmp_path))
    assert found.exit_code == 130
    assert "adamas compare --out 'my folder' --resume" in found.stderr


def test_doctor_prints_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("native kernel", "slow", "pip install 'adamas[torch]'"), ("cuda", "odd", "none found")]
    monkeypatch.setattr("adamas.doctor.report", lambda: rows)
    found = invoke("doctor")
    assert found.exit_code == 0
    assert [line.split() for line in found.stdout.splitlines()] == [" ".join(row).split() for row in rows]


def test_the_command_line_imports_nothing_heavy() -> None:
    check = "import sys, adamas.cli; print([m for m in ('torch', 'optuna', 'plotly', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [("compare", "optuna", "compare"), ("bench", "torch", "torch")],
)
def test_a_missing_extra_is_named(command: str, package: str, extra: str) -> None:
    hide = f"import sys; sys.modules[{package!r}] = None; sys.argv = ['adamas', {command!r}]"
    check = f"{hide}; import adamas.cli; adamas.cli.app()"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, check=False)
    assert found.returncode == 1
    assert f"needs {package}, which is not installed: pip install 'adamas[{extra}]'" in found.stderr


def test_doctor_tells_of_each_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework that is missing, or broken, has a row that says so and hides no other row."""
    from adamas import doctor

    def broken() -> list[doctor.Row]:
        raise ImportError("libcuda.so.1")

    monkeypatch.setattr(doctor, "_jax", broken)
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name != "keras")
    rows = {what: (status, detail) for what, status, detail in doctor.report()}
    assert rows["numpy"][0] == ("ok" if rows["native kernel"][0] == "ok" else "slow")
    assert "steps by" in rows["numpy"][1]
    assert rows["torch"][0] == "ok"
    assert rows["jax"] == ("off", "cannot be used: ImportError: libcuda.so.1")
    assert rows["keras"] == ("off", "not installed: pip install 'adamas[keras]'")


@pytest.mark.slow
def test_digits_from_end_to_end(tmp_path: Path) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "adamas.cli",
            "compare",
            "digits",
            "--budget",
            "scout",
            "--seeds",
            "2",
            "--workers",
            "1",
            "--json",
            "--out",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    (study,) = json.loads(found.stdout)["studies"]
    assert {name: arm["trials"] for name, arm in study["arms"].items()} == {"none": 4, "adam_l2": 9, "adamw": 9}
    assert all(arm["test"]["accuracy"]["mean"] > 0.88 for arm in study["arms"].values())
    assert (tmp_path / "index.html").stat().st_size > 1e6


NOISY_JOB = """
import atexit, subprocess, sys, torch
from torch import nn
from adamas.compare import Job

print("imported")
subprocess.run([sys.executable, "-c", "print('a child')"])
atexit.register(print, "at exit")

def job(seed, device):
    model = nn.Linear(4, 1)
    batches = lambda epoch: torch.randn(12, 4).split(4)
    loss = lambda batch: (model(batch) - batch[:, :1]).square().mean()
    evaluate = lambda split: {"mse": loss(torch.eye(4)), "l1": 1.0}
    return Job(model, batches, loss, evaluate, 2, 3, metric="mse", stackable=True)
"""


SMALL = ("--budget", "scout", "--seeds", "2", "--workers", "1")


LOADER_JOB = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from adamas.compare import Job

def job(seed, device):
    model = nn.Linear(4, 1)
    data = torch.randn(64, 5, generator=torch.Generator().manual_seed(7))
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(data[:32]), 8, shuffle=True, num_workers=1, generator=order)
    loss = lambda batch: (model(batch[0][:, :4]) - batch[0][:, 4:]).square().mean()
    return Job(model, lambda epoch: loader, loss, lambda split: {"loss": loss([data[32:]])}, 1, len(loader))
"""


def test_a_job_may_start_processes_of_its_own(tmp_path: Path) -> None:
    """The processes of a data loader are forks of a worker, and close standard input, which a thread of it reads.

    They once waited for the lock of that thread for ever. The end of a study leaves its database and nothing else.
    """
    (tmp_path / "my_job.py").write_text(LOADER_JOB)
    command = [sys.executable, "-m", "adamas.cli", "compare", "my_job.py", *SMALL, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True)
    assert set(json.loads(done.stdout)["studies"][0]["arms"]) == {"none", "adam_l2", "adamw"}
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["index.html", "trials.db"]


def test_sigterm_stops_the_command_as_an_interrupt_does(tmp_path: Path) -> None:
    """The scheduler of a cluster sends SIGTERM: all workers stop, and the message says how to continue."""
    (tmp_path / "my_job.py").write_text(NOISY_JOB)
    command = [sys.executable, "-m", "adamas.cli", "compare", "my_job.py", "--metric", "l1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    until(lambda: descendants(process.pid), "the workers")
    workers = descendants(process.pid)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "every finished run is kept. Continue with: adamas compare my_job.py --metric l1 --resume" in said
    assert workers
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the workers' end")


@pytest.mark.parametrize("out", ["/proc/nowhere", "a_file"])
def test_an_error_names_an_impossible_folder_as_it_was_typed(out: str, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    found = invoke("compare", "digits", "--out", str(tmp_path / out))
    assert found.exit_code == 2
    assert f"out={tmp_path / out} cannot hold the trials" in " ".join(found.stderr.split())
    assert "postgresql" not in found.stderr


def test_an_example_file_must_end_in_py(tmp_path: Path) -> None:
    found = invoke("compare", "--init", str(tmp_path / "my job.txt"))
    assert found.exit_code == 2
    assert "must end in .py" in found.stderr
    assert not list(tmp_path.iterdir())


def test_standard_output_has_the_result_alone(tmp_path: Path) -> None:
    """Output of the job, of its processes and of exit handlers goes elsewhere, and closed streams lose nothing."""
    (tmp_path / "my_job.py").write_text(NOISY_JOB)
    command = [sys.executable, "-m", "adamas.cli", "compare", "my_job.py", *SMALL, "--metric", "l1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout)["studies"][0]["metric"] == "l1"
    for said in ("imported", "a child", "at exit"):
        assert said in done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert "adamas compare my_job.py --budget scout --seeds 2 --margin 2% --metric l1" in page

    closed = f"{shlex.join(command)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", closed], cwd=tmp_path, check=False).returncode == 0
    no_errors = subprocess.run(
        ["sh", "-c", f"{shlex.join(command)} 2>&-"], capture_output=True, cwd=tmp_path, check=True
    )
    assert no_errors.stdout.decode() == done.stdout


PRINTING = """
import os, sys
from pathlib import Path
from adamas.cli import run

terminal = os.dup(1)

def command(encoding, *more):
    os.dup2(terminal, 1)  # an earlier command keeps it for its result alone
    if encoding:  # as PYTHONIOENCODING has it
        sys.stdout.reconfigure(encoding=encoding)
        sys.stderr.reconfigure(encoding=encoding)
    sys.argv[1:] = ["compare", "my_job.py", "--budget", "scout", "--seeds", "2", "--workers", "0", *more]
    try:
        run()
    except SystemExit as end:
        assert not end.code, end.code
    page = Path("report", "index.html")
    assert page.stat().st_size > 1e6
    page.unlink()
    os.write(terminal, bytes(1))

command("")
command("", "--json")
command("ascii")
command("cp1252")
"""


def test_a_terminal_that_is_not_utf8_costs_nothing(tmp_path: Path) -> None:
    """The first command trains; the others print again. One process runs them all, as the imports take seconds."""
    (tmp_path / "my_job.py").write_text(NOISY_JOB)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", PRINTING]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    of_locale, as_json, ascii_alone, cp1252, _ = done.stdout.split(bytes(1))
    for printed, encoding in ((of_locale, "ascii"), (ascii_alone, "ascii"), (cp1252, "cp1252")):
        assert "AdamW" in printed.decode(encoding)
        assert ("±" if encoding == "cp1252" else "+/-") in printed.decode(encoding)
    assert "−" in json.loads(as_json.decode("ascii"))["studies"][0]["verdict"]["text"]  # nothing is lost


def test_a_page_that_cannot_be_written_costs_no_verdict(finished: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamas.compare import command

    def full(results: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_report", full)
    found = invoke("compare")
    assert found.exit_code == 1
    assert finished.verdict.advice in found.stdout
    assert "cannot take the report (No space left on device); free space" in found.stderr


def test_the_page_is_there_before_the_table_is_printed(finished: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    from adamas.compare import command

    monkeypatch.setattr(command, "print_verdict", lambda *_: pytest.fail("as printing may fail"))
    page = finished.record.settings.out / "index.html"
    page.unlink(missing_ok=True)
    with pytest.raises(pytest.fail.Exception):
        CliRunner().invoke(app, ["compare"], catch_exceptions=False)
    assert page.exists()
