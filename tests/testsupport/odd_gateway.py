"""An HTTP server that answers like etcd's gateway on a bad day, or passes requests on to a real one."""

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

__all__ = ["Answer", "OddGateway", "Question", "relay", "reply"]


@dataclass(frozen=True)
class Question:
    """A request that came in."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """
    What to send back.

    Attributes:
        status: of HTTP; 0 if *body* is all there is to send, status line and headers included.
        body: its bytes.
        drip: seconds between single bytes of the body; 0 to send it at once.
        hang_up: close the connection afterwards without having said so.
    """

    status: int
    body: bytes
    drip: float = 0.0
    hang_up: bool = False


def reply(body: object, status: int = 200, **options: Any) -> Answer:
    """Return an answer with *body* as JSON."""
    return Answer(status, json.dumps(body).encode(), **options)


def relay(target: str, question: Question) -> Answer:
    """Ask a real member the same and return its answer."""
    connection = http.client.HTTPConnection(target, timeout=10)
    try:
        connection.request("POST", question.path, json.dumps(question.body))
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


@dataclass
class OddGateway:
    """
    Answers each request with what *answer* returns; None is no answer: the connection closes.

    Attributes:
        questions: every request so far, in order.
        connections: how many connections were accepted so far.
    """

    answer: Callable[[Question], Answer | None]
    questions: list[Question] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> Self:
        gateway = self
        self._over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                gateway.connections += 1

            def do_POST(self) -> None:
                gateway._handle(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.endpoint = f"127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> list[Question]:
        """Return the requests to *path* so far."""
        return [question for question in self.questions if question.path == path]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(length))
        question = Question(handler.path, body, dict(handler.headers))
        self.questions.append(question)
        answer = self.answer(question)
        if answer is None:
            handler.close_connection = True
            return
        if answer.status:
            handler.send_response(answer.status)
            handler.send_header("Content-Length", str(len(answer.body)))
            handler.end_headers()
        self._send(handler, answer)
        handler.close_connection = handler.close_connection or answer.hang_up

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if not answer.drip:
            handler.wfile.write(answer.body)
            return
        for byte in answer.body:
            if self._over.wait(answer.drip):
                return
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                return
