"""Start processes at once, as forks of a process that has done the slow imports; a test that kills many needs this."""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn

ADDRESS = "TINY_JOB_FORK_SERVER"  # environment variable: the path of the socket
START_SECONDS = 60


class ForkServer:
    """A context in which a process waits and forks on request; it is killed at the end."""

    def __enter__(self) -> ForkServer:
        self._folder = tempfile.TemporaryDirectory(prefix="adamas")  # pytest's folder names are too long for a socket
        address = Path(self._folder.name) / "socket"
        self.environment = {ADDRESS: str(address)}
        command = [sys.executable, "-m", "tests.compare.fork_server", str(address)]
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        self.pid = self._process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class ForkedProcess:
    """A forked process that runs a module; it has the part of `subprocess.Popen` that the tests use.

    The environment counts for what runs in it, not for the start of Python, such as PYTHONIOENCODING.

    Args:
        command: The command `[python, "-m", module, *arguments]`.
        env: The environment of the process, which names the socket of the fork server.
        stdin: A pipe, or None.
        stdout: A pipe or a file.
        stderr: A pipe or a file.
        cwd: The working directory; None takes this process's.
        options: `start_new_session`, which is ignored: each fork has a session of its own.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
        stdin: int | None = None,
        cwd: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.stdin: IO[bytes] | None = None
        self.returncode: int | None = None
        self._written = [b"", b""]
        self._outputs = [tempfile.TemporaryFile() if isinstance(each, int) else each for each in (stdout, stderr)]  # noqa: SIM115
        with ExitStack() as stack:
            input_end, output_end = os.pipe()
            self._life, death = os.pipe()
            for end in (input_end, death):
                stack.callback(os.close, end)
            if stdin is None:
                os.close(output_end)
            else:
                self.stdin = os.fdopen(output_end, "wb")
            order = stack.enter_context(tempfile.TemporaryFile())
            asked = {"module": command[2], "arguments": command[3:], "environment": dict(env), "cwd": str(cwd or "")}
            asked["cwd"] = asked["cwd"] or os.getcwd()
            order.write(json.dumps(asked).encode())
            order.flush()
            connection = stack.enter_context(connect(env[ADDRESS]))
            outputs = [each.fileno() for each in self._outputs]
            socket.send_fds(connection, [b"fork"], [input_end, *outputs, death, order.fileno()])
            self.pid = int(connection.recv(100))

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._life], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            self.returncode = int(os.read(self._life, 100))
            os.close(self._life)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        self.wait(timeout)
        for place, output in enumerate(self._outputs):
            if not output.closed:
                with output:
                    output.seek(0)
                    self._written[place] = output.read()
        return self._written[0], self._written[1]

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def connect(address: str) -> socket.socket:
    """Connect to the fork server, which may still be importing."""
    connection, deadline = socket.socket(socket.AF_UNIX), time.monotonic() + START_SECONDS
    while True:
        try:
            connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return connection


def main() -> None:
    """Fork a process for each connection."""
    import torch._dynamo  # noqa: F401  # torch imports this with the first optimizer of a process

    import adamas.compare.command
    import adamas.compare.runner.worker
    import adamas.kernels.native  # noqa: F401  # pyright: ignore
    from adamas.compare.runner.storage import close_storage, open_storage

    deaths: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: tell_of_dead(deaths))
    with tempfile.TemporaryDirectory() as folder:  # the first database of a process brings further imports
        close_storage(open_storage(f"sqlite:///{folder}/trials.db", create=True))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        while True:
            with listener.accept()[0] as connection:
                *streams, death, order = socket.recv_fds(connection, 100, 5)[1]
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # until `deaths` knows the fork
                if (process := os.fork()) == 0:
                    for handle in (listener, connection):
                        handle.close()
                    for other in (death, *deaths.values()):
                        os.close(other)
                    become(streams, order)
                deaths[process] = death
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
                connection.sendall(str(process).encode())
            for handle in (*streams, order):
                os.close(handle)


def tell_of_dead(deaths: dict[int, int]) -> None:
    """Write the exit code of each fork that has ended into the pipe of its `ForkedProcess`; a signal is negative."""
    with suppress(ChildProcessError):  # there is no fork
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            process, status = found
            death = deaths.pop(process)
            with suppress(BrokenPipeError):  # nobody waits for it
                os.write(death, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(death)


def become(streams: Sequence[int], order: int) -> NoReturn:
    """Run the requested module in this fork, with these streams, and end the fork with its exit code."""
    code = 1
    try:
        for number, handle in enumerate(streams):
            os.dup2(handle, number)
            os.close(handle)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        with os.fdopen(order, "rb") as file:
            file.seek(0)
            request = json.loads(file.read())
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        sys.argv[1:] = request["arguments"]
        warnings.filterwarnings("ignore", message=r".* found in sys\.modules", category=RuntimeWarning)  # as it should
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
