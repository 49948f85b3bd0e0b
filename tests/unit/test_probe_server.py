"""The server of probes, over real sockets: what it answers, and what it puts up with."""

import contextlib
import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from leader_jobs import probe_server
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.probe_server import ProbeServer
from leader_jobs.probes import Answer, Probes
from testsupport.background import Background
from testsupport.forking import in_forked_child
from testsupport.ports import free_port
from testsupport.probing import ask

CLOCK = SystemClock()


def no_settings() -> Settings:
    raise AssertionError


class _Serving:
    """Serves the probes of a process that stands nowhere, on a port that was free."""

    def __init__(
        self, probes: Probes | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        probes = probes or Probes(no_settings, places=tuple)
        self.server = ProbeServer(probes, host=host, port=port)
        self.server.start()
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server.port}"

    def connect(self) -> socket.socket:
        """Open a connection, and send nothing."""
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=10.0)

    def close(self) -> None:
        self.server.stop()


@pytest.fixture(name="serving")
def _serving() -> Iterator[_Serving]:
    with closing(_Serving()) as serving:
        yield serving


def spoken(connection: socket.socket, said: bytes) -> bytes:
    """Send *said*, and return all that comes back before the other side closes."""
    connection.sendall(said)
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while received := connection.recv(65536):
            heard += received
    return heard


def ask_until_served(url: str, within: float) -> int:
    """Ask again for as long as one is sent away; return the status of the first answer."""
    limit = CLOCK.now() + within
    while True:
        try:
            return ask(url, "/livez").status
        except (ConnectionResetError, http.client.BadStatusLine):
            assert CLOCK.now() < limit
            CLOCK.wait(threading.Event(), 0.05)


# -- what is answered -------------------------------------------------------------------------------


def test_get_and_head(serving: _Serving) -> None:
    """HEAD is GET without the body; a query belongs to the question."""
    got, headed = ask(serving.url, "/livez"), ask(serving.url, "/livez", method="HEAD")

    assert (got.status, got.text) == (200, "alive: stands in no election\n")
    assert (headed.status, headed.text) == (200, "")
    assert headed.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.text))
    assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert got.headers["Cache-Control"] == "no-store"
    assert "'a b'" in ask(serving.url, "/leader?election=a%20b").text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_other_methods(serving: _Serving, method: str) -> None:
    """Nothing can be changed here, and a body that is sent along changes nothing about the answer."""
    answer = ask(serving.url, "/livez", method=method, body=b"x" * 5000)

    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.text == "only GET and HEAD are answered here\n"


def test_other_paths(serving: _Serving) -> None:
    """They are told what there is."""
    for path in ("/", "/livez/", "/metrics", "/../livez"):
        assert ask(serving.url, path).status == 404
    assert "/livez, /readyz" in ask(serving.url, "/").text


@pytest.mark.parametrize(
    "said", [b"nonsense\r\n\r\n", b"GET /livez HTTP/9.9\r\n\r\n", b"\0\xff\n\n"]
)
def test_nonsense(serving: _Serving, said: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """It gets a short answer or none, nothing is printed, and the next one is answered."""
    with closing(serving.connect()) as connection:
        assert b"<html" not in spoken(connection, said).lower()

    assert ask(serving.url, "/livez").status == 200
    assert capfd.readouterr() == ("", "")


def test_a_bug_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    """A supervisor that hears nothing takes the process for dead; the log says what it was."""

    def broken() -> tuple[bytes, str]:
        msg = "broken"
        raise RuntimeError(msg)

    probes = Probes(no_settings, metrics=broken, places=tuple)
    with closing(_Serving(probes)) as serving:
        assert ask(serving.url, "/metrics").status == 500
        assert ask(serving.url, "/livez").status == 200
    assert "no answer to /metrics" in caplog.text


# -- who is slow, or many ---------------------------------------------------------------------------


@pytest.fixture(name="impatient")
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests a second to arrive, instead of two."""
    monkeypatch.setattr(probe_server, "_PATIENCE", 1.0)


@pytest.mark.usefixtures("impatient")
def test_who_sends_nothing_is_left_alone_when_time_is_up(serving: _Serving) -> None:
    """Nobody waits for it meanwhile, and bytes that trickle in do not buy more time."""
    with closing(serving.connect()) as connection:
        began = CLOCK.now()
        assert ask(serving.url, "/livez").status == 200
        assert CLOCK.now() - began < 0.9
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while CLOCK.now() - began < 5.0:
                connection.sendall(b"x")
                CLOCK.wait(threading.Event(), 0.05)
        assert 0.9 < CLOCK.now() - began < 4.0


@pytest.mark.usefixtures("impatient")
def test_many_who_send_nothing_are_not_many_threads(serving: _Serving) -> None:
    """A few are served at once, more are sent away; when time is up there is room again."""
    before = most = threading.active_count()
    with ExitStack() as stack:
        for _ in range(100):
            last = stack.enter_context(closing(serving.connect()))
        while not select.select([last], [], [], 0.01)[0]:  # until it is sent away
            most = max(most, threading.active_count())
        assert most - before <= 16
        assert ask_until_served(serving.url, within=10.0) == 200


def test_a_request_without_end_is_cut_off(serving: _Serving) -> None:
    """Its memory is bounded."""
    with closing(serving.connect()) as connection:
        heard = spoken(connection, b"GET /livez HTTP/1.1\r\n" + b"x: y\r\n" * 5000)
    assert heard == b""


# -- where it listens -------------------------------------------------------------------------------


def test_a_port_that_is_taken(serving: _Serving) -> None:
    """One sentence names the setting and the way out."""
    second = ProbeServer(Probes(no_settings), host="127.0.0.1", port=serving.server.port)
    with pytest.raises(ConfigurationError) as caught:
        second.start()

    assert f"probe_port is {serving.server.port}, and another process listens" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours(host: str) -> None:
    """One sentence names both settings and what the system says."""
    with pytest.raises(ConfigurationError, match=f"probe_host '{host}': can not listen there"):
        ProbeServer(Probes(no_settings), host=host, port=0).start()


def test_the_other_family() -> None:
    """An IPv6 address works as well."""
    with contextlib.suppress(ConfigurationError), closing(_Serving(host="::1")) as serving:
        assert ask(serving.url, "/livez").status == 200
        return
    pytest.skip("this host has no IPv6")


def test_after_its_end_the_port_is_free() -> None:
    """At once, whoever is still connected; a second stop changes nothing."""
    serving = _Serving()
    with closing(serving.connect()):
        serving.close()
        serving.close()
        with closing(_Serving(port=serving.server.port)) as again:
            assert ask(again.url, "/livez").status == 200


def test_a_child_does_not_keep_the_port(serving: _Serving) -> None:
    """A child that outlives a process that was killed would keep its successor from listening."""
    listener = serving.server._listener
    assert listener is not None
    descriptor = listener.fileno()

    assert "Bad file descriptor" in in_forked_child(lambda: os.fstat(descriptor))
    assert ask(serving.url, "/livez").status == 200


def test_a_child_that_is_born_meanwhile_does_not_hold_an_answer_up() -> None:
    """Who reads to the end of the connection gets there although a child has a copy of it."""
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> tuple[bytes, str]:
        asked.set()
        go_on.wait(10.0)
        return b"up 1\n", "text/plain"

    with closing(_Serving(Probes(no_settings, metrics=slow, places=tuple))) as serving:
        connection = serving.connect()
        heard = Background(lambda: spoken(connection, b"GET /metrics HTTP/1.0\r\n\r\n"))
        assert asked.wait(5.0)
        pid = os.fork()
        if pid == 0:
            signal.pause()
        try:
            go_on.set()
            assert heard.result().endswith(b"up 1\n")
        finally:
            connection.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# -- under green threads ----------------------------------------------------------------------------

_GREEN = """
    {patch}
    import socket, sys, threading
    from leader_jobs.probe_server import ProbeServer
    from leader_jobs.probes import Probes

    server = ProbeServer(Probes(None, places=tuple), host="127.0.0.1", port=0)
    server.start()
    beats, over = 0, False

    def beat():
        global beats
        while not over:
            beats += 1
            {sleep}(0.01)

    heart = threading.Thread(target=beat)
    heart.start()
    silent = socket.create_connection(("127.0.0.1", server.port))
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"GET /livez HTTP/1.0\\r\\n\\r\\n")
            heard = b""
            while received := connection.recv(4096):
                heard += received
            assert heard.endswith(b"alive: stands in no election\\n"), heard
    {sleep}(0.2)
    assert beats >= 10, beats
    server.stop()
    over = True
    heart.join()
    print("done")
"""
_PATCHES = {
    "gevent": ("from gevent import monkey; monkey.patch_all()", "__import__('gevent').sleep"),
    "eventlet": ("import eventlet; eventlet.monkey_patch()", "__import__('eventlet').sleep"),
}


@pytest.mark.parametrize("library", _PATCHES)
def test_under_green_threads(library: str) -> None:
    """It answers, and blocks its own greenlet alone."""
    patch, sleep = _PATCHES[library]
    program = textwrap.dedent(_GREEN).format(patch=patch, sleep=sleep)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert run.stdout == "done\n", run.stderr


def test_a_port_of_ones_choice() -> None:
    """The port that is asked for is the one that is listened on."""
    port = free_port()
    with closing(_Serving(port=port)) as serving:
        assert serving.server.port == port
        assert ask(f"http://127.0.0.1:{port}", "/livez").status == 200
        assert Answer.saying(200, "a\n b").body == b"a b\n"
