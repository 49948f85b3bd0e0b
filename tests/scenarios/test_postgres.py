"""The PostgreSQL servers that other tests build on do what those tests take for granted."""

import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import psycopg
import pytest
from sqlalchemy import create_engine, text

from testsupport.postgres import Database, PostgresServer
from testsupport.processes import is_alive, time_of_death

pytestmark = pytest.mark.postgres

_PARENT: Final = """
import sys
sys.path.insert(0, sys.argv[1])
from testsupport.postgres import PostgresServer
with PostgresServer() as server:
    print(server.process.pid, server.folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def connection(postgres_server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A connection to a server of the test's own."""
    with closing(postgres_server.database.connect()) as connection:
        yield connection


def test_a_database_answers_both_libraries(postgres: Database) -> None:
    """Psycopg and SQLAlchemy reach the same database, which is empty at first."""
    with closing(postgres.connect()) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone()
        assert found == (0,)
        connection.execute("CREATE TABLE notes AS SELECT 'written' AS note")
    engine = create_engine(postgres.sqlalchemy_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT note FROM notes")).scalar_one() == "written"
    engine.dispose()


def test_what_is_acknowledged_survives_a_kill(
    postgres_server: PostgresServer, connection: psycopg.Connection
) -> None:
    """A killed server cuts its connections, and has every committed row when it is back."""
    connection.execute("CREATE TABLE notes (note integer)")
    for note in range(100):
        connection.execute("INSERT INTO notes VALUES (%s)", [note])
    postgres_server.restart()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with closing(postgres_server.database.connect()) as again:
        assert again.execute("SELECT count(*) FROM notes").fetchone() == (100,)


def test_a_frozen_server_answers_nobody_until_it_is_thawed(
    postgres_server: PostgresServer, connection: psycopg.Connection
) -> None:
    """A frozen server keeps an established connection waiting, and answers it afterwards."""
    postgres_server.freeze()
    connection.pgconn.send_query(b"SELECT 1")
    assert not _readable(connection, within=0.3)
    postgres_server.thaw()
    assert _readable(connection, within=10.0)


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill])
def test_nothing_of_an_ended_server_is_left(
    end: Callable[[PostgresServer], None],
    postgres_server: PostgresServer,
    connection: psycopg.Connection,
) -> None:
    """A server that was stopped or killed leaves no process, though a connection was open."""
    assert not connection.closed
    pids = postgres_server.pids()
    assert len(pids) > 1
    end(postgres_server)
    assert not any(map(is_alive, pids))


@pytest.mark.usefixtures("shared_postgres")
def test_a_server_dies_with_its_parent() -> None:
    """A server of a killed process is gone with it, although it may run as another user."""
    script = [sys.executable, "-c", _PARENT, str(Path(__file__).parents[1])]
    with subprocess.Popen(
        script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        assert is_alive(int(pid))
        parent.kill()
    time_of_death(int(pid))
    shutil.rmtree(folder)


def _readable(connection: psycopg.Connection, within: float) -> bool:
    """Return whether the server sends something within so many seconds."""
    return bool(select.select([connection], [], [], within)[0])
