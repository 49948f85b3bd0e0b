"""
The admin pages: *Leader Jobs → Elections*.

Registered with Django's own admin site; for another `AdminSite`::

    from django_leader_jobs.admin import ElectionAdmin
    from django_leader_jobs.models import Election

    site.register(Election, ElectionAdmin)

Whoever has the permission ``leader_jobs.view_election`` may look; ``leader_jobs.operate_election``
is needed to give orders, and includes looking. Pages never change anything: orders are given by POST.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import require_http_methods, require_safe

from django_leader_jobs.contexts import (
    Context,
    election_context,
    job_context,
    list_context,
    order_context,
)
from django_leader_jobs.models import OPERATE, Election
from django_leader_jobs.observing import Lookout, Sight, lookout
from django_leader_jobs.steering import ORDERS, Order
from leader_jobs.exceptions import ConfigurationError, LeaderJobsError, StoreUnavailable
from leader_jobs.names import check_election, check_job
from leader_jobs.report import FORMAT, Json, election_report, elections_report

if TYPE_CHECKING:
    ElectionAdminBase = admin.ModelAdmin[Election]
else:  # at run time ModelAdmin takes no type argument
    ElectionAdminBase = admin.ModelAdmin

__all__ = ["ElectionAdmin"]

_FOLDER: Final = "admin/leader_jobs/election"
_UNAVAILABLE: Final = 503
T = TypeVar("T")


@admin.register(Election)
class ElectionAdmin(ElectionAdminBase):
    """Elections: looked at, and steered."""

    #: What the pages see the elections by.
    lookout: ClassVar[Lookout] = lookout

    # -- who may ----------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Elections are not made here."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Election | None = None) -> bool:
        """Nor edited."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Election | None = None) -> bool:
        """Nor removed."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Election | None = None) -> bool:
        """Whether the user may look; whoever may operate may."""
        return super().has_view_permission(request, obj) or self.has_operate_permission(request)

    def has_operate_permission(self, request: HttpRequest, obj: Election | None = None) -> bool:
        """Whether the user may give orders."""
        allowed: bool = request.user.has_perm(f"{self.opts.app_label}.{OPERATE}")  # type: ignore[union-attr]
        return allowed

    # -- what there is ----------------------------------------------------------------------------

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Election | None:
        """Return the election of a name, whether anybody uses it or not; None if it is no name."""
        try:
            return Election(name=check_election(unquote(object_id)))
        except ConfigurationError:
            return None

    def get_urls(self) -> list[URLPattern]:
        """Return the pages, in the places where Django expects those it knows."""
        look = require_safe

        def often(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            """Compress what is fetched each second; there is no secret in it to be guessed."""
            return require_safe(gzip_page(view))

        order = require_http_methods(["GET", "HEAD", "POST"])(self.order_view)
        one, job = "<str:object_id>/", "<str:object_id>/jobs/<str:job>/"
        return [
            self._path("", look(self.changelist_view), "changelist"),
            self._path("live/", often(self.changelist_live_view), "changelist_live"),
            self._path("report.json", often(self.changelist_report_view), "changelist_report"),
            self._path(f"{one}history/", look(self.history_view), "history"),
            self._path(f"{one}change/", look(self.change_view), "change"),
            self._path(f"{one}live/", often(self.live_view), "live"),
            self._path(f"{one}report.json", often(self.report_view), "report"),
            self._path(f"{one}pause/", order, "pause", order="pause"),
            self._path(f"{one}resume/", order, "resume", order="resume"),
            self._path(f"{one}resign/", order, "resign", order="resign"),
            self._path(f"{one}transfer/", order, "transfer", order="transfer"),
            self._path(job, look(self.job_view), "job"),
            self._path(f"{job}live/", often(self.job_live_view), "job_live"),
            self._path(f"{job}pause/", order, "job_pause", order="pause"),
            self._path(f"{job}resume/", order, "job_resume", order="resume"),
            self._path(f"{job}run-now/", order, "job_run_now", order="run-now"),
        ]

    def _path(
        self, route: str, view: Callable[..., HttpResponseBase], name: str, **arguments: Any
    ) -> URLPattern:
        name = f"{self.opts.app_label}_{self.opts.model_name}_{name}"
        return path(route, self.admin_site.admin_view(view), arguments, name=name)

    # -- the list ---------------------------------------------------------------------------------

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show all elections."""
        context = self._list_context(request) | {"title": "Elections"} | (extra_context or {})
        return self._answer(request, "change_list", context)

    def changelist_live_view(self, request: HttpRequest) -> HttpResponse:
        """Return the part of the list that changes."""
        return self._answer(request, "live_list", self._list_context(request))

    def changelist_report_view(self, request: HttpRequest) -> HttpResponse:
        """Return the list for programs."""
        self._check_may_look(request)
        return _report(self.lookout.elections(), elections_report)

    def _list_context(self, request: HttpRequest) -> Context:
        self._check_may_look(request)
        return list_context(self.lookout.elections())

    # -- an election ------------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show an election."""
        context = self._context(request, object_id)
        return self._answer(request, "election", context | (extra_context or {}))

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return the part of an election's page that changes."""
        return self._answer(request, "live_election", self._context(request, object_id))

    def report_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return an election for programs; 503 with the reason if the store does not answer."""
        name = self._name(request, object_id)
        return _report(self.lookout.election(name), election_report)

    def job_view(self, request: HttpRequest, object_id: str, job: str) -> HttpResponse:
        """Show a job with all that is kept of it."""
        return self._answer(request, "job", self._job_context(request, object_id, job))

    def job_live_view(self, request: HttpRequest, object_id: str, job: str) -> HttpResponse:
        """Return the part of a job's page that changes."""
        return self._answer(request, "live_job", self._job_context(request, object_id, job))

    def _context(self, request: HttpRequest, object_id: str) -> Context:
        name = self._name(request, object_id)
        context = election_context(name, self.lookout.election(name), request.GET.get("span", ""))
        return context | {"may_operate": self.has_operate_permission(request)}

    def _job_context(self, request: HttpRequest, object_id: str, job: str) -> Context:
        name, job = self._name(request, object_id), _job(job)
        context = job_context(name, job, self.lookout.job(name, job))
        if context["job"] is None and not context["sight"].trouble:
            msg = f"election {name!r} has no job of that name"
            raise Http404(msg)
        return context | {"may_operate": self.has_operate_permission(request)}

    # -- orders -----------------------------------------------------------------------------------

    def order_view(
        self, request: HttpRequest, object_id: str, order: str, job: str | None = None
    ) -> HttpResponse:
        """GET: ask whether an order is to be given. POST: give it, and go back."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        name = self._name(request, object_id)
        job = None if job is None else _job(job)
        found, posted = ORDERS[order], request.method == "POST"
        form = found.form(request.POST if posted else None)
        back = self._url("job" if job and request.GET.get("from") == "job" else "change", name, job)
        if posted and form.is_valid():
            self._give(request, name, found, job, form.cleaned_data)
            return redirect(back)
        context = order_context(name, job, found, self.lookout.election(name))
        heir = request.POST.get("heir") or request.GET.get("heir")
        return self._answer(request, "order", context | {"form": form, "back": back, "heir": heir})

    def _give(
        self, request: HttpRequest, name: str, order: Order, job: str | None, data: dict[str, Any]
    ) -> None:
        """Give an order, put it on record, and tell the user what came of it."""
        election = Election(name=name)
        try:
            control = self.lookout.control(name, by=request.user.get_username())
            given = order.give(control, self.lookout.clock, job, data)
        except StoreUnavailable as error:
            text = f"{order.verb}: it is not known whether that was done: {error}"
            self.log_change(request, election, text)
            self.message_user(request, text, messages.ERROR)
            return
        except LeaderJobsError as error:
            self.message_user(request, f"{order.verb}: not done, {error}", messages.ERROR)
            return
        self.log_change(request, election, given.record)
        outcome = given.wait()
        self.message_user(request, outcome.text, outcome.level)

    # -- what they have in common -------------------------------------------------------------------

    def _check_may_look(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _name(self, request: HttpRequest, object_id: str) -> str:
        """Return the name of the election that a user may look at."""
        self._check_may_look(request)
        election = self.get_object(request, object_id)
        if election is None:
            msg = "no election can have that name"
            raise Http404(msg)
        return str(election)

    def _url(self, page: str, name: str, job: str | None) -> str:
        parts = [name] if page == "change" or job is None else [name, job]
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}",
            args=[quote(part) for part in parts],
            current_app=self.admin_site.name,
        )

    def _answer(self, request: HttpRequest, template: str, context: Context) -> HttpResponse:
        request.current_app = self.admin_site.name
        common = self.admin_site.each_context(request) | {"opts": self.opts}
        return TemplateResponse(request, f"{_FOLDER}/{template}.html", common | context)


def _job(quoted: str) -> str:
    try:
        return check_job(unquote(quoted))
    except ConfigurationError as error:
        raise Http404(str(error)) from None


def _report(sight: Sight[T], report: Callable[[T], Json]) -> JsonResponse:
    """Return what was found, or why nothing could be."""
    if sight.trouble or sight.found is None:
        since = sight.since.isoformat() if sight.since is not None else None
        trouble = {"format": FORMAT, "error": sight.trouble, "since": since}
        return JsonResponse(trouble, status=_UNAVAILABLE)
    return JsonResponse(report(sight.found))
