"""
The shop's site with its jobs run by the processes that serve it, instead of by ``runleader``.

    gunicorn -w 4 recipes.django_wsgi:application        # not with --preload
    SHOP_WSGI=recipes.django_wsgi.application python manage.py runserver

A site of your own has this in its ``wsgi.py`` or ``asgi.py``. Only what serves imports that module:
every worker, and of ``runserver``'s two processes the one that is replaced when a file changes. An
``AppConfig.ready`` would start the scheduler in ``migrate`` and ``shell`` as well.
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_config.settings")
application = get_wsgi_application()

from django_leader_jobs.discovery import discover_jobs  # noqa: E402  Django has to be set up first
from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler  # noqa: E402

discover_jobs()
scheduler = LeaderBackgroundScheduler()
scheduler.add_leader_jobs()
scheduler.start()
