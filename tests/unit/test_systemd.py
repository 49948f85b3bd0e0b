"""What systemd is told, heard on a real socket; by real processes, too, that are frozen, ended, hang."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.escort import Escort
from leader_jobs.events import Renewed
from leader_jobs.probes import Answer
from leader_jobs.standing import place_of
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.systemd import Notifier, NotifySocket
from leader_jobs.vitals import Place
from testsupport import cli
from testsupport.forking import in_forked_child
from testsupport.parenthood import die_with_parent
from testsupport.processes import Diary
from testsupport.site import Site
from testsupport.systemd import Listener

CLOCK = SystemClock()
#: The loop of this process hangs from its third turn on; half a minute is half a second here.
HANGS = """
    import threading
    from leader_jobs import leader_only, positions
    from leader_jobs.claims import Claims

    positions.UNHEALTHY_AFTER = 0.5
    tick = Claims.tick

    def hang(self, now, **more):
        found = tick(self, now, **more)
        threading.Event().wait()

    Claims.tick = hang

    @leader_only(every=3600, name="tidy")
    def tidy():
        pass
"""

SLOW = """
    import time
    from leader_jobs import leader_only

    @leader_only(every=1, name="slow")
    def slow():
        with open("{diary}", "w") as diary:
            diary.write("began\\n")
        time.sleep(2.0)
"""


class _Node:
    """A place in an election, and a notifier that tells of it."""

    def __init__(self, stack: ExitStack, listener: Listener, watchdog: float | None = 0.2) -> None:
        self.store = MemoryStore(CLOCK)
        self.places: list[Place] = []
        self.trouble: str | None = None
        self.notifier = Notifier(
            NotifySocket(listener.address),
            livez=self.livez,
            watchdog=watchdog,
            places=lambda: tuple(p for p in self.places if p.candidate.standing),
        )
        self._stack = stack
        stack.callback(self.notifier.close)

    def livez(self) -> Answer:
        """Answer as ``/livez`` would."""
        return Answer.saying(200 if self.trouble is None else 503, self.trouble or "alive")

    def stand(self, election: str = "mail", ttl: float = 15.0) -> Place:
        """Have a candidate stand."""
        settings = Settings(store="memory://", ttl=ttl)
        place = place_of(
            settings, election, store=self.store, clock=CLOCK, observers=[self.notifier]
        )
        self._stack.callback(place.candidate.stop)
        self.places.append(place)
        place.candidate.start()
        return place


@pytest.fixture(name="listener", params=["abstract", "on_disk"])
def _listener(request: pytest.FixtureRequest) -> Iterator[Listener]:
    with getattr(Listener, request.param)() as listener:
        yield listener


@pytest.fixture(name="ear")
def _ear() -> Iterator[Listener]:
    with Listener.abstract() as listener:
        yield listener


@pytest.fixture(name="stack")
def _stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# -- what is said, and when -----------------------------------------------------------------------


def test_a_leader_through_its_life(listener: Listener, stack: ExitStack) -> None:
    """Nothing is ready before the store has answered; then all is said, in order, on either kind of socket."""
    node = _Node(stack, listener)
    node.notifier.start()
    assert "READY=1" not in listener.wait_for("STATUS=stands in no election yet")
    place = node.stand()
    heard = listener.wait_for("STATUS=leads election 'mail', term")
    assert "READY=1" in [*heard, *listener.drain()]
    assert "WATCHDOG=1" in listener.wait_for("WATCHDOG=1")

    place.candidate.stop()
    node.notifier.close()
    heard = listener.drain()
    assert "STOPPING=1" in heard
    assert "READY=1" not in heard


def test_a_standby_is_ready(stack: ExitStack, ear: Listener) -> None:
    """Or a rollout would wait for ever."""
    node = _Node(stack, ear)
    other = place_of(Settings(store="memory://"), "mail", store=node.store, clock=CLOCK)
    with other.candidate as first:
        first.campaign(5.0)
        node.stand()
        node.notifier.start()
        assert "READY=1" in ear.wait_for("STATUS=stands by in election 'mail', token")


def test_a_store_that_is_away_at_the_start(stack: ExitStack, ear: Listener) -> None:
    """The service is not ready until the node stands; that it tries is what is said."""
    node = _Node(stack, ear)
    node.store.cut()
    node.notifier.start()
    node.stand()
    heard = ear.wait_for("STATUS=tries to stand in election 'mail'")
    node.store.restore()
    assert "READY=1" not in heard
    assert "READY=1" in ear.wait_for("READY=1")


def test_two_elections_and_a_suspended_term(stack: ExitStack, ear: Listener) -> None:
    """Each has its part of the line; a term in doubt is said to be one."""
    node = _Node(stack, ear)
    for election in ("mail", "news"):
        node.stand(election, ttl=2.0).candidate.campaign(5.0)
    node.notifier.start()
    (status,) = [line for line in ear.wait_for("STATUS=leads") if line.startswith("STATUS")]
    assert "'mail'" in status
    assert "; leads election 'news'" in status
    node.store.cut()
    assert ear.wait_for("renewals fail, nothing new starts")


def test_nothing_is_said_twice(stack: ExitStack, ear: Listener) -> None:
    """Neither that it is ready, nor a status that has not changed; renewals wake nobody."""
    node = _Node(stack, ear, watchdog=None)
    node.stand().candidate.campaign(5.0)
    node.notifier.start()
    ear.wait_for("STATUS=leads")
    ear.drain()
    for _ in range(3):
        node.notifier(Renewed("mail", "n1", 7, 0.1, 12.0))
    assert ear.during(0.3) == []


# -- the watchdog ---------------------------------------------------------------------------------


def test_the_watchdog_is_fed_twice_in_its_time(stack: ExitStack, ear: Listener) -> None:
    """At least: the machine may be busy when it is due."""
    node = _Node(stack, ear, watchdog=1.0)
    node.notifier.start()
    ear.wait_for("WATCHDOG=1")
    began = CLOCK.now()
    ear.wait_for("WATCHDOG=1")
    ear.wait_for("WATCHDOG=1")
    assert 0.8 <= CLOCK.now() - began <= 2.0


def test_a_process_that_is_not_live_feeds_no_watchdog(
    stack: ExitStack, ear: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """It says why, in its status and once in its log, and goes on when that is over."""
    node = _Node(stack, ear)
    node.trouble = "its loop\nhas not come round"
    node.notifier.start()
    ear.wait_for("STATUS=its loop has not come round")
    assert "WATCHDOG=1" not in ear.during(0.5)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "this process is not live: its loop has not come round"
    ]
    node.trouble = None
    ear.wait_for("WATCHDOG=1")


def test_a_verdict_that_can_not_be_found(
    stack: ExitStack, ear: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """The watchdog is not fed meanwhile; the thread lives on, and the next look succeeds."""
    node = _Node(stack, ear)
    whole, node.livez = node.livez, lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    node.notifier._livez = node.livez
    node.notifier.start()
    assert ear.during(0.3) == []
    node.notifier._livez = whole
    ear.wait_for("WATCHDOG=1")
    assert "systemd could not be told" in caplog.text


@pytest.mark.parametrize(
    ("variables", "fed"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "200000"}, True),
        ({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getppid())}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
    ],
)
def test_whose_watchdog_it_is(variables: dict[str, str], fed: bool, ear: Listener) -> None:
    """A service that asks for none is fed none, nor is one of another process."""
    environ = {**ear.environ(), **variables, "LANG": "C"}
    notifier = Notifier.of_environment(environ, livez=lambda: Answer.saying(200, "alive"))
    assert notifier is not None
    assert environ == {"LANG": "C"}
    notifier.start()
    ear.wait_for("STATUS=")
    assert ("WATCHDOG=1" in ear.during(0.4)) is fed
    notifier.close()


# -- where there is nobody to tell ----------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "notify"])
def test_no_socket_of_this_host(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is told; an address of another kind is in the log."""
    environ = {"NOTIFY_SOCKET": address}
    assert Notifier.of_environment(environ, livez=lambda: Answer.saying(200, "")) is None
    assert (repr(address) in caplog.text) is bool(address)


@pytest.mark.parametrize("address", ["/nowhere/notify", f"@{'x' * 300}", "/with\0null"])
def test_a_socket_that_is_not_there(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised, and it is complained of once."""
    listener = NotifySocket(address)
    assert [listener.send("READY=1") for _ in range(3)] == [False] * 3
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1
    listener.close()


def test_a_socket_that_comes_back(stack: ExitStack) -> None:
    """What could not be delivered is told again: systemd is not left to wait for it."""
    with Listener.on_disk() as gone:
        Path(gone.address).unlink()
        node = _Node(stack, gone)
        node.stand().candidate.campaign(5.0)
        node.notifier.start()
        CLOCK.wait(threading.Event(), 0.3)
        gone.close()
        back = Listener(gone.address)
        assert "READY=1" in back.wait_for("READY=1")
        back.close()


def test_who_does_not_read_holds_up_nothing(stack: ExitStack, ear: Listener) -> None:
    """A queue that is full costs messages."""
    socket = NotifySocket(ear.address)
    stack.callback(socket.close)
    sent = [socket.send("WATCHDOG=1") for _ in range(5000)]
    assert sent[0] is True
    assert sent[-1] is False


def test_the_child_of_a_fork_says_nothing(stack: ExitStack, ear: Listener) -> None:
    """Neither of itself nor in its parent's name."""
    node = _Node(stack, ear, watchdog=None)
    node.notifier.start()
    ear.wait_for("STATUS=")

    def end() -> str:
        node.notifier.leave()
        node.notifier.close()
        return "ended"

    assert in_forked_child(end) == "'ended'"
    assert ear.during(0.2) == []


# -- what goes along with a process ---------------------------------------------------------------


def test_the_company_of_a_process(monkeypatch: pytest.MonkeyPatch, ear: Listener) -> None:
    """It tells systemd, once, and hides the socket from what the process starts; or leaves all that to others."""
    settings = Settings(store="memory://company")
    for name, value in ear.environ(watchdog=0.2).items():
        monkeypatch.setenv(name, value)
    with Escort(settings, serve=False), Escort(settings, notify=False):
        assert ear.during(0.1) == []
        assert "NOTIFY_SOCKET" in os.environ
    with Escort(settings) as company:
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
        ear.wait_for("WATCHDOG=1")
        company.leave()
        ear.wait_for("STOPPING=1")
    assert "STOPPING=1" not in ear.drain()


# -- real processes -------------------------------------------------------------------------------


def test_runleader_frozen_thawed_and_ended(tmp_path: Path, ear: Listener) -> None:
    """It feeds the watchdog while it runs; SIGTERM is answered at once, though a job has to end first."""
    with ExitStack() as stack:
        diary = stack.enter_context(Diary.opened(tmp_path / "diary"))
        site = Site(tmp_path, SLOW.format(diary=diary.path))
        node = stack.enter_context(site.running("runleader", **ear.environ(watchdog=0.5)))
        assert "READY=1" in ear.wait_for("STATUS=leads election 'default', term")
        ear.wait_for("WATCHDOG=1")
        node.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, node.process.pid, os.WSTOPPED | os.WNOWAIT)
        ear.drain()
        assert ear.during(1.0) == []
        node.process.send_signal(signal.SIGCONT)
        ear.wait_for("WATCHDOG=1")
        assert diary.line() == "began"
        node.process.terminate()
        ear.wait_for("STOPPING=1", within=1.0)
        assert node.process.poll() is None
        assert node.finish()[0] == 0


def test_a_loop_that_hangs(tmp_path: Path, ear: Listener) -> None:
    """The leader holds its lease, is not live, and feeds its watchdog no more."""
    with Site(tmp_path, HANGS).running("runleader", **ear.environ(watchdog=0.5)):
        ear.wait_for("STATUS=election 'default': node")
        ear.drain()
        assert "WATCHDOG=1" not in ear.during(1.2)


def test_commands_do_not_know_of_the_socket(tmp_path: Path, ear: Listener) -> None:
    """Neither that under ``runleader -- CMD`` nor hooks: they can not speak in its name."""
    with Diary.opened(tmp_path / "diary") as diary:
        show = f"sh -c 'env | grep -c -e NOTIFY_SOCKET -e WATCHDOG >{diary.path}'"
        command = f"env | grep -c -e NOTIFY_SOCKET -e WATCHDOG >{diary.path}; sleep 60"
        arguments = ("--store", f"sqlite:///{tmp_path}/e.sqlite3", "--on-elected", show)
        with subprocess.Popen(
            [*cli.COMMAND, "run", *arguments, "--", "sh", "-c", command],
            env=cli.environ(**ear.environ(watchdog=5.0)),
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
        ) as process:
            assert "READY=1" in ear.wait_for("READY=1")
            assert (diary.line(), diary.line()) == ("0", "0")
            process.terminate()
            ear.wait_for("STOPPING=1")
            assert process.wait(15.0) == 0
