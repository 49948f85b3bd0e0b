"""The admin, and an answer to what browsers ask every site for."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path


def _no_icon(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


urlpatterns = [path("admin/", admin.site.urls), path("favicon.ico", _no_icon)]
