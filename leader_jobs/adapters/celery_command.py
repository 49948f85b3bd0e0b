"""
``celery -A proj leader …``: the commands of ``leader-jobs``, with the settings of the application.

Celery imports this file whenever any of its commands starts, so it imports next to nothing itself.
"""

from functools import partial

import click

__all__ = ["leader"]


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def leader(context: click.Context, arguments: tuple[str, ...]) -> None:
    """See who leads and what became of the jobs, steer the election, examine it."""
    import sys
    from argparse import ArgumentParser

    from leader_jobs.adapters.celery_entries import job_name
    from leader_jobs.adapters.celery_settings import settings_of
    from leader_jobs.cli.entry import call
    from leader_jobs.cli.front import Front
    from leader_jobs.cli.parser import declare

    parser = ArgumentParser(prog="celery leader", description=leader.help)
    declare(parser)
    options = parser.parse_args(arguments)
    front = Front(
        load=partial(settings_of, context.obj.app),
        out=sys.stdout,
        err=sys.stderr,
        job_name=job_name,
    )
    context.exit(call(front, options))
