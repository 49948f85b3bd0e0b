"""
What the shop keeps, and the evidence of who did it.

`Order` → `Shipment` is an outbox: an order is to be shipped once, and the database itself refuses a
second shipment. `WorkLog` is the opposite: it refuses nothing, so that a run that happened twice is
there to be seen twice.
"""

from django.db import models


class Order(models.Model):
    """An order; to be shipped once."""

    customer = models.CharField(max_length=50)
    amount = models.DecimalField(max_digits=8, decimal_places=2)
    placed_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"


class Shipment(models.Model):
    """The shipment of an order; that it is one to one is a unique constraint."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT)
    shipped_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"shipment {self.pk}"


class MinuteRevenue(models.Model):
    """What was ordered in one minute."""

    minute = models.DateTimeField(unique=True)
    orders = models.PositiveIntegerField()
    revenue = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        verbose_name_plural = "minute revenue"

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"


class WorkLog(models.Model):
    """
    One run that did its work: written in the same transaction as the work, and never changed.

    There is deliberately no unique constraint: two rows for one job and planned instant are a
    doubled run.
    """

    job = models.CharField(max_length=200)
    planned_at = models.DateTimeField()
    occurrence = models.UUIDField()
    token = models.BigIntegerField()
    attempt = models.PositiveIntegerField()
    node = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    written_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "work log"
        indexes = (models.Index(fields=["job", "planned_at"]),)

    def __str__(self) -> str:
        return f"{self.job} of {self.planned_at:%H:%M:%S} on {self.node}"
