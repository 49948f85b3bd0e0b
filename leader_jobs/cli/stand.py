"""
What all commands that stand in elections have in common: their options, their first contact with the
store, their log lines and their end.

``manage.py runleader`` and ``leader-jobs run`` differ in where settings and jobs come from only.
"""

import logging
import os
import sys
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from leader_jobs import escort
from leader_jobs.assembly import command_part
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.command import Restart
from leader_jobs.config import Settings
from leader_jobs.events import Observer
from leader_jobs.service import Part, Service
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store

__all__ = [
    "add_command_options",
    "add_node_options",
    "node_arguments",
    "stand",
    "stand_with_command",
]

#: The options that are settings of the same name.
_SETTINGS: Final = ("store", "namespace", "node", "ttl", "grace", "guardian", *escort.OPTIONS)
_FIRST_ANSWER: Final = 10.0
_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


def add_node_options(parser: ArgumentParser) -> None:
    """Declare the options of whatever stands in elections; each overrides environment and settings."""
    parser.add_argument("--store", metavar="URL", help="URL of the store")
    parser.add_argument("--namespace", help="what every key in etcd begins with")
    parser.add_argument("--node", metavar="LABEL", help="this node's label")
    parser.add_argument("--ttl", type=float, metavar="SECONDS", help="lease time")
    parser.add_argument(
        "--grace", type=float, metavar="SECONDS", help="what running work gets after SIGTERM"
    )
    parser.add_argument(
        "--guardian",
        action=BooleanOptionalAction,
        help="have another node lead at once when this process dies, on etcd (default: yes)",
    )
    escort.add_options(parser)


def add_command_options(parser: ArgumentParser) -> None:
    """Declare the options of a command that is run while leading, and the command itself."""
    parser.add_argument(
        "--restart",
        choices=[choice.value for choice in Restart],
        default=Restart.ON_FAILURE.value,
        help="when to start COMMAND again after it ended (default: on-failure)",
    )
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="after '--': run this while leading"
    )


def node_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what *options* say of the settings, as `Settings.load` takes it."""
    return {name: options[name] for name in _SETTINGS if name in options}


def stand(
    settings: Settings,
    elections: Iterable[str],
    parts: Callable[[Store, Clock, Iterable[Observer]], Sequence[Part]],
    *,
    verbosity: int = 1,
) -> int:
    """
    Stand in elections until a signal comes or the work is done.

    Args:
        settings: where, and as whom.
        elections: those the parts stand in.
        parts: makes the parts, given who is to observe them; called when the store has answered.
        verbosity: 0 for warnings only, 1 for changes of role, 2 for everything.

    Returns:
        The exit status.

    Raises:
        StoreError: the store did not answer within ten seconds, or never will.
        ConfigurationError: probes, metrics or hooks can not be had as *settings* ask for them.
    """
    clock = SystemClock()
    with closing(open_store(settings, clock=clock)) as store:
        for election in elections:
            # A store that is out of reach, or refuses what a leader does, is said now, in a line.
            store.check(election, deadline=clock.now() + _FIRST_ANSWER)
        company = escort.Escort(settings, clock=clock)
        made = parts(store, clock, company.observers)
        # Not before: what the first contact has to say, if it fails, is in that one line.
        _show_log_lines(verbosity)
        with company:
            ended = Service(made, grace=settings.grace, leaving=company.leave).run()
        if not ended:
            _leave_threads_behind()
    return made[0].work.exit_status


def stand_with_command(
    settings: Settings, argv: Sequence[str], *, restart: str, verbosity: int = 1
) -> int:
    """
    Stand in the election of *settings*, and run the command *argv* while leading.

    Args:
        settings: where, and as whom.
        argv: the command and its arguments.
        restart: when to start it again after it ended, a value of `Restart`.
        verbosity: as for `stand`.

    Returns:
        The exit status: the command's own, if it is done.

    Raises:
        CommandUnusable: there is no such command, or it can not be executed.
        StoreError: as for `stand`.
    """

    def parts(store: Store, clock: Clock, observers: Iterable[Observer]) -> list[Part]:
        return [
            command_part(
                settings,
                argv,
                restart=Restart(restart),
                store=store,
                clock=clock,
                observers=observers,
            )
        ]

    return stand(settings, [settings.election], parts, verbosity=verbosity)


def _leave_threads_behind() -> None:
    """End the process although a job's thread does not end: the interpreter would wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _show_log_lines(verbosity: int) -> None:
    """Print the library's log lines if whatever logging there is does nothing with them."""
    log = logging.getLogger("leader_jobs")
    if log.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    log.addHandler(handler)
    log.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
