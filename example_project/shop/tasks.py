"""The shop's Celery tasks; ``celery -A site_config.celery beat -S leader`` finds them here."""

from celery import shared_task
from celery.utils.log import get_task_logger

from leader_jobs import current_run, leader_only
from shop.models import Order, Shipment

_log = get_task_logger(__name__)


@shared_task
@leader_only(every=5, name="count_stock")
def count_stock() -> None:
    """Say how many orders there are; once per planned instant, however many beats and workers run."""
    run = current_run()
    assert run is not None  # noqa: S101  for mypy: the guard let us in
    _log.info(
        "%s, term %d: %d orders, %d shipped",
        run.planned_at,
        run.token,
        Order.objects.count(),
        Shipment.objects.count(),
    )
