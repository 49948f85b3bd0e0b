"""
What a command gets to work with, and what becomes of its errors; whichever way it was called.

Exit codes: 0 done, 1 refused or "no", 2 the store is out of reach or what was asked for makes no sense.
"""

import getpass
import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TextIO

from leader_jobs.clock import Clock, SystemClock
from leader_jobs.config import Settings
from leader_jobs.control import Control
from leader_jobs.exceptions import ConfigurationError, LeaderJobsError, StoreError, StoreUnusable
from leader_jobs.observatory import Observatory
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store, sqlite_path
from leader_jobs.tables import Page, Screen
from leader_jobs.texts import printable

__all__ = ["DONE", "REFUSED", "TROUBLE", "Call", "Front", "Verb", "answer"]

DONE: Final = 0
REFUSED: Final = 1
TROUBLE: Final = 2
_INTERRUPTED: Final = 130


@dataclass(frozen=True, kw_only=True)
class Front:
    """
    What differs between ``leader-jobs``, ``manage.py leader`` and ``celery leader``.

    Attributes:
        load: loads the settings; takes the arguments of `Settings.load`.
        out: where answers are written.
        err: where trouble is.
        job_name: the ledger's name of what the caller may call a job.
        color: whether there are colours; None: on a terminal.
    """

    load: Callable[..., Settings]
    out: TextIO
    err: TextIO
    job_name: Callable[[str], str] = str
    color: bool | None = None


class Call:
    """
    One call of a command.

    Args:
        front: which way it came.
        options: what it said.
    """

    def __init__(self, front: Front, options: Namespace) -> None:
        self.front: Final = front
        self.options: Final = options
        self.clock: Final[Clock] = SystemClock()
        self.screen: Final = Screen(front.out, color=front.color)

    @cached_property
    def settings(self) -> Settings:
        """The settings that hold for it; raises `ConfigurationError`."""
        options = self.options
        return self.front.load(
            store=options.store, namespace=options.namespace, election=options.election
        )

    @property
    def election(self) -> str:
        """The election it is about."""
        return self.settings.election

    @property
    def job(self) -> str | None:
        """The job it is about, under its name in the ledger, or None."""
        return None if self.options.job is None else self.front.job_name(self.options.job)

    @property
    def timeout(self) -> float:
        """Seconds each call of the store may take."""
        return float(self.options.timeout)

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Lend the store; one that is a file must be there: only who stands in elections makes it."""
        path = sqlite_path(self.settings.store)
        if path is not None and not path.exists():
            msg = (
                f"there is no store {path}: no node has stood yet, or the nodes have another store; "
                "compare with theirs"
            )
            raise StoreUnusable(msg)
        with closing(open_store(self.settings, clock=self.clock)) as store:
            yield store

    @contextmanager
    def observatory(self) -> Iterator[Observatory]:
        """Lend what looks at elections."""
        with self.store() as store:
            yield Observatory(store, clock=self.clock, timeout=self.timeout)

    def control(self, store: Store) -> Control:
        """Return where the election is steered from, in the name of the system's user."""
        return Control(store, self.election, by=_user(), clock=self.clock, timeout=self.timeout)

    def tell(self, report: Mapping[str, Any], page: Callable[[], Page]) -> None:
        """Write *report* as JSON if that is wanted, and else the page."""
        if self.options.json:
            self.dump(report)
        else:
            self.screen.show(page())

    def dump(self, report: Mapping[str, Any], *, indent: int | None = 2) -> None:
        """Write a JSON document."""
        self.front.out.write(json.dumps(report, indent=indent) + "\n")
        self.front.out.flush()

    def complain(self, error: object) -> None:
        """Say what went wrong: on a line, or as a JSON document."""
        if self.options.json:
            self.dump({"format": 1, "error": str(error)}, indent=None)
        else:
            self.front.err.write(f"error: {printable(str(error))}\n")


Verb = Callable[[Call], int]


def answer(verb: Verb, call: Call) -> int:
    """Carry a command out; return its exit code."""
    try:
        return verb(call)
    except LeaderJobsError as error:
        call.complain(error)
        wrong = isinstance(error, StoreError | ConfigurationError)
        # A command that can not be executed says so as a shell does.
        return int(getattr(error, "exit_code", TROUBLE if wrong else REFUSED))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # nobody in the user database, as in many containers
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"
