"""The shop's tables in the admin; the evidence can be looked at but not changed."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.http import HttpRequest

from shop.models import MinuteRevenue, Order, Shipment, WorkLog

if TYPE_CHECKING:
    OrderAdminBase = admin.ModelAdmin[Order]
    ShipmentAdminBase = admin.ModelAdmin[Shipment]
    RevenueAdminBase = admin.ModelAdmin[MinuteRevenue]
    WorkLogAdminBase = admin.ModelAdmin[WorkLog]
else:  # at run time ModelAdmin takes no type argument
    OrderAdminBase = ShipmentAdminBase = RevenueAdminBase = WorkLogAdminBase = admin.ModelAdmin


@admin.register(Order)
class OrderAdmin(OrderAdminBase):
    """Orders, the newest first."""

    list_display = ("id", "customer", "amount", "placed_at", "shipment")
    list_select_related = ("shipment",)
    ordering = ("-placed_at",)


@admin.register(Shipment)
class ShipmentAdmin(ShipmentAdminBase):
    """Shipments, the newest first."""

    list_display = ("order", "shipped_at")
    list_select_related = ("order",)
    ordering = ("-shipped_at",)


@admin.register(MinuteRevenue)
class MinuteRevenueAdmin(RevenueAdminBase):
    """Revenue, the newest minute first."""

    list_display = ("minute", "orders", "revenue")
    ordering = ("-minute",)


@admin.register(WorkLog)
class WorkLogAdmin(WorkLogAdminBase):
    """Who ran what, under which token."""

    list_display = ("job", "planned_at", "token", "attempt", "node", "pid", "written_at")
    list_filter = ("job", "node")
    ordering = ("-written_at",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody writes evidence by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: WorkLog | None = None) -> bool:
        """Nobody changes it."""
        return False
