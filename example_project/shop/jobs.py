"""
The shop's periodic jobs. ``manage.py runleader`` finds them here and runs them on one node.

Each does its work and writes its `WorkLog` row in one transaction: both happened, or neither did.
All are computed from `planned_at`, never from the present moment, so that an occurrence that is late
does what it would have done on time. ``catch_up="all"`` because each occurrence counts here; most
jobs of real sites are better off with the default, which runs the newest missed one only.
"""

from datetime import timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Count, Sum

from leader_jobs import leader_only
from shop.evidence import begin, is_recorded, record
from shop.models import MinuteRevenue, Order, Shipment

CUSTOMERS = ("Ada", "Barbara", "Edsger", "Grace", "Leslie", "Tony")


@leader_only(every=1, name="place_orders", catch_up="all")
def place_orders() -> None:
    """Place one to three orders a second, so that there is something to do."""
    with transaction.atomic():
        run = begin()
        second = int(run.planned_at.timestamp())
        for n in range(1 + second % 3):
            Order.objects.create(
                customer=CUSTOMERS[(second + n) % len(CUSTOMERS)],
                amount=Decimal(second % 97 + n) + Decimal("0.99"),
                placed_at=run.planned_at,
            )
        record(run)


@leader_only(every=1, name="ship_orders", catch_up="all", on_crash="rerun")
def ship_orders() -> None:
    """
    Ship what was ordered up to the planned instant.

    ``on_crash="rerun"``: if the process that runs this dies, another attempt is made, which has to
    find out how far the former one came. Attempt 1 does not ask: if the library ever gave one
    occurrence to two nodes, the `WorkLog` would show it.
    """
    with transaction.atomic():
        run = begin()
        if run.attempt > 1 and is_recorded(run):
            return
        due = Order.objects.filter(shipment=None, placed_at__lte=run.planned_at)
        Shipment.objects.bulk_create(Shipment(order=o, shipped_at=run.planned_at) for o in due)
        record(run)


@leader_only(every=2, name="roll_up", catch_up="all")
def roll_up() -> None:
    """Add up the revenue of the current minute, and of the one before, which may have ended."""
    with transaction.atomic():
        run = begin()
        this_minute = run.planned_at.replace(second=0, microsecond=0)
        for minute in (this_minute - timedelta(minutes=1), this_minute):
            placed = Order.objects.filter(
                placed_at__gte=minute, placed_at__lt=minute + timedelta(minutes=1)
            )
            total = placed.aggregate(orders=Count("pk"), revenue=Sum("amount", default=0))
            MinuteRevenue.objects.update_or_create(minute=minute, defaults=total)
        record(run)
