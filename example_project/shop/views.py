"""The shop's front page: who leads, and what was done last."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from leader_jobs import find_leader
from leader_jobs.exceptions import StoreError
from shop.models import MinuteRevenue, WorkLog


def home(request: HttpRequest) -> HttpResponse:
    """Show the leader as an observer sees it, and the newest rows."""
    try:
        leader, trouble = find_leader(), ""
    except StoreError as error:
        leader, trouble = None, str(error)
    context = {
        "leader": leader,
        "trouble": trouble,
        "work": WorkLog.objects.order_by("-pk")[:20],
        "minutes": MinuteRevenue.objects.order_by("-minute")[:5],
    }
    return render(request, "shop/home.html", context)
