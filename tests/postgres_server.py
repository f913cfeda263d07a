"""A PostgreSQL server of the test's own, from the system's packages: on loopback, with a password, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, PASSWORD = "nas", "s3cret"


def binaries() -> Path:
    """Where `initdb` and `pg_ctl` are; skips the test where they are not."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    on_path = shutil.which("pg_ctl")
    if not found and on_path is None:
        pytest.skip("no PostgreSQL server here; install it: apt-get install postgresql")
    return (found[-1] if found else Path(str(on_path))).parent


@dataclass(frozen=True)
class Server:
    """A server that can be stopped and started again."""

    bin: Path
    folder: Path
    port: int

    def url(self, database: str = "postgres", password: str | None = PASSWORD) -> str:
        login = USER if password is None else f"{USER}:{password}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-D", self.folder / "data", "-o", options, "-l", self.folder / "log", "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")

    def make(self, database: str) -> str:
        """URL of a new, empty database."""
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        login = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        subprocess.run([self.bin / "createdb", *login, database], check=True, env=environment)
        return self.url(database)

    def initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD, encoding="ascii")
        shutil.chown(self.folder, *_owner()) if os.getuid() == 0 else None
        shutil.chown(secret, *_owner()) if os.getuid() == 0 else None
        self._run(
            "initdb", "-D", self.folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "--no-sync"
        )

    def _run(self, name: str, *arguments: str | Path) -> None:
        """As an unprivileged user: the server refuses to run as root."""
        user = {"user": _owner()[0], "group": _owner()[1], "extra_groups": []} if os.getuid() == 0 else {}
        subprocess.run(
            [self.bin / name, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=self.folder, timeout=60, **user
        )  # type: ignore[call-overload]


def _owner() -> tuple[str, str]:
    return "postgres", "postgres"


@contextmanager
def running() -> Iterator[Server]:
    """A fresh server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="nas-postgres-"))
    server = Server(binaries(), folder, port)
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        if (folder / "data" / "postmaster.pid").is_file():
            server.stop()
        shutil.rmtree(folder)
