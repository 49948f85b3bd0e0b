"""Real processes on one embedded store: killed, frozen, forked, started all at once."""

import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import CandidacyLost, Fenced, StoreUnavailable, StoreUnusable
from testsupport.store_process import StoreProcess

Start = Callable[..., StoreProcess]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "leader.sqlite3"


@pytest.fixture(name="start")
def _start(path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(StoreProcess(f"sqlite:///{path}", **options))


def enrolled(start: Start, ttl: float = 30.0) -> StoreProcess:
    """Start a process that stands under a lease of *ttl* seconds."""
    process = start()
    process.ask("enrol", ttl=ttl)
    return process


def test_a_killed_leader_is_succeeded_at_once(start: Start) -> None:
    """The kernel tells of the death of a process long before its lease runs out."""
    clock = SystemClock()
    line = [enrolled(start) for _ in range(6)]
    gaps = []
    for leader, next_in_line in pairwise(line):
        assert leader.ask("leads")
        next_in_line.begin("lead")
        killed_at = clock.now()
        leader.kill()
        gaps.append(next_in_line.answer() - killed_at)

    assert statistics.median(gaps) < 0.3
    assert max(gaps) < 5.0


def test_a_killed_standby_is_passed_over(start: Start) -> None:
    """Whoever follows a dead standby waits for the leader before it."""
    leader, standby, last = (enrolled(start) for _ in range(3))
    standby.kill()
    standby.wait_gone()

    assert not last.ask("leads")
    last.begin("lead")
    leader.kill()

    last.answer()


def test_a_frozen_leader_is_superseded_and_fenced(start: Start) -> None:
    """After its lease nobody waits for a frozen leader, and when it wakes it can do no harm."""
    leader = enrolled(start, ttl=1.0)
    leader.ask("write", key="record", value="before", fenced=True)
    successor = enrolled(start)
    leader.freeze()
    successor.ask("lead")
    successor.ask("write", key="record", value="after", fenced=True)
    leader.thaw()

    with pytest.raises(Fenced):
        leader.ask("write", key="record", value="zombie", fenced=True)
    with pytest.raises(CandidacyLost):
        leader.ask("renew")
    assert successor.ask("read") == {"record": "after"}
    assert successor.ask("leads")


def test_a_leader_that_slept_past_its_lease_is_lost_without_a_successor(start: Start) -> None:
    """An expired lease is not revived by renewing it late, even if nobody took the place."""
    leader = enrolled(start, ttl=0.5)
    leader.freeze()
    observer = start()
    while observer.ask("tokens"):
        pass
    leader.thaw()

    with pytest.raises(Fenced):
        leader.ask("write", key="record", value="zombie", fenced=True)
    with pytest.raises(CandidacyLost):
        leader.ask("renew")


def test_a_withdrawn_leader_is_succeeded_at_once(start: Start, path: Path) -> None:
    """A planned hand-over takes no lease either, and leaves no file behind."""
    leader, successor = enrolled(start), enrolled(start)
    successor.begin("lead")
    leader.ask("withdraw")
    successor.answer()
    successor.ask("withdraw")

    assert list(path.with_name(f"{path.name}-candidates").iterdir()) == []


def test_a_fork_of_a_killed_leader_does_not_hold_its_place(start: Start) -> None:
    """A child that outlives its parent has not inherited the parent's lock."""
    clock = SystemClock()
    leader, successor = enrolled(start), enrolled(start)
    child = leader.fork()
    successor.begin("lead")
    killed_at = clock.now()
    leader.kill()

    assert successor.answer() - killed_at < 5.0
    assert child.ask("tokens")


def test_a_fork_owns_nothing_of_its_parent(start: Start) -> None:
    """The child can neither renew nor withdraw the parent's candidacy, not even by ending."""
    parent = enrolled(start)
    child = parent.fork()

    with pytest.raises(CandidacyLost):
        child.ask("renew")
    child.ask("withdraw")
    child.begin("exit")
    child.wait_gone()

    assert enrolled(start).ask("leads") is False
    parent.ask("renew")
    assert parent.ask("leads")


def test_a_fork_stands_on_its_own(start: Start) -> None:
    """The child enrols behind its parent, and leads when the parent dies."""
    parent = enrolled(start)
    child = parent.fork()
    child.ask("enrol")
    assert not child.ask("leads")
    child.begin("lead")
    parent.kill()

    child.answer()


def test_a_multiprocessing_child_ends_without_harm(start: Start) -> None:
    """What multiprocessing does at the end of a child leaves the parent's candidacy alone."""
    parent = enrolled(start)
    parent.ask("run_multiprocessing_child")

    assert not enrolled(start).ask("leads")
    parent.ask("renew")


def test_what_a_fork_commits_survives_its_parents_end(start: Start) -> None:
    """
    The parent, closing the database, does not take the log away that its child writes to.

    It does with connections that were open during the fork: SQLite in the child then takes no locks
    of its own, and every later commit of the child is lost.
    """
    parent = enrolled(start)
    child = parent.fork()
    child.ask("write", key="first", value="1")
    parent.ask("close")
    child.ask("write", key="second", value="2")

    assert start().ask("read") == {"first": "1", "second": "2"}


def test_forks_in_the_middle_of_commits_lose_nothing(start: Start) -> None:
    """Threads that commit and forks that happen meanwhile neither hang nor lose a count."""
    process = start()
    process.ask("fork_while_counting", key="count", times=100, threads=3, forks=20)

    assert start().ask("read") == {"count": str(3 * 100 + 20)}


def test_processes_that_start_at_once_make_one_database(start: Start) -> None:
    """Twenty processes find no database, and all of them stand in the same election."""
    processes = [start() for _ in range(20)]
    for process in processes:
        process.begin("enrol")
    tokens = [process.answer()["token"] for process in processes]

    assert len(set(tokens)) == 20
    assert processes[0].ask("tokens") == sorted(tokens)
    assert sum(process.ask("leads") for process in processes) == 1


def test_guarded_commits_lose_no_increment(start: Start) -> None:
    """Eight processes count up one record and none overwrites the count of another."""
    processes = [start() for _ in range(8)]
    for process in processes:
        process.begin("increment", key="count", times=50)
    for process in processes:
        process.answer()

    assert processes[0].ask("read") == {"count": "400"}


def test_waiting_does_not_stop_other_greenlets(path: Path) -> None:
    """Under gevent, one greenlet waits for its turn while another goes on."""
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent
from pathlib import Path
from leader_jobs.clock import SystemClock
from leader_jobs.stores.sqlite import SqliteStore
clock = SystemClock()
store = SqliteStore(Path({str(path)!r}), clock=clock)
leader, standby = (store.enrol("mail", b"", 30.0, deadline=clock.now() + 5) for _ in range(2))
standing = store.standing(standby, deadline=clock.now() + 5)
waiting = gevent.spawn(store.wait, standby, standing, timeout=30.0)
for _ in range(100):
    gevent.sleep(0.001)
assert not waiting.dead
store.withdraw(leader, deadline=clock.now() + 5)
waiting.join(5)
assert waiting.dead
assert store.standing(standby, deadline=clock.now() + 5).leads
store.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def in_private_mount(tmp_path: Path, mount: str) -> tuple[str, ...]:
    """Return the command that runs another with *mount* done in a mount namespace of its own."""
    namespace = ("unshare", "--map-root-user", "--mount")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting is not allowed here")
    return (*namespace, "sh", "-c", f'{mount} && exec "$@"', str(tmp_path))


def test_a_full_disk_is_reported_and_nothing_is_half_written(path: Path, start: Start) -> None:
    """A commit that does not fit changes nothing, says so, and smaller ones work again."""
    mount = f"mount -t tmpfs -o size=512k none '{path.parent}'"
    process = start(prefix=in_private_mount(path.parent, mount))
    process.ask("write", key="record", value="small")

    with pytest.raises(StoreUnavailable, match="make room"):
        process.ask("write", key="record", value="x" * 600_000)
    assert process.ask("read") == {"record": "small"}
    process.ask("write", key="record", value="again")
    assert process.ask("read") == {"record": "again"}


def test_a_read_only_folder_is_reported(path: Path, start: Start) -> None:
    """A database that can not be made is an error that names the folder."""
    folder = path.parent
    mount = f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"
    process = start(prefix=in_private_mount(folder, mount))

    with pytest.raises(StoreUnusable, match=f"may not write to {folder}"):
        process.ask("enrol")
