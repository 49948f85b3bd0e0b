"""
The probes of a web process, to be included::

    path("leader-jobs/", include("django_leader_jobs.urls"))

They ask nobody who they are. ``livez``, ``readyz`` and ``leader`` say little; ``status`` and ``metrics``
name nodes and elections: have the web server in front of a public site keep them in.
"""

from typing import Final

from django.urls import URLPattern, path

from django_leader_jobs import probing

app_name: Final = "leader_jobs"
urlpatterns: Final[list[URLPattern]] = [
    path("livez", probing.livez, name="livez"),
    path("readyz", probing.readyz, name="readyz"),
    path("leader", probing.leader, name="leader"),
    path("status", probing.status, name="status"),
    path("metrics", probing.metrics, name="metrics"),
]
