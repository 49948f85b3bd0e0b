"""The nodes of a peer, as processes to be killed, stopped, frozen and looked at."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from benchmarks.beat.broker import Recorder
from benchmarks.beat.peers import Peer
from testsupport.parenthood import die_with_parent

__all__ = ["PYTHON", "Fleet", "Node", "awaited", "wait_until"]

_T = TypeVar("_T")
_ROOT: Final = Path(__file__).parents[2]
#: The interpreter of the virtual environment in which the peers are installed.
PYTHON: Final = Path(os.environ.get("BEAT_PYTHON", _ROOT / ".cache/bench-celery/bin/python"))
_READY_WITHIN: Final = 60.0
_FIRST_WITHIN: Final = 20.0
_SPELL: Final = 0.5
_IDLE: Final = 0.02


def wait_until(moment: float) -> None:
    """Wait until *moment* of the wall clock."""
    while (left := moment - time.time()) > 0:
        time.sleep(left)


def awaited(look: Callable[[], _T | None], within: float) -> _T | None:
    """Return the first true result of *look*; None if there is none *within* so many seconds."""
    limit = time.monotonic() + within
    while not (found := look()) and time.monotonic() < limit:
        time.sleep(0.01)
    return found


class Node:
    """
    One node: a process and whatever it starts.

    Args:
        name: its name.
        command: what to run.
        environment: with which environment.
        log: the file for its output.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
            )
        self._pids = {self._process.pid}

    def tree(self) -> set[int]:
        """Return the processes of the node that are there now: those of its session."""
        found = {pid for pid, session, _ in _processes() if session == self._process.pid}
        self._pids |= found
        return found

    def pids(self) -> set[int]:
        """Return every process of the node that was ever seen, the dead ones included."""
        self.tree()
        return self._pids

    @property
    def alive(self) -> bool:
        """Whether its first process is there."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to end, as a supervisor does."""
        self._process.terminate()

    def kill(self) -> None:
        """End all of it at once; until nothing is left of it."""
        while tree := self.tree():
            self._signal(tree, signal.SIGKILL)
            self._process.poll()
        self._process.wait()

    def freeze(self) -> None:
        """Stop all of it."""
        self._signal(self.tree(), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all of it go on."""
        self._signal(self.tree(), signal.SIGCONT)

    @staticmethod
    def _signal(pids: set[int], number: signal.Signals) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @property
    def is_stopped(self) -> bool:
        """Whether one of its processes is stopped."""
        return any(
            session == self._process.pid and state == "T" for _, session, state in _processes()
        )

    def processor_time(self) -> float:
        """Return the processor time that all of it has used so far, in seconds."""
        total = 0.0
        for pid in self.tree():
            with suppress(OSError):  # gone meanwhile
                total += time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED of that process
        return total

    def memory(self) -> float:
        """Return the resident memory of all of it, in MB."""
        pages = 0
        for pid in self.tree():
            with suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def wait_idle(self) -> None:
        """Wait until it has started: it uses next to no processor time any more."""
        limit = time.monotonic() + _READY_WITHIN
        used = 0.0
        while time.monotonic() < limit:
            time.sleep(_SPELL)
            before, used = used, self.processor_time()
            if before > _IDLE and used - before < _IDLE:
                return
        msg = f"{self.name} is still busy; its output is in {self.log}"
        raise RuntimeError(msg)


def _processes() -> list[tuple[int, int, str]]:
    """Return the process id, session and state of every process that is no zombie."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found.append((int(stat.parent.name), int(fields[3]), fields[0]))
    return found


class Fleet:
    """
    Nodes of one peer on one broker.

    Args:
        peer: what to run.
        entries: how many entries of each rhythm (``second``, ``minute``, ``hour``).
        recorder: who takes their messages.
        places: what to put for ``{redis}``, ``{store}`` and ``{folder}``.
    """

    def __init__(
        self,
        peer: Peer,
        entries: Mapping[str, int],
        *,
        recorder: Recorder,
        places: Mapping[str, str],
    ) -> None:
        self.peer = peer
        self.entries = entries
        self.nodes: list[Node] = []
        self._recorder = recorder
        self._places = places
        self._folder = Path(places["folder"])
        self._trap = self._folder / "trap"
        self._names = count()

    def __enter__(self) -> Self:
        if self.peer.django:
            command = [str(PYTHON), "-m", "benchmarks.beat.app"]
            environment = self._environment(dict(self._places, node="none"))
            subprocess.run(command, cwd=_ROOT, env=environment, check=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for node in self.nodes:
            node.kill()
            if kind is not None:
                tail = node.log.read_text(errors="replace")[-1500:]
                print(f"{self.peer.name}, {node.name} said:\n{tail}", file=sys.stderr)

    def start(self, nodes: int) -> None:
        """Start *nodes*, the first of them with a head start, so that it leads."""
        self.add().wait_idle()
        for node in [self.add() for _ in range(nodes - 1)]:
            node.wait_idle()

    def add(self) -> Node:
        """Start one more node."""
        places = dict(self._places, node=f"node{next(self._names)}")
        arguments = [text.format_map(places) for text in self.peer.arguments]
        binaries = PYTHON.parent
        command = [*(str(binaries / name) for name in self.peer.wrapper), str(binaries / "celery")]
        command += ["-A", "benchmarks.beat.app", "beat", *arguments]
        log = self._folder / f"{places['node']}.log"
        node = Node(places["node"], command, self._environment(places), log)
        self.nodes.append(node)
        return node

    def _environment(self, places: Mapping[str, str]) -> dict[str, str]:
        conf = {"broker_url": "{redis}", "timezone": "UTC"} | dict(self.peer.conf)
        more = {key: text.format_map(places) for key, text in self.peer.environment.items()}
        if self.peer.django:
            more["BEAT_DJANGO"] = f"{self._folder}/django.sqlite3"
        return dict(os.environ) | {
            "PYTHONPATH": str(_ROOT),
            "BEAT_CONF": json.dumps({key: _filled(value, places) for key, value in conf.items()}),
            "BEAT_ENTRIES": json.dumps(dict(self.entries)),
            "BEAT_OPTIONS": json.dumps(dict(self.peer.options)),
            "BEAT_TRAP": str(self._trap),
            **more,
        }

    def leader(self) -> Node:
        """Return the node that published last."""
        assert awaited(lambda: self._recorder.count, _FIRST_WITHIN), "no node ever sent a message"
        last = self._recorder.messages()[-1]
        return next(node for node in self.nodes if last.pid in node.pids())

    def spring_trap(self, node: Node, rhythm: str, within: float) -> None:
        """Have *node* stop right before it sends a message of an entry of that *rhythm*."""
        loaded = self._trap.with_suffix(".loaded")
        loaded.write_text(rhythm)
        loaded.replace(self._trap)
        awaited(lambda: node.is_stopped, within)
        self._trap.unlink(missing_ok=True)

    def replace(self, node: Node) -> None:
        """End *node* for good, and start another one in its place."""
        node.kill()
        self.nodes.remove(node)
        self.add().wait_idle()


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    return value.format_map(places) if isinstance(value, str) else value
