"""``manage.py runleader``: be a candidate; while leading, run the jobs, or a command."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_leader_jobs.conf import load_settings
from django_leader_jobs.discovery import discover_jobs
from django_leader_jobs.watching import watching_leaders
from django_leader_jobs.wiring import fresh_connections, run_async
from leader_jobs.adapters.apscheduler_timer import APSchedulerTimer
from leader_jobs.assembly import job_part
from leader_jobs.cli.stand import (
    add_command_options,
    add_node_options,
    node_arguments,
    stand,
    stand_with_command,
)
from leader_jobs.clock import Clock
from leader_jobs.command import CommandUnusable
from leader_jobs.config import Settings, application
from leader_jobs.events import Observer
from leader_jobs.exceptions import ConfigurationError, LeaderJobsError
from leader_jobs.jobs import registry
from leader_jobs.names import check_election
from leader_jobs.service import Part
from leader_jobs.stores.base import Store


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
        add_node_options(parser)
        add_command_options(parser)

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
            **node_arguments(options),
        )
        # What the options say holds for the jobs of this process, too.
        application.configure(lambda: settings)
        if argv:
            _check_one(named)
            restart, verbosity = options["restart"], options["verbosity"]
            with watching_leaders([settings.election]):
                return stand_with_command(settings, argv, restart=restart, verbosity=verbosity)
        elections = _elections_of_jobs(named)

        def parts(store: Store, clock: Clock, observers: Iterable[Observer]) -> Sequence[Part]:
            return [_job_part(settings, name, store, clock, observers) for name in elections]

        with watching_leaders(elections):
            return stand(settings, elections, parts, verbosity=options["verbosity"])


def _check_one(named: Sequence[str]) -> None:
    if len(named) > 1:
        msg = f"--election is given {len(named)} times; a command runs under one election"
        raise ConfigurationError(msg)


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


def _job_part(
    settings: Settings, election: str, store: Store, clock: Clock, observers: Iterable[Observer]
) -> Part:
    return job_part(
        settings,
        election,
        store=store,
        clock=clock,
        jobs=registry.of(election),
        timer=APSchedulerTimer,
        around=fresh_connections,
        run_async=run_async,
        observers=observers,
    )
