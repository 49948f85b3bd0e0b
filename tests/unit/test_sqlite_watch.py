"""Watches of the embedded store: what the kernel tells, what it does not, and what they hold on to."""

import gc
import os
import resource
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores._pace import Pace
from leader_jobs.stores._sqlite_changes import Changes, _libc
from leader_jobs.stores._sqlite_register import elections
from leader_jobs.stores._sqlite_watch import RegisterWatch
from leader_jobs.stores.base import ABSENT, Watch, Write
from leader_jobs.stores.sqlite import SqliteStore
from leader_jobs.testing import ManualClock
from testsupport.background import Background
from testsupport.forking import in_forked_child
from testsupport.store_process import StoreProcess

CLOCK = SystemClock()
HOUR = 3600.0
Open = Callable[[], SqliteStore]


def within(seconds: float = 5.0) -> float:
    """Return a deadline."""
    return CLOCK.now() + seconds


def write(store: SqliteStore, key: str = "control/a") -> int:
    """Write a record."""
    return store.commit("mail", [Write(key, b"")], candidacy=None, deadline=within())


def waiting(watch: Watch, after: int) -> Background[None]:
    """Wait for an hour in a thread of its own."""
    return Background(partial(watch.wait, after, timeout=HOUR))


def is_open(kind: str) -> list[str]:
    """Return the descriptors of a kind that this process has open, without those nobody refers to."""
    gc.collect()
    links = list(Path("/proc/self/fd").iterdir())
    return [link.name for link in links if link.is_symlink() and kind in str(link.readlink())]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "leader.sqlite3"


@pytest.fixture(name="open_store")
def _open_store(path: Path) -> Iterator[Open]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(SqliteStore(path, clock=CLOCK)))


@pytest.fixture(name="store")
def _store(open_store: Open) -> SqliteStore:
    return open_store()


@pytest.fixture(name="other")
def _other(open_store: Open) -> SqliteStore:
    """A store object on the same database, as another process has one."""
    return open_store()


# -- what the kernel tells --------------------------------------------------------------------------


def test_another_process_is_heard(path: Path, store: SqliteStore) -> None:
    """The news crosses from one process to the other, and waiting for it costs next to nothing."""
    watch = store.watch("mail", "control/")
    with StoreProcess(f"sqlite:///{path}") as process:
        seen = process.ask("write", key="control/a", value="1")
        wait = waiting(watch, seen)
        assert not wait.over(within=0.2)

        process.ask("write", key="control/a", value="2")

        wait.result(within=2.0)


def test_a_quiet_watch_does_not_look(store: SqliteStore) -> None:
    """While nobody writes, the database is left alone: between two looks there are seconds."""
    watch = store.watch("mail", "control/")
    seen = write(store)
    wait = waiting(watch, seen)
    assert not wait.over(within=0.2)
    statements = traced(store)

    assert not wait.over(within=0.5)
    assert statements == []
    watch.wake()
    wait.result()


def test_a_commit_under_way_is_not_missed(
    store: SqliteStore, other: SqliteStore, path: Path
) -> None:
    """The kernel tells of a commit before others can see it, and does not tell when they can."""
    watch = store.watch("mail", "control/")
    seen = write(other)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        # A transaction that outgrows the cache writes to the log long before it commits.
        writer.execute("PRAGMA cache_size = 1")
        wait = waiting(watch, seen)
        assert not wait.over(within=0.1)
        writer.execute("BEGIN IMMEDIATE")
        insert = "INSERT INTO register VALUES ('mail', ?, zeroblob(5000), ?)"
        writer.executemany(insert, [(f"control/{n}", seen + 1) for n in range(20)])
        assert not wait.over(within=0.3)
        writer.execute("COMMIT")

        wait.result(within=2.0)


def test_who_holds_the_lock_does_not_make_a_watch_spin(
    store: SqliteStore, other: SqliteStore, path: Path
) -> None:
    """A process that is frozen in the middle of a commit costs the others a look now and then."""
    watch = store.watch("mail", "control/")
    seen = write(other)
    with closing(sqlite3.connect(path, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        wait = waiting(watch, seen)
        assert not wait.over(within=0.3)
        statements, began = traced(store), CLOCK.now()
        assert not wait.over(within=1.0)
        assert 2 <= statements.count("BEGIN") <= 20 * (CLOCK.now() - began) + 6
        frozen.execute("ROLLBACK")
    write(other)

    wait.result(within=2.0)


def test_the_log_goes_and_comes_again(path: Path, store: SqliteStore) -> None:
    """A fork closes the database, and with the last connection goes the log that was watched."""
    watch = store.watch("mail", "control/")
    seen = write(store)
    wait = waiting(watch, seen)
    assert not wait.over(within=0.1)
    openings = store._database._openings

    in_forked_child(lambda: None)
    assert not wait.over(within=0.1)
    assert store._database._openings == openings + 1
    with StoreProcess(f"sqlite:///{path}") as process:
        process.ask("write", key="control/a", value="1")

    wait.result(within=2.0)


def test_a_database_that_takes_the_others_place(path: Path, store: SqliteStore) -> None:
    """Whoever watches is told of what is in the new one."""
    watch = store.watch("mail", "control/")
    wait = waiting(watch, write(store))
    assert not wait.over(within=0.1)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()

    with StoreProcess(f"sqlite:///{path}") as process:
        for _ in range(3):
            process.ask("write", key="control/a", value="1")

        wait.result(within=2.0)


def test_what_was_told_before_the_look_is_no_news_after_it(path: Path) -> None:
    """A commit is several writes to the log, and all of them together are worth one look."""
    log = path.with_name(f"{path.name}-wal")
    log.touch()
    changes = Changes(path)
    assert changes.listen()
    log.write_bytes(b"1")
    assert changes.listen()
    began = CLOCK.now()

    assert not changes.wait(0.2)
    assert CLOCK.now() - began > 0.18
    log.write_bytes(b"2")
    assert not changes.wait(HOUR)


# -- what it does not -------------------------------------------------------------------------------


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no file that it has not open yet."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("begun", [False, True], ids=["none to begin with", "none to go on"])
def test_without_descriptors_it_looks_now_and_then(
    store: SqliteStore, other: SqliteStore, *, begun: bool
) -> None:
    """A process that has too many files open is told later, not never."""
    seen = write(other)
    watch = store.watch("mail", "control/")
    assert isinstance(watch, RegisterWatch)
    store.read("mail", "", deadline=within())
    if begun:
        watch.wait(seen, timeout=0.0)
    statements = traced(store)
    with no_more_files():
        assert bool(watch._changes._descriptors) is begun
        wait = waiting(watch, seen)
        assert not wait.over(within=0.2)
        write(other)
        wait.result(within=2.0)

        again = waiting(watch, write(other))
        assert not again.over(within=0.1)
        watch.wake()
        again.result(within=2.0)
    assert len(statements) < 100


def test_a_platform_without_inotify(
    store: SqliteStore, other: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has no word to give, a watch looks every so often."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    _libc.cache_clear()
    before = is_open("inotify")
    seen = write(other)
    watch = store.watch("mail", "control/")
    wait = waiting(watch, seen)
    assert not wait.over(within=0.2)
    assert is_open("inotify") == before
    write(other)

    wait.result(within=2.0)


@pytest.mark.parametrize("trouble", ["no folder", "no database"])
def test_a_store_that_is_away_ends_waits_slowly(
    path: Path, store: SqliteStore, trouble: str
) -> None:
    """A loop of waits that end with trouble costs next to nothing, and nothing is raised."""
    if trouble == "no folder":
        store = SqliteStore(path.parent / "missing" / "leader.sqlite3", clock=CLOCK)
    else:
        path.write_bytes(b"no database at all " * 1000)
    watch = store.watch("mail", "control/")
    began = CLOCK.now()
    for _ in range(3):
        watch.wait(ABSENT, timeout=HOUR)

    assert 0.5 < CLOCK.now() - began < 3.0
    watch.wake()
    watch.wait(ABSENT, timeout=HOUR)
    store.close()


# -- what it costs ----------------------------------------------------------------------------------


def traced(store: SqliteStore) -> list[str]:
    """Return a list that grows with each transaction of *store*."""
    statements: list[str] = []
    with store._database.transaction(within(), write=False) as connection:
        pass
    connection.set_trace_callback(
        lambda text: statements.append(text) if text.startswith("BEGIN") else None
    )
    return statements


@pytest.mark.parametrize("key", ["control/a", "heard"])
def test_a_busy_writer_does_not_keep_a_watch_busy(path: Path, store: SqliteStore, key: str) -> None:
    """Hundreds of commits a second are worth twenty looks, wherever they write."""
    watch = store.watch("mail", "control/")
    seen = write(store)
    with StoreProcess(f"sqlite:///{path}") as process:
        process.ask("write", key=key, value="0")
        process.begin("increment", key=key, times=100_000)
        statements, returns = traced(store), 0
        cpu, began = time.thread_time(), CLOCK.now()
        while (left := began + 1.0 - CLOCK.now()) > 0:
            watch.wait(seen, timeout=left)
            returns += 1
        took = CLOCK.now() - began
        cpu = time.thread_time() - cpu

    # Five of them may come at once; each is a look, and one more where somebody is writing.
    assert len(statements) <= 2 * (20 * took + 6)
    assert returns <= (20 * took + 6 if key == "control/a" else 1)
    assert cpu < 0.2


def test_a_watch_keeps_its_pace() -> None:
    """Some looks go through at once, then twenty a second, whether or not the caller waits."""
    clock = ManualClock()
    pace = Pace(clock)

    assert pace.pause() <= 0.05
    clock.advance(60.0)
    at_once = [pace.pause() for _ in range(5)]
    assert at_once == pytest.approx([-0.2, -0.15, -0.1, -0.05, 0.0])
    assert [pace.pause() for _ in range(3)] == pytest.approx([0.05, 0.05, 0.05])
    for _ in range(20):
        clock.advance(0.05)
        assert pace.pause() == pytest.approx(0.05)


def test_a_watch_that_is_dropped_leaves_nothing_open(store: SqliteStore) -> None:
    """Its descriptors go with it; and a watch that was never waited on has none."""
    before = is_open("inotify"), is_open("eventfd")
    watch = store.watch("mail", "control/")
    assert (is_open("inotify"), is_open("eventfd")) == before

    watch.wait(ABSENT, timeout=0.0)
    assert len(is_open("inotify")) == len(before[0]) + 1
    assert len(is_open("eventfd")) == len(before[1]) + 1
    del watch
    gc.collect()

    assert (is_open("inotify"), is_open("eventfd")) == before


def test_the_child_of_a_fork_leaves_the_descriptors_alone(store: SqliteStore) -> None:
    """It closes its copies at once, so that it neither hears for its parent nor keeps them open."""
    watch = store.watch("mail", "control/")
    watch.wait(ABSENT, timeout=0.0)
    assert is_open("inotify")

    assert in_forked_child(lambda: (is_open("inotify"), is_open("eventfd"))) == "([], [])"
    wait = waiting(watch, ABSENT)
    assert not wait.over(within=0.1)
    write(store)
    wait.result(within=2.0)


# -- greenlets --------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent("""
    import sys, threading
    from pathlib import Path
    from leader_jobs.clock import SystemClock
    from leader_jobs.stores.base import Write
    from leader_jobs.stores.sqlite import SqliteStore

    clock = SystemClock()
    store, other = (SqliteStore(Path(sys.argv[1]), clock=clock) for _ in range(2))
    watch = store.watch("mail", "control/")
    widest, over = 0.0, False

    def beat():
        global widest
        last = clock.now()
        while not over:
            sleep(0.002)
            now = clock.now()
            widest, last = max(widest, now - last), now

    def write():
        write = [Write("control/a", b"")]
        return other.commit("mail", write, candidacy=None, deadline=clock.now() + 5)

    heart = threading.Thread(target=beat)
    heart.start()
    slowest = 0.0
    for _ in range(5):
        seen = write()
        wait = threading.Thread(target=watch.wait, args=(seen,), kwargs={"timeout": 30.0})
        wait.start()
        sleep(0.1)
        if not wait.is_alive():
            sys.exit("a wait ended too soon")
        write()
        written = clock.now()
        wait.join(5)
        slowest = max(slowest, clock.now() - written)
    wait = threading.Thread(target=watch.wait, args=(write(),), kwargs={"timeout": 30.0})
    wait.start()
    sleep(0.1)
    watch.wake()
    wait.join(5)
    if wait.is_alive():
        sys.exit("a wait did not end")
    over = True
    heart.join()
    store.close()
    other.close()
    print(widest, slowest)
""")


@pytest.mark.parametrize(
    ("library", "prelude"),
    [
        ("gevent", "from gevent import monkey, sleep; monkey.patch_all()"),
        ("eventlet", "import eventlet; eventlet.monkey_patch(); sleep = eventlet.sleep"),
    ],
    ids=["gevent", "eventlet"],
)
def test_waiting_does_not_stop_other_greenlets(path: Path, library: str, prelude: str) -> None:
    """Where threads are greenlets the heart beats on, and the news is as fast."""
    if find_spec(library) is None:
        pytest.skip(f"no {library}")
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prelude + SCRIPT, str(path)],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    widest, slowest = map(float, result.stdout.split())
    assert widest < 0.3
    assert slowest < 1.0


# -- elections --------------------------------------------------------------------------------------


def test_names_that_nobody_could_have_given_are_left_out(path: Path, store: SqliteStore) -> None:
    """Somebody who writes to the file directly breaks no list."""
    write(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        names = ["", "a/b", "-", "x" * 200, "é", "a\0b", b"\xff", "mail.runners"]
        database.executemany(
            "INSERT INTO register VALUES (?, 'k', '', 1)", [(name,) for name in names]
        )

    assert store.elections(deadline=within()) == ("mail",)


def test_listing_elections_does_not_read_their_records(store: SqliteStore) -> None:
    """The cost is that of the elections, however many records each has."""
    names = tuple(sorted(f"election-{n}" for n in range(20)))

    def steps(rows: int) -> int:
        for name in names:
            writes = [Write(f"history/{n}", b"") for n in range(rows)]
            store.commit(name, writes, candidacy=None, deadline=within())
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        with store._database.transaction(within(), write=False) as connection:
            connection.set_progress_handler(step, 1)
            assert elections(connection) == names
            connection.set_progress_handler(None, 0)
        return count

    assert steps(500) < 2 * steps(1)
