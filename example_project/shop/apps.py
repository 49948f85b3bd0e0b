"""The application."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The shop. Nothing is started here: jobs run in ``manage.py runleader`` and nowhere else."""

    name = "shop"
