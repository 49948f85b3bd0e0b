"""
The Celery application that every measured beat runs; it is imported by the nodes alone.

What differs between peers comes in through the environment: ``BEAT_CONF`` (Celery's configuration
as JSON), ``BEAT_ENTRIES`` (how many entries of each rhythm, as JSON), ``BEAT_OPTIONS`` (options of
each entry, as JSON), ``BEAT_TRAP`` (see `_stop_in_trap`) and ``BEAT_DJANGO`` (the database of a
peer that keeps its schedule in Django). Run as a program it makes that database.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from celery import Celery
from celery.schedules import crontab
from celery.signals import before_task_publish

_RHYTHMS: Final = {"second": 1.0, "minute": crontab(), "hour": 3600.0}
_TRAP: Final = Path(os.environ["BEAT_TRAP"])

app = Celery("benchmark")


@app.task(name="benchmark.noted", ignore_result=True)
def noted(entry: str) -> None:
    """Do nothing: nobody consumes but the benchmark, which notes what arrives."""


def _entries() -> Iterator[tuple[str, dict[str, Any]]]:
    options = json.loads(os.environ["BEAT_OPTIONS"])
    for rhythm, count in json.loads(os.environ["BEAT_ENTRIES"]).items():
        for number in range(count):
            name = f"{rhythm}-{number}"
            entry = {"task": noted.name, "schedule": _RHYTHMS[rhythm], "args": [name]}
            yield name, entry | {"options": dict(options)}


@before_task_publish.connect
def _stop_in_trap(body: Any = None, **_: object) -> None:
    """Stop this process, claimed but not sent, if the trap is set for the rhythm of this entry."""
    if _TRAP.exists() and body[0][0].startswith(_TRAP.read_text()):
        _TRAP.unlink()
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this thread, before it goes on


def _set_up_django(database: str) -> None:
    import django
    from django.conf import settings

    engine = {"ENGINE": "django.db.backends.sqlite3", "NAME": database}
    settings.configure(
        INSTALLED_APPS=["django_celery_beat"],
        DATABASES={"default": engine | {"OPTIONS": {"timeout": 20}}},
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
    django.setup()


if os.environ.get("BEAT_DJANGO"):
    _set_up_django(os.environ["BEAT_DJANGO"])
app.conf.update(json.loads(os.environ["BEAT_CONF"]), beat_schedule=dict(_entries()))


if __name__ == "__main__":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
