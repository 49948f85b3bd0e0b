"""The example site's pages."""

from django.contrib import admin
from django.urls import path

from shop.views import home

urlpatterns = [path("", home), path("admin/", admin.site.urls)]
