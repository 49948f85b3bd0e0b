"""``run -- COMMAND`` on etcd: the guardian waits for the command, the keeper for nobody."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.faultrounds import ROUNDS
from testsupport.guarded_node import guardian_of
from testsupport.processes import Diary, children_of, time_of_death

pytestmark = [pytest.mark.etcd, pytest.mark.alone]

CLOCK = SystemClock()
#: Says that it begins, or that there are two of it; what it starts in a session of its own counts, too.
ALONE = """
trap '' TERM
flock -n "$ALONE" sh -c 'echo $$ > "$DIARY"; setsid sleep 300 & exec sleep 300' ||
echo two > "$DIARY"
"""
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True, params=range(ROUNDS), ids=lambda n: f"round-{n + 1}")
def _round() -> None:
    """Have each test run as often as is asked for."""


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Diary]:
    """What the commands write to."""
    with Diary.opened(tmp_path / "diary") as diary:
        yield diary


@pytest.fixture
def start(etcd: EtcdCluster, namespace: str, diary: Diary, tmp_path: Path) -> Iterator[Start]:
    """Starts nodes that run the command while they lead; they are killed with the test."""
    with ExitStack() as stack:

        def start_node(ttl: float = 60.0) -> "subprocess.Popen[bytes]":
            options = ["--store", etcd.url, "--namespace", namespace, "--ttl", str(ttl)]
            log = stack.enter_context((tmp_path / "log").open("ab"))
            node = subprocess.Popen(
                [sys.executable, "-m", "leader_jobs", "run", *options, "--", "sh", "-c", ALONE],
                env={**os.environ, "DIARY": str(diary.path), "ALONE": str(tmp_path / "alone")},
                stdout=log,
                stderr=log,
            )
            stack.callback(end, node)
            return node

        yield start_node


def end(node: "subprocess.Popen[bytes]") -> None:
    """End a node whatever state it is in."""
    node.kill()
    node.wait()


def keeper_of(node: "subprocess.Popen[bytes]") -> int:
    """Return the process id of the keeper of the node's command."""
    for child in children_of(node.pid):
        if b"_keeper.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    pytest.fail("the command has no keeper")


def test_the_node_is_killed(start: Start, diary: Diary) -> None:
    """The next node runs the command within a second, and never while the former one lives."""
    first = start()
    command = diary.number()
    second = start()
    wait_for_two(first, second)
    killed_at = CLOCK.now()
    death = Background(lambda: time_of_death(command))
    first.kill()

    assert diary.line() != "two"
    assert CLOCK.now() - killed_at < 1.0
    assert death.over(within=0.1)


def test_the_keeper_is_frozen_when_the_node_is_killed(start: Start, diary: Diary) -> None:
    """The guardian does not act before the command is gone, so that there are never two."""
    first = start()
    command = diary.number()
    second = start()
    wait_for_two(first, second)
    keeper = keeper_of(first)
    os.kill(keeper, signal.SIGSTOP)
    try:
        first.kill()
        assert diary.is_silent(during=1.0)
    finally:
        os.kill(keeper, signal.SIGCONT)

    assert diary.line() != "two"
    time_of_death(command, within=0.1)


def test_the_node_is_frozen(start: Start, diary: Diary) -> None:
    """The keeper kills the command at the deadline; the next node runs it when the lease is over."""
    first = start(ttl=2.0)
    command = diary.number()
    second = start(ttl=2.0)
    wait_for_two(first, second)
    death = Background(lambda: time_of_death(command))
    frozen_at = CLOCK.now()
    first.send_signal(signal.SIGSTOP)

    assert diary.line() != "two"
    assert death.over(within=0.1)
    # 1.5 s after the last renewal; the lease lasts 2 s from then.
    assert 1.5 - 0.7 - 0.1 < death.result() - frozen_at < 1.6
    first.send_signal(signal.SIGCONT)


def wait_for_two(*nodes: "subprocess.Popen[bytes]") -> None:
    """Wait until each of the nodes has a guardian: it has one as soon as it stands."""
    limit = CLOCK.now() + 10.0
    for node in nodes:
        while not guardian_of(node.pid):
            assert CLOCK.now() < limit, "a node does not stand"
