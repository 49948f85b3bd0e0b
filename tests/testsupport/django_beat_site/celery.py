"""The application, configured as Django projects do it."""

from celery import Celery

__all__ = ["app"]

app = Celery("django_beat_site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
