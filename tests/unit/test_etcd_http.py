"""Calls to the gateway on its bad days, replayed by a real HTTP server."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import StoreRefused, StoreUnavailable
from leader_jobs.stores import _etcd_wire as wire
from leader_jobs.stores._etcd_answers import Refusal
from leader_jobs.stores._etcd_client import Client
from leader_jobs.stores._etcd_http import HttpTransport
from leader_jobs.stores._etcd_login import Credentials, parse_endpoints
from leader_jobs.stores._etcd_socket import Connection
from testsupport.background import Background
from testsupport.odd_gateway import Answer, OddGateway, Question, reply

CLOCK = SystemClock()
HEADER = {"member_id": "1", "raft_term": "2", "revision": "7"}
FINE = reply({"header": HEADER})


class Connect(Protocol):
    """Makes a client on endpoints, closed with the test; each try may take 0.3 s."""

    def __call__(self, *endpoints: str, **options: Any) -> Client: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return how to make a client."""
    with ExitStack() as stack:

        def make(*endpoints: str, **options: Any) -> Client:
            timeout = options.pop("call_timeout", 0.3)
            transport = HttpTransport(clock=CLOCK, tls=options.pop("tls", None))
            client = Client(
                parse_endpoints(endpoints), transport, clock=CLOCK, call_timeout=timeout, **options
            )
            stack.callback(client.close)
            return client

        yield make


def ask(client: Client, *, seconds: float = 2.0, repeatable: bool = True) -> wire.RangeReply:
    """Read a key."""
    deadline = CLOCK.now() + seconds
    return client.call(
        wire.RANGE, wire.get(b"k"), wire.read_range, deadline=deadline, repeatable=repeatable
    )


def idle(client: Client) -> list[Connection]:
    """Return the connections that wait for the next call."""
    assert isinstance(client._transport, HttpTransport)
    return [connection for group in client._transport._idle.values() for connection in group]


def one_after_another(*answers: Answer | None) -> Callable[[Question], Answer | None]:
    """Give these answers in turn, the last one again and again."""
    queue = list(answers)
    return lambda _: queue.pop(0) if len(queue) > 1 else queue[0]


def closed_endpoint() -> str:
    """Return an endpoint where nobody listens any more."""
    with OddGateway(lambda _: FINE) as server:
        return server.endpoint


@pytest.mark.parametrize(
    "body",
    [
        {"error": "etcdserver: bad", "message": "etcdserver: bad", "code": 3},
        {"code": 3, "message": "etcdserver: bad"},
        {"error": {"grpc_code": 3, "message": "etcdserver: bad"}},
        {"error": {"code": 3, "message": "etcdserver: bad"}},
    ],
)
@pytest.mark.parametrize("status", [200, 400, 503])
def test_a_refusal_is_known_by_its_grpc_code(connect: Connect, body: object, status: int) -> None:
    """In every layout and under any HTTP status; it is not asked again."""
    with OddGateway(lambda _: reply(body, status)) as server:
        with pytest.raises(Refusal, match="etcdserver: bad") as caught:
            ask(connect(server.endpoint))

        assert caught.value.code == 3
        assert len(server.questions) == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        reply({"code": 14, "message": "etcdserver: leader changed"}, 503),
        reply({"code": 4, "message": "context deadline exceeded"}, 504),
        Answer(200, b"<html>it works</html>"),
        Answer(200, b""),
        Answer(502, b"bad gateway"),
        reply({"kvs": []}),
        reply(["header"]),
    ],
    ids=["lost", "leader changed", "late", "page", "empty", "502", "no header", "list"],
)
def test_no_good_answer(connect: Connect, answer: Answer | None) -> None:
    """A repeatable call is repeated until it is answered; another one is not: it may have worked."""
    with OddGateway(one_after_another(answer, FINE)) as server:
        assert ask(connect(server.endpoint)).header.revision == 7
        assert len(server.questions) == 2

    with OddGateway(one_after_another(answer, FINE)) as server:
        with pytest.raises(StoreUnavailable):
            ask(connect(server.endpoint), repeatable=False)
        assert len(server.questions) == 1


def test_the_next_endpoint_answers(connect: Connect) -> None:
    """A member that gives no answer is left, and stays left."""
    with OddGateway(lambda _: None) as broken, OddGateway(lambda _: FINE) as sound:
        client = connect(broken.endpoint, sound.endpoint)
        for _ in range(3):
            ask(client)

        assert len(broken.questions) == 1
        assert len(sound.questions) == 3


def test_a_call_that_was_not_sent_moves_on(connect: Connect) -> None:
    """Where no connection can be opened nothing was sent, so any call may go elsewhere."""
    with OddGateway(lambda _: FINE) as sound:
        client = connect(closed_endpoint(), sound.endpoint)

        assert ask(client, repeatable=False).header.revision == 7


def test_unavailable_says_who_was_tried(connect: Connect) -> None:
    """The message names each endpoint, what was wrong there, and how long it was tried."""
    closed = closed_endpoint()
    with (
        OddGateway(lambda _: reply({"code": 14, "message": "no leader"}, 503)) as server,
        pytest.raises(StoreUnavailable) as caught,
    ):
        ask(connect(closed, server.endpoint), seconds=0.4)

    message = str(caught.value)
    assert f"{closed}: connection refused" in message
    assert f"{server.endpoint}: no leader" in message
    assert "within 0.4 s" in message


def test_a_name_that_does_not_resolve(connect: Connect) -> None:
    """An unknown host is no reason to crash."""
    with pytest.raises(StoreUnavailable, match=r"nowhere\.invalid:2379"):
        ask(connect("nowhere.invalid"), seconds=0.3)


def test_a_deadline_in_the_past(connect: Connect) -> None:
    """Nothing is sent when it is too late already."""
    with OddGateway(lambda _: FINE) as server:
        with pytest.raises(StoreUnavailable, match="not asked"):
            ask(connect(server.endpoint), seconds=-1.0)

        assert server.questions == []


def test_a_slow_drip_does_not_outlast_the_deadline(connect: Connect) -> None:
    """A byte now and then restarts a socket's own timeout; the deadline holds all the same."""
    with OddGateway(lambda _: reply({"header": HEADER}, drip=0.1)) as server:
        began = CLOCK.now()
        with pytest.raises(StoreUnavailable, match="timed out"):
            ask(connect(server.endpoint), seconds=0.8)

        assert CLOCK.now() - began < 1.2
        assert len(server.questions) >= 2


def test_a_drip_of_headers_does_not_either(connect: Connect) -> None:
    """The status line may trickle in as well."""
    raw = Answer(0, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", drip=0.1)
    with OddGateway(lambda _: raw) as slow:
        began = CLOCK.now()
        with pytest.raises(StoreUnavailable):
            ask(connect(slow.endpoint), seconds=10.0, repeatable=False)

    assert CLOCK.now() - began < 1.0


def test_connections_are_used_again(connect: Connect) -> None:
    """Calls one after another share one connection."""
    with OddGateway(lambda _: FINE) as server:
        client = connect(server.endpoint)
        for _ in range(5):
            ask(client)

        assert server.connections == 1


def test_threads_have_connections_of_their_own(connect: Connect) -> None:
    """Calls at the same time do not wait for each other; few connections are kept."""
    barrier = threading.Barrier(8)

    def together(_: Question) -> Answer:
        barrier.wait(5.0)
        return FINE

    with OddGateway(together) as server:
        client = connect(server.endpoint, call_timeout=5.0)
        calls = [Background(lambda: ask(client, seconds=5.0)) for _ in range(8)]
        for call in calls:
            call.result()

        assert server.connections == 8
        assert len(idle(client)) == 4


def test_a_call_under_way_at_the_close(connect: Connect) -> None:
    """It gets its answer, and its connection is closed, not kept for a next call."""
    asked, go_on = threading.Event(), threading.Event()

    def hold(_: Question) -> Answer:
        asked.set()
        go_on.wait(5.0)
        return FINE

    with OddGateway(hold) as server:
        client = connect(server.endpoint, call_timeout=5.0)
        call = Background(lambda: ask(client, seconds=5.0))
        assert asked.wait(5.0)
        client.close()
        go_on.set()

        assert call.result().header.revision == 7
        assert idle(client) == []


def test_an_idle_connection_that_was_closed_is_replaced(connect: Connect) -> None:
    """A call that must not be repeated does not stumble over yesterday's connection."""
    with OddGateway(lambda _: reply({"header": HEADER}, hang_up=True)) as server:
        client = connect(server.endpoint)
        ask(client)
        (connection,) = idle(client)
        limit = CLOCK.now() + 5.0
        while not connection.stale():
            assert CLOCK.now() < limit

        assert ask(client, repeatable=False).header.revision == 7
        assert server.connections == 2


def test_the_proxy_of_the_environment_is_ignored(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster is not reached through the web proxy of the site."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{closed_endpoint()}")
    with OddGateway(lambda _: FINE) as server:
        assert ask(connect(server.endpoint)).header.revision == 7


# Explanations


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (Answer(404, b"404 page not found\n"), "--enable-grpc-gateway"),
        (Answer(400, b"Client sent an HTTP request to an HTTPS server.\n"), "etcds://"),
        (Answer(400, b"CommonName of client sending a request will be ignored"), "without one"),
        (reply({"code": 7, "message": "etcdserver: permission denied"}, 403), "permission denied"),
        (reply({"code": 3, "message": "etcdserver: user name is empty"}, 400), "set user"),
    ],
    ids=["no gateway", "TLS", "CommonName", "permission", "login"],
)
def test_a_refusal_says_what_to_do(connect: Connect, answer: Answer, advice: str) -> None:
    """One line that helps, even where the server's own answer is not JSON."""
    with OddGateway(lambda _: answer) as server:
        with pytest.raises(StoreRefused, match=advice) as caught:
            ask(connect(server.endpoint))

        assert "\n" not in str(caught.value)
        assert len(server.questions) == 1


# Login


class Guard:
    """A server's side of logins: accepts the token it gave out last."""

    def __init__(self, *, rejection: Answer) -> None:
        self.logins = 0
        self.valid = True
        self.rejection = rejection

    def __call__(self, question: Question) -> Answer:
        """Answer logins with a new token and everything else only with that one."""
        if question.path == wire.AUTHENTICATE:
            self.logins += 1
            return reply({"header": HEADER, "token": f"token.{self.logins}"})
        token = question.headers.get("Authorization")
        return FINE if self.valid and token == f"token.{self.logins}" else self.rejection


REJECTIONS = [
    reply({"code": 16, "message": "etcdserver: invalid auth token"}, 401),
    reply({"code": 3, "message": "etcdserver: user name is empty"}, 400),
    reply({"code": 3, "message": "etcdserver: revision of auth store is old"}, 400),
]
APP = Credentials("app", "hush-hush")


@pytest.mark.parametrize("rejection", REJECTIONS, ids=["expired", "unknown", "old"])
@pytest.mark.parametrize("repeatable", [True, False])
def test_an_expired_token_is_renewed(
    connect: Connect, rejection: Answer, *, repeatable: bool
) -> None:
    """A member that knows the token no more makes the client log in and ask again."""
    guard = Guard(rejection=rejection)
    with OddGateway(guard) as server:
        client = connect(server.endpoint, credentials=APP)
        ask(client)
        guard.logins += 1  # as if the token had been replaced

        ask(client, repeatable=repeatable)

        assert len(server.asked(wire.AUTHENTICATE)) == 2


def test_a_token_is_renewed_once_per_call(connect: Connect) -> None:
    """A server that rejects every token is not asked for ever."""
    guard = Guard(rejection=REJECTIONS[0])
    guard.valid = False
    with OddGateway(guard) as server:
        client = connect(server.endpoint, credentials=APP)
        with pytest.raises(StoreRefused, match="just given out"):
            ask(client)

        assert len(server.asked(wire.AUTHENTICATE)) == 2
        assert len(server.asked(wire.RANGE)) == 2


def test_threads_share_a_login(connect: Connect) -> None:
    """A login costs the server dearly, so eight threads need one."""
    with OddGateway(Guard(rejection=REJECTIONS[0])) as server:
        client = connect(server.endpoint, credentials=APP)
        calls = [Background(lambda: ask(client)) for _ in range(8)]
        for call in calls:
            call.result()

        assert len(server.asked(wire.AUTHENTICATE)) == 1


def test_a_wrong_password(connect: Connect) -> None:
    """The message names the user, the server's words, and no password."""
    no = reply({"code": 3, "message": "etcdserver: authentication failed, invalid user ID"}, 400)
    with (
        OddGateway(lambda _: no) as server,
        pytest.raises(StoreRefused, match=r"'app'.*authentication failed") as caught,
    ):
        ask(connect(server.endpoint, credentials=APP))

    assert "hush-hush" not in str(caught.value)


def test_a_password_file_that_is_missing(connect: Connect, tmp_path: Path) -> None:
    """It may be back at the next try, so it is a refusal of this call and nothing worse."""
    with OddGateway(lambda _: FINE) as server:
        client = connect(server.endpoint, credentials=Credentials("app", None, tmp_path / "gone"))
        with pytest.raises(StoreRefused, match="gone"):
            ask(client)

        assert server.questions == []


def test_authentication_that_is_not_enabled(connect: Connect) -> None:
    """Credentials for a server that wants none are no obstacle."""

    def answer(question: Question) -> Answer:
        if question.path == wire.AUTHENTICATE:
            return reply({"code": 9, "message": "etcdserver: authentication is not enabled"}, 412)
        return FINE

    with OddGateway(answer) as server:
        assert ask(connect(server.endpoint, credentials=APP)).header.revision == 7
