"""``manage.py runleader``: be a candidate; while leading, run the jobs, or a command."""

import logging
import os
import sys
from argparse import ArgumentParser
from contextlib import closing
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from django_leader_jobs.conf import load_settings
from django_leader_jobs.discovery import discover_jobs
from django_leader_jobs.wiring import fresh_connections, run_async
from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.assembly import command_part, job_part
from leader_jobs.clock import Clock, SystemClock
from leader_jobs.command import CommandUnusable, Restart
from leader_jobs.config import Settings, application
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
    # Django's report of a wrong setting or job takes several lines; `handle` says it in one.
    requires_system_checks = ()

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
        """Run until a signal comes or the command is done; exit as the command did."""
        try:
            status = self._stand(options)
        except LeaderJobsError as error:
            status = error.exit_code if isinstance(error, CommandUnusable) else 1
            raise CommandError(str(error), returncode=status) from None
        if status:
            sys.exit(status)

    def _stand(self, options: dict[str, Any]) -> int:
        """Stand until told to stop; return the exit status."""
        named, argv = options["election"] or [], options["command"]
        settings = load_settings(
            # For jobs, the option says where to stand, not where jobs without an election belong.
            election=named[0] if named and argv else None,
            **{key: options[key] for key in ("store", "node", "ttl", "grace")},
        )
        # What the options say holds for the jobs of this process, too.
        application.configure(lambda: settings)
        elections = _elections_of_command(settings, named) if argv else _elections_of_jobs(named)
        clock = SystemClock()
        with closing(open_store(settings, clock=clock)) as store:
            for election in elections:
                # A store that is out of reach or unusable is said now, in a line, not in a log.
                store.candidates(election, deadline=clock.now() + _FIRST_ANSWER)
            if argv:
                restart = Restart(options["restart"])
                part = command_part(settings, argv, restart=restart, store=store, clock=clock)
                parts = [part]
            else:
                parts = [_job_part(settings, name, store, clock) for name in elections]
            # Not before: what the first contact has to say, if it fails, is in that one line.
            _show_log_lines(options["verbosity"])
            if not Service(parts, grace=settings.grace).run():
                _leave_threads_behind()
        return parts[0].work.exit_status


def _elections_of_command(settings: Settings, named: list[str]) -> list[str]:
    if len(named) > 1:
        msg = f"--election is given {len(named)} times; a command runs under one election"
        raise ConfigurationError(msg)
    return [settings.election]


def _elections_of_jobs(named: list[str]) -> list[str]:
    discover_jobs()
    elections = [check_election(name) for name in named] or list(registry.elections())
    idle = [election for election in elections if not registry.of(election)]
    if idle or not elections:
        where = f" for election {', '.join(idle)}" if idle else ""
        msg = (
            f"there are no jobs{where}: decorate a function with @leader_only(every=…) in the jobs.py "
            "of an installed app"
        )
        raise ConfigurationError(msg)
    return elections


def _job_part(settings: Settings, election: str, store: Store, clock: Clock) -> Part:
    return job_part(
        settings,
        election,
        store=store,
        clock=clock,
        jobs=registry.of(election),
        timer=APSchedulerTimer,
        around=fresh_connections,
        run_async=run_async,
    )


def _leave_threads_behind() -> None:
    """End the process although a job's thread does not end: the interpreter would wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _show_log_lines(verbosity: int) -> None:
    """Print the library's log lines if the project's logging does nothing with them."""
    log = logging.getLogger("leader_jobs")
    if log.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    log.addHandler(handler)
    log.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
