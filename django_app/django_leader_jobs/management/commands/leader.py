"""``manage.py leader …``: the commands of ``leader-jobs``, with the settings of the project."""

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand

from django_leader_jobs.conf import load_settings
from leader_jobs.cli.entry import call
from leader_jobs.cli.front import Front
from leader_jobs.cli.parser import declare


class Command(BaseCommand):
    """See who leads an election and what became of its jobs, steer it, examine it."""

    help = "See who leads an election and what became of its jobs, steer it, examine it."
    # A project that does not pass its checks has all the more to look for here.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the commands; the options that Django adds may stand behind them, too."""
        for verb in declare(parser):
            for option in ("--settings", "--pythonpath"):
                verb.add_argument(option, help=SUPPRESS)
            for flag in ("--traceback", "--no-color", "--force-color"):
                verb.add_argument(flag, action="store_true", help=SUPPRESS)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Carry a command out, and exit as it says."""
        color = True if options["force_color"] else False if options["no_color"] else None
        # What is written comes with all the line ends there are to be.
        self.stdout.ending = self.stderr.ending = ""
        front = Front(
            load=load_settings,
            out=cast(TextIO, self.stdout),
            err=cast(TextIO, self.stderr),
            color=color,
        )
        status = call(front, Namespace(**options))
        if status:
            sys.exit(status)
