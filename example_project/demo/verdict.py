"""The end: a table of what was planned and what was done, and whether that is right."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from demo.accounts import Account
from demo.observer import Observer
from leader_jobs.records import State
from shop.models import Order, Shipment

__all__ = ["faults", "summary"]

_COLUMNS = ("planned", "run", "doubled", "missed")
#: An order may be placed a little after the shipping run of its second.
_SHIPPED_AFTER = timedelta(seconds=3)


def summary(accounts: Sequence[Account]) -> Iterator[str]:
    """Yield the lines of the table; a state of the ledger has a column if it occurs."""
    states = sorted({state for account in accounts for state in account.settled})
    yield f"{'job':<14}" + "".join(f"{title:>13}" for title in (*_COLUMNS, *states))
    for account in accounts:
        numbers = [account.planned, account.run, account.doubled, len(account.missed)]
        numbers += [account.settled[state] for state in states]
        yield f"{account.job:<14}" + "".join(f"{number:>13}" for number in numbers)


def faults(accounts: Iterable[Account], observer: Observer) -> Iterator[str]:
    """Yield a line for everything that is not as promised."""
    for account in accounts:
        if not account.run:
            yield f"{account.job} never ran"
        if account.doubled:
            yield f"{account.job} ran {account.doubled} times too often"
        if account.missed:
            yield f"{account.job} missed {', '.join(f'{i:%H:%M:%S}' for i in account.missed)}"
        if account.unplanned:
            yield f"{account.job} ran at {account.unplanned}, which is not in its schedule"
        if account.settled[State.FAILED]:
            yield f"{account.job} failed {account.settled[State.FAILED]} times"
    yield from _unshipped(observer)


def _unshipped(observer: Observer) -> Iterator[str]:
    """Yield a line if an order is not shipped that should be; a second shipment is impossible."""
    runs = [row.planned_at for row in observer.work if row.job == "ship_orders"]
    if not runs:
        return
    left = Order.objects.filter(shipment=None, placed_at__lt=max(runs) - _SHIPPED_AFTER).count()
    if left:
        yield f"{left} orders were never shipped"
    if Shipment.objects.count() > Order.objects.count():
        yield "there are more shipments than orders"
