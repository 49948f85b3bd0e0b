"""What the entries run."""

from celery import shared_task

__all__ = ["add"]


@shared_task(name="add")
def add(*numbers: float) -> float:
    """Add numbers."""
    return sum(numbers)
