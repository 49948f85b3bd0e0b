"""
Flask's own server, whose reloader runs the application in a process of its own.

    flask --app recipes.flask_dev run --debug

The first process only watches the files. It is never replaced, so that a scheduler in it would run
the code of the moment it was started, for as long as it leads. Other commands that load the
application, such as ``flask shell``, start nothing either.
"""

import click
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from recipes.flask_app import app, scheduler

__all__ = ["app"]


def serves() -> bool:
    """Whether this is the process of ``flask run`` that answers requests."""
    command = click.get_current_context(silent=True)
    if command is None or command.info_name != "run":
        return False
    reload = command.params["reload"]
    reloads = get_debug_flag() if reload is None else reload
    return is_running_from_reloader() or not reloads


if serves():
    scheduler.start()
