"""The application: says where settings come from, registers checks, starts nothing."""

from typing import Any

from django.apps import AppConfig
from django.core.checks import register
from django.core.signals import setting_changed

from django_leader_jobs.checks import check_jobs, check_settings
from django_leader_jobs.conf import SETTING, load_settings
from django_leader_jobs.deploy_checks import check_deployment
from django_leader_jobs.signals import announce
from leader_jobs.config import application
from leader_jobs.escort import observe_everywhere


class LeaderJobsConfig(AppConfig):
    """``django_leader_jobs`` under the label ``leader_jobs``."""

    name = "django_leader_jobs"
    label = "leader_jobs"
    verbose_name = "Leader Jobs"

    def ready(self) -> None:
        """Wire settings and checks; no thread, file or connection before somebody asks for one."""
        application.configure(load_settings)
        setting_changed.connect(_forget_settings, dispatch_uid="leader_jobs.settings")
        register(check_settings, self.label)
        register(check_jobs, self.label)
        register(check_deployment, self.label, deploy=True)
        observe_everywhere(announce)


def _forget_settings(*, setting: str, **_kwargs: Any) -> None:
    if setting in (SETTING, "BASE_DIR"):
        application.configure(load_settings)
