"""
Settings of the example site: a shop that places, ships and counts orders all by itself.

What leader-jobs needs is two lines: the application in ``INSTALLED_APPS`` and the dict at the end.
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "an example keeps no secrets"  # noqa: S105  it protects nothing
DEBUG = True  # a site to look at, not to deploy
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "site_config.urls"
# What `runserver` serves; recipes.django_wsgi runs the jobs as well.
WSGI_APPLICATION = os.environ.get("SHOP_WSGI", "site_config.wsgi.application")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_leader_jobs",
    "shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", BASE_DIR / "shop.sqlite3"),
        # Several processes write. With a write-ahead log readers never wait; with "immediate" a
        # transaction gets its turn to write at its beginning, or waits for it up to the timeout.
        "OPTIONS": {
            "timeout": 30,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    },
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True

# The store is not named here: without one it is an SQLite file beside manage.py, which serves all
# processes of this host. LEADER_JOBS_STORE=etcd://… in the environment names another.
LEADER_JOBS = {"ELECTION": "shop"}

# For those who run `site_config.celery`. Beat stands in an election of its own, beside `runleader`.
_MESSAGES = os.environ.get("SHOP_MESSAGES", str(BASE_DIR / "messages"))
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "filesystem://")
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {"data_folder_in": _MESSAGES, "data_folder_out": _MESSAGES, "control_folder": _MESSAGES}
    if CELERY_BROKER_URL == "filesystem://"
    else {}
)
CELERY_LEADER_JOBS_ELECTION = "shop-beat"
