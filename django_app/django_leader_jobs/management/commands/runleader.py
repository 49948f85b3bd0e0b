"""``manage.py runleader``: be a candidate; while leading, run the jobs, or a command."""

import logging
import os
import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_leader_jobs.conf import load_settings
from django_leader_jobs.discovery import discover_jobs
from django_leader_jobs.wiring import fresh_connections
from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.assembly import command_part, job_part
from leader_jobs.clock import SystemClock
from leader_jobs.command import Restart
from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError, LeaderJobsError
from leader_jobs.jobs import registry
from leader_jobs.names import check_election
from leader_jobs.service import Part, Service
from leader_jobs.stores.base import Store
from leader_jobs.stores.factory import open_store

_FIRST_ANSWER: Final = 10.0
_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


class Command(BaseCommand):
    """Stand in elections until told to stop; while leading, do what only the leader does."""

    help = (
        "Stand in the election(s) of this site; while this node leads, run the jobs registered for "
        "them, or the command after '--'. Start as many of these as you like, on as many hosts."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options; each overrides environment and settings."""
        parser.add_argument(
            "--election",
            action="append",
            metavar="NAME",
            help="stand in this election (repeatable); all elections that have jobs if not given",
        )
        parser.add_argument("--store", help="URL of the store")
        parser.add_argument("--node", help="this node's label")
        parser.add_argument("--ttl", type=float, help="lease time in seconds")
        parser.add_argument("--grace", type=float, help="seconds running work gets after SIGTERM")
        parser.add_argument(
            "--restart",
            choices=[choice.value for choice in Restart],
            default=Restart.ON_FAILURE.value,
            help="when to start COMMAND again after it ended (default: on-failure)",
        )
        parser.add_argument(
            "command", nargs="*", metavar="COMMAND", help="after '--': run this while leading"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Run until a signal comes or the command is done."""
        _show_log_lines(options["verbosity"])
        named = options["election"] or []
        try:
            settings = load_settings(
                election=named[0] if named else None,
                **{key: options[key] for key in ("store", "node", "ttl", "grace")},
            )
            parts, store = self._parts(settings, named, options)
        except LeaderJobsError as error:
            raise CommandError(str(error)) from None
        ended = Service(parts, grace=settings.grace).run()
        if ended:
            store.close()
        else:
            # A thread that does not end would keep the interpreter from ending.
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _parts(
        self, settings: Settings, named: list[str], options: dict[str, Any]
    ) -> tuple[list[Part], Store]:
        clock = SystemClock()
        argv = options["command"]
        if argv and len(named) > 1:
            msg = f"--election is given {len(named)} times; a command runs under one election"
            raise ConfigurationError(msg)
        discover_jobs()
        elections = [check_election(name) for name in named] or list(registry.elections())
        store = open_store(settings, clock=clock)
        for election in elections or [settings.election]:
            # A store that can not be reached or used is said now, in a line, not for ever in a log.
            store.candidates(election, deadline=clock.now() + _FIRST_ANSWER)
        if argv:
            restart = Restart(options["restart"])
            part = command_part(settings, argv, restart=restart, store=store, clock=clock)
            return [part], store
        if not elections:
            msg = "there are no jobs: decorate a function with @leader_only(every=…) in an app's jobs.py"
            raise ConfigurationError(msg)
        parts = [
            job_part(
                settings,
                election,
                store=store,
                clock=clock,
                jobs=registry.of(election),
                timer=APSchedulerTimer,
                around=fresh_connections,
            )
            for election in elections
        ]
        return parts, store


def _show_log_lines(verbosity: int) -> None:
    """Print the library's log lines if the project's logging does nothing with them."""
    log = logging.getLogger("leader_jobs")
    if log.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    log.addHandler(handler)
    log.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
