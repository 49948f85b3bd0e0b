"""Forks: gRPC does not survive them, so a child gets refusals and its parent notices nothing."""

import subprocess
import sys
import textwrap

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.stores.base import Candidacy
from testsupport.background import Background
from testsupport.etcd import EtcdCluster
from testsupport.etcd_fixtures import MakeStore

pytestmark = pytest.mark.etcd

CLOCK = SystemClock()
#: What both programs begin with: a store, and how to fork children that end as programs do.
PREAMBLE = textwrap.dedent("""
    import os
    import sys
    import threading
    from leader_jobs.clock import SystemClock
    from leader_jobs.exceptions import LeaderJobsError
    from leader_jobs.stores.base import ABSENT, Write
    from leader_jobs.stores.etcd import EtcdStore

    clock = SystemClock()
    endpoint, namespace = sys.argv[1:]

    def soon():
        return clock.now() + 5.0

    def open_store():
        return EtcdStore([endpoint], namespace=namespace, clock=clock, grpc=True)

    def attempt(call):
        try:
            return repr(call())
        except LeaderJobsError as error:
            return f"{type(error).__name__}: {error}"

    def say(*words):
        # In one piece, for several processes write here.
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def wait_for(children):
        for child in children:
            _, status = os.waitpid(child, 0)
            say("ended", os.waitstatus_to_exitcode(status))
""")
OF_A_USER = PREAMBLE + textwrap.dedent("""
    store = open_store()
    leader = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(leader, deadline=soon())
    watch = store.watch("mail", "")
    for wait in (
        lambda: store.wait(leader, standing, timeout=30.0),
        lambda: watch.wait(ABSENT, timeout=30.0),
    ):
        threading.Thread(target=wait, daemon=True).start()
    while len(store._client._streams) < 2:
        pass
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            store.wake(leader)
            say("renew", attempt(lambda: store.renew(leader, leading=True, deadline=soon())))
            say("read", attempt(lambda: store.read("mail", "", deadline=soon())))
            say("open", attempt(lambda: open_store().read("mail", "", deadline=soon())))
            store.withdraw(leader, deadline=soon())
            store.close()
            sys.exit(0)  # with all the tidying up of an interpreter that ends
        children.append(child)
    wait_for(children)
    say("parent", store.renew(leader, leading=True, deadline=soon()))
    store.commit("mail", [Write("job", b"1")], candidacy=leader, deadline=soon())
    limit = soon()
    while len(store._client._streams) > 1 and clock.now() < limit:
        pass
    say("streams", len(store._client._streams))
""")
OF_A_NEWCOMER = PREAMBLE + textwrap.dedent("""
    open_store()
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            say("read", attempt(lambda: open_store().read("mail", "", deadline=soon())))
            sys.exit(0)
        children.append(child)
    wait_for(children)
""")


def run(program: str, endpoint: str, namespace: str) -> list[str]:
    """Run a program; return the lines it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, endpoint, namespace],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_the_children_of_a_process_that_uses_grpc(etcd: EtcdCluster, namespace: str) -> None:
    """They are refused in one sentence, end as they should, and leave the parent's term alone."""
    said = run(OF_A_USER, etcd.endpoints[0], namespace)

    assert said.count("ended 0") == 6
    assert [line for line in said if line.startswith("parent")] == ["parent 30.0"]
    assert said[-1] == "streams 1"  # the commit ended the wait for records
    for call in ("read", "open"):
        lines = [line for line in said if line.startswith(call)]
        assert len(lines) == 6
        for line in lines:
            assert line.startswith(f"{call} StoreRefused: gRPC does not survive a fork")
            assert line.endswith("or reach etcd's JSON gateway by etcd://, which can do that")
    renewals = [line for line in said if line.startswith("renew")]
    assert len(renewals) == 6
    assert all("CandidacyLost" in line for line in renewals)


def test_children_that_are_the_first_to_use_it(etcd: EtcdCluster, namespace: str) -> None:
    """A parent that only opened the store, and sent nothing, has left nothing behind."""
    said = run(OF_A_NEWCOMER, etcd.endpoints[0], namespace)

    assert sorted(said) == ["ended 0"] * 3 + ["read {}"] * 3


def test_a_wait_of_the_parent_goes_on(etcd: EtcdCluster, make_store: MakeStore) -> None:
    """Starting another program, which forks on its way, wakes nobody."""
    store = make_store(etcd.endpoints)
    leader: Candidacy = store.enrol("mail", b"", 30, deadline=CLOCK.now() + 5.0)
    standing = store.standing(leader, deadline=CLOCK.now() + 5.0)
    wait = Background(lambda: store.wait(leader, standing, timeout=30.0))
    assert not wait.over(within=0.1)

    subprocess.run([sys.executable, "-c", ""], check=True, timeout=10, preexec_fn=lambda: None)

    assert not wait.over(within=0.1)
    store.wake(leader)
    wait.result(2.0)
