"""
The probes as views, for a project that has a web server running anyway.

They answer for the process that serves the request: where an elected scheduler runs in it, for that;
where none does, ``/leader`` is 503, and ``/readyz`` says whether the store answers.
"""

import functools

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from leader_jobs.config import application
from leader_jobs.exceptions import LeaderJobsError
from leader_jobs.probes import Answer, Probes

__all__ = ["leader", "livez", "metrics", "readyz", "status"]


@functools.cache
def _probes() -> Probes:
    """Return the probes of this process; a child of a fork finds out by itself that it is one."""
    return Probes(lambda: application.settings)


def _respond(answer: Answer) -> HttpResponse:
    response = HttpResponse(answer.body, status=answer.status, content_type=answer.content_type)
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    # A standby says 503 to a balancer all day; Django would send its admins a mail for each.
    vars(response)["_has_been_logged"] = True
    return response


@require_safe
def livez(_request: HttpRequest) -> HttpResponse:
    """Say whether the loops of this process turn."""
    return _respond(_probes().answer("/livez"))


@require_safe
def readyz(_request: HttpRequest) -> HttpResponse:
    """Say whether the store answers."""
    return _respond(_probes().answer("/readyz"))


@require_safe
def leader(request: HttpRequest) -> HttpResponse:
    """Say whether this process leads the election ``?election=``."""
    return _respond(_probes().answer("/leader", election=request.GET.get("election")))


@require_safe
def status(_request: HttpRequest) -> HttpResponse:
    """Say all that this process knows of itself, as JSON."""
    return _respond(_probes().answer("/status"))


@require_safe
def metrics(_request: HttpRequest) -> HttpResponse:
    """Return the metrics of this process, where the setting ``METRICS`` asks for them."""
    try:
        wanted = application.settings.metrics
    except LeaderJobsError:
        wanted = False
    if not wanted:
        raise Http404
    from leader_jobs.metrics import metrics_of_process

    return _respond(Answer(200, *metrics_of_process().exposition()))


# Whoever asks these has no session; a project that wants one wraps the views.
for _view in livez, readyz, leader, status, metrics:
    vars(_view)["login_required"] = False  # as Django's `login_not_required` does
