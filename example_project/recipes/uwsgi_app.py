"""
Flask under uWSGI.

    uwsgi --http :8000 --ini recipes/uwsgi.ini

Each worker starts its scheduler, in whichever process the application is loaded.
"""

# mypy: disable-error-code="import-untyped,import-not-found"
# The two modules come with the server, without types.

import atexit

import uwsgi
from uwsgidecorators import postfork

from recipes.flask_app import app, scheduler

__all__ = ["app"]


def stand() -> None:
    """Stand in the election until the worker exits."""
    scheduler.start()
    atexit.register(scheduler.shutdown)


if uwsgi.worker_id():  # with lazy-apps this is a worker, whose fork is over
    stand()
else:
    postfork(stand)
