"""Settings: a database, django-celery-beat, and what the test gives."""

import json
import os
from typing import Any, Final

_GIVEN: Final[dict[str, Any]] = json.loads(os.environ["BEAT_SITE"])

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_celery_beat",
    "testsupport.django_beat_site",
]
CELERY_RESULT_EXPIRES = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
globals().update(_GIVEN)
