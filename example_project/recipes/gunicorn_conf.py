"""
Settings of gunicorn: each worker starts its scheduler once it has the application.

In `post_worker_init`, because no thread survives a fork, and because in a worker of class gevent
everything is patched by then. It is the same with ``--preload`` and without.
"""

from typing import Any

workers = 4


def post_worker_init(worker: Any) -> None:
    """Stand in the election."""
    from recipes.flask_app import scheduler

    scheduler.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Resign, once what runs has ended; gunicorn's ``graceful_timeout`` is the limit."""
    from recipes.flask_app import scheduler

    if scheduler.running:
        scheduler.shutdown()
