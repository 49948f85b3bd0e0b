"""
Real PostgreSQL servers for tests, and databases in them.

A server keeps what it has acknowledged over SIGKILL, though not over a crash of the machine. Everybody
on this machine may enter without a password.
"""

import os
import pwd
import signal
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import psycopg

from leader_jobs.clock import SystemClock
from testsupport.processes import time_of_death
from testsupport.servers import Server, environment_of, find_binary

__all__ = ["Database", "PostgresServer"]

_CLOCK: Final = SystemClock()
_STOPPED_WITHIN: Final = 5.0
_INITDB_WITHIN: Final = 30.0
_USER: Final = "postgres"
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # The kernel outlives every server that a test kills; synchronous_commit must stay on for them.
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "shared_buffers": "16MB",
}


def _account() -> Mapping[str, Any]:
    """Return arguments of `subprocess.Popen` for an account that PostgreSQL runs under: not root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Database(NamedTuple):
    """
    A database of a server on this machine.

    Attributes:
        port: where its server listens on 127.0.0.1.
        name: what the server calls it.
    """

    port: int
    name: str

    @property
    def url(self) -> str:
        """What `psycopg.connect` takes."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{self.name}"

    @property
    def sqlalchemy_url(self) -> str:
        """What `sqlalchemy.create_engine` takes."""
        return self.url.replace("postgresql:", "postgresql+psycopg:", 1)

    @property
    def django_settings(self) -> dict[str, Any]:
        """An entry of Django's ``DATABASES``."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "NAME": self.name,
            "USER": _USER,
        }

    def connect(self) -> psycopg.Connection:
        """
        Return a new connection that commits each statement, to be closed by the caller.

        Raises:
            psycopg.OperationalError: the server does not answer within 5 s.
        """
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)


class PostgresServer(Server):
    """A PostgreSQL server with a cluster of its own; as root it runs as nobody."""

    _account: ClassVar[Mapping[str, Any]] = _account()

    @staticmethod
    @cache
    def binary() -> Path | None:
        """Return where ``postgres`` is; ``TEST_POSTGRES_BIN`` may name it, with initdb beside it."""
        return find_binary("TEST_POSTGRES_BIN", "usr/lib/postgresql/*/bin/postgres")

    @property
    def database(self) -> Database:
        """The database that every server has."""
        return Database(self.port, "postgres")

    @contextmanager
    def own_database(self) -> Iterator[Database]:
        """Create a database, and drop it with all connections to it; the server is healed before."""
        name = f"test_{uuid.uuid4().hex}"
        with self.database.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield Database(self.port, name)
        finally:
            self.heal()
            with self.database.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def kill(self) -> None:
        """End the server with all its processes by SIGKILL, if it is there."""
        if not self.alive:
            return
        # None of them sees another end, nor starts a new one.
        self.freeze()
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pid in pids - {self.process.pid}:
            time_of_death(pid)

    def stop(self) -> None:
        """Have the server end in order, and wait until it has; connections are cut."""
        # On SIGTERM it would wait until everybody has gone.
        self._end(signal.SIGINT)

    def freeze(self) -> None:
        """Stop all its processes with SIGSTOP; its kernel goes on accepting and acknowledging."""
        super().freeze()
        for pid in self.pids() - {self.process.pid}:
            os.kill(pid, signal.SIGSTOP)
            _wait_until_stopped(pid)

    def thaw(self) -> None:
        """Let the processes of a frozen server go on."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _finish(self) -> None:
        if self.alive:
            self.thaw()
            # A killed one would leave behind a segment of shared memory.
            self._end(signal.SIGQUIT)

    def _program(self, name: str) -> tuple[str, dict[str, str]]:
        binary = self.binary()
        assert binary is not None, "there is no postgres: run scripts/fetch-postgres"
        return str(binary.resolve().with_name(name)), environment_of(binary)

    def _prepare(self) -> None:
        if self._account:
            os.chown(self.folder, self._account["user"], self._account["group"])
        program, environment = self._program("initdb")
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [program, f"--pgdata={self.folder / 'data'}", f"--username={_USER}", *options]
        assert self._spawn(command, environment).wait(_INITDB_WITHIN) == 0, self._tail()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        program, environment = self._program("postgres")
        settings = [part for item in _SETTINGS.items() for part in ("-c", "=".join(item))]
        return [
            program,
            "-D",
            str(self.folder / "data"),
            "-p",
            str(self.port),
            *settings,
        ], environment

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), self.database.connect() as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False


def _wait_until_stopped(pid: int) -> None:
    """Wait until a process that was sent SIGSTOP runs no more, be it that it has ended."""
    limit = _CLOCK.now() + _STOPPED_WITHIN
    with suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TZX":
            assert _CLOCK.now() < limit, f"process {pid} does not stop"
            os.sched_yield()
