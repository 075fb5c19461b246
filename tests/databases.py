"""Real database servers of this machine, reached by a socket only."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import needs


class Postgres:
    def __init__(self, tools: Path, folder: Path) -> None:
        self._tools, self._folder = tools, folder
        self._options = f"-k {folder} -c listen_addresses= -c fsync=off"
        self._tool("initdb", "-D", f"{folder}/data", "-U", "mlflow", "--auth=trust", "--no-sync")
        self.start()

    def create(self, name: str) -> str:
        self._tool("createdb", "-h", str(self._folder), "-U", "mlflow", name)
        return f"postgresql://mlflow@/{name}?host={self._folder}"

    def ask(self, statement: str) -> None:
        self._tool("psql", "-h", str(self._folder), "-U", "mlflow", "-c", statement, "postgres")

    def start(self) -> None:
        log = f"{self._folder}/log"
        self._tool("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", self._options, "start")

    def stop(self) -> None:
        self._tool("pg_ctl", "-D", self._data, "-m", "immediate", "stop")

    @property
    def _data(self) -> str:
        return f"{self._folder}/data"

    def _tool(self, name: str, *words: str) -> None:
        # It refuses to run as root.
        owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(
            [*(owner if os.getuid() == 0 else []), str(self._tools / name), *words],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
        )


class MariaDb:
    def __init__(self, folder: Path) -> None:
        self._socket = f"{folder}/socket"
        user = ["--user=mysql"] if os.getuid() == 0 else []
        options = ["--no-defaults", *user, f"--datadir={folder}/data"]
        install = ["mariadb-install-db", *options, "--auth-root-authentication-method=normal"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        options += [f"--socket={self._socket}", "--skip-networking"]
        self._server = subprocess.Popen(
            ["mariadbd", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while not Path(self._socket).exists() and time.monotonic() < deadline:
            time.sleep(0.1)

    def create(self, name: str) -> str:
        self._ask("-e", f"CREATE DATABASE {name}")
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self._socket}"

    def stop(self) -> None:
        self._server.kill()
        self._server.wait()

    def _ask(self, *words: str) -> None:
        subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", "-S", self._socket, *words],
            check=True,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    tools = needs(programs[-1] if programs else Path("/usr/lib/postgresql"), "PostgreSQL").parent
    with _folder() as folder:
        server = Postgres(tools, folder)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB server."""
    needs(Path(shutil.which("mariadbd") or "/usr/sbin/mariadbd"), "MariaDB")
    with _folder() as folder:
        server = MariaDb(folder)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def _folder() -> Iterator[Path]:
    # One of its own: every pytest that starts closes pytest's to other users.
    folder = Path(tempfile.mkdtemp(prefix="pepr-db-"))
    if os.getuid() == 0:
        folder.chmod(0o777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
