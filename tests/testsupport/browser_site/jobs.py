"""The jobs of the site: one that is often due, one that fails, and one that nobody waits for."""

from leader_jobs import leader_only


@leader_only(every=1, name="tick")
def tick() -> None:
    """Do nothing, each second."""


@leader_only(every=2, name="fails")
def fails() -> None:
    """Fail, with a message that would be markup if it were let."""
    msg = "<b>no route</b> to the mail server"
    raise RuntimeError(msg)


@leader_only(cron="0 0 1 1 *", name="once a year")
def rare() -> None:
    """Be there to be run when somebody asks."""
