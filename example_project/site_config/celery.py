"""
The site's Celery application, for those who would rather have workers run their jobs.

    celery -A site_config.celery beat -S leader     # in several terminals: one of them publishes
    celery -A site_config.celery worker             # in as many as you like

Without ``CELERY_BROKER_URL`` in the environment, messages are files beside manage.py: no server is
needed to try it out.
"""

import os
from pathlib import Path

from celery import Celery

from leader_jobs.adapters import celery_worker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_config.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
celery_worker.install(app)
if folder := app.conf.broker_transport_options.get("control_folder"):
    Path(folder).mkdir(exist_ok=True)
