"""
The smallest Django site with django-apscheduler.

Run as ``python -m testsupport.django_apscheduler_site DATABASE`` it makes the tables; DATABASE is an
entry of Django's ``DATABASES``, as JSON.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import django
from apscheduler.jobstores.base import BaseJobStore
from django.conf import settings
from django.core.management import call_command

__all__ = ["job_store", "set_up"]


def set_up(database: Mapping[str, Any]) -> None:
    """Make this process one of the site's."""
    settings.configure(
        DATABASES={"default": dict(database)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django_apscheduler"],
        USE_TZ=True,
    )
    django.setup()


def job_store(database: Mapping[str, Any]) -> BaseJobStore:
    """Return the site's job store."""
    set_up(database)
    from django_apscheduler.jobstores import DjangoJobStore

    return DjangoJobStore()


if __name__ == "__main__":
    set_up(json.loads(sys.argv[1]))
    call_command("migrate", verbosity=0)
