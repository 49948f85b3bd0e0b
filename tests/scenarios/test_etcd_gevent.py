"""Under gevent's monkey-patching the store blocks its own greenlet and nobody else's."""

import socket
import subprocess
import sys
import textwrap

import pytest

from testsupport.etcd import EtcdCluster

pytestmark = pytest.mark.etcd

pytest.importorskip("gevent")

SCRIPT = textwrap.dedent("""
    from gevent import monkey
    monkey.patch_all()

    import sys
    import threading
    import gevent
    from leader_jobs.clock import SystemClock
    from leader_jobs.exceptions import StoreUnavailable
    from leader_jobs.stores.base import Write
    from leader_jobs.stores.etcd import EtcdStore

    clock = SystemClock()
    store = EtcdStore([sys.argv[1]], namespace=sys.argv[2], clock=clock)
    silent = EtcdStore([sys.argv[3]], namespace=sys.argv[2], clock=clock, call_timeout=0.5)
    widest, over = 0.0, False

    def beat():
        global widest
        last = clock.now()
        while not over:
            gevent.sleep(0.002)
            now = clock.now()
            widest, last = max(widest, now - last), now

    heart = gevent.spawn(beat)
    soon = lambda: clock.now() + 5
    leader = store.enrol("mail", b"", 30, deadline=soon())
    waiter = store.enrol("mail", b"", 30, deadline=soon())
    standing = store.standing(waiter, deadline=soon())
    wait = threading.Thread(target=store.wait, args=(waiter, standing), kwargs={"timeout": 30.0})
    woken = threading.Thread(
        target=store.wait,
        args=(leader, store.standing(leader, deadline=soon())),
        kwargs={"timeout": 30.0},
    )
    watch = store.watch("mail", "control/")
    watching = threading.Thread(target=watch.wait, args=(0,), kwargs={"timeout": 30.0})
    wait.start()
    woken.start()
    watching.start()
    for number in range(50):
        store.renew(leader, leading=True, deadline=soon())
        store.commit("mail", [Write("job", b"%d" % number)], candidacy=leader, deadline=soon())
    try:
        silent.read("mail", "", deadline=clock.now() + 1)
    except StoreUnavailable:
        pass
    else:
        sys.exit("a server that says nothing answered")
    store.wake(leader)
    woken.join(5)
    store.commit("mail", [Write("control/a", b"")], candidacy=leader, deadline=soon())
    watching.join(5)
    store.withdraw(leader, deadline=soon())
    wait.join(5)
    if woken.is_alive() or watching.is_alive() or wait.is_alive():
        sys.exit("a wait did not end")
    if not store.standing(waiter, deadline=soon()).leads:
        sys.exit("the waiter does not lead")
    over = True
    heart.join()
    store.close()
    silent.close()
    print(widest)
""")


def test_the_hub_goes_on(etcd: EtcdCluster, namespace: str) -> None:
    """Calls, waits, wake-ups and a server that says nothing: the heart beats all the time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"127.0.0.1:{listener.getsockname()[1]}"
        arguments = [etcd.endpoints[0], namespace, silent]
        result = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT, *arguments],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    # One blocked call would have stopped it for the 0.5 s of a try at least.
    assert float(result.stdout) < 0.3
