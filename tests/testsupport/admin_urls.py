"""Two admin sites: Django's own, and another one with the elections in it."""

from django.contrib import admin
from django.contrib.admin import AdminSite
from django.urls import path

from django_leader_jobs.admin import ElectionAdmin
from django_leader_jobs.models import Election

__all__ = ["other_site"]

other_site = AdminSite(name="other")
other_site.register(Election, ElectionAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("other/", other_site.urls)]
