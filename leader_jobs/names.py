"""
Names of elections, jobs, namespaces and nodes: checked once, here, before they become keys.

Names end up in etcd keys, in lock-file names and on web pages. An election's name carries no slash,
so that no election can lie inside another's prefix: a key there would keep both from ever electing
anybody (a holder in ``n/sub`` blocks the election ``n``).
"""

import re
from collections.abc import Iterable

from leader_jobs.exceptions import ConfigurationError

__all__ = [
    "check_election",
    "check_electorate",
    "check_job",
    "check_namespace",
    "check_node",
    "is_election",
    "nearest",
    "runners_of",
]

_MAX = 128
_RUNNERS = ".runners"
#: What lies in a namespace on etcd.
_FOLDERS = ("elections", "ledger")
_ELECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Entries of a beat schedule are called things like ``add every 10 s (eu)``.
_JOB = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9 ._:@()+,-]*[A-Za-z0-9._:@()+,-])?")
_NAMESPACE = re.compile(r"/?[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def _check(kind: str, name: object, pattern: re.Pattern[str], allowed: str) -> str:
    if not isinstance(name, str) or not name:
        msg = f"{kind} must be a non-empty string, not {name!r}"
        raise ConfigurationError(msg)
    if len(name) > _MAX:
        msg = f"{kind} {name[:20]!r}… has {len(name)} characters; at most {_MAX} are allowed"
        raise ConfigurationError(msg)
    if pattern.fullmatch(name) is None:
        msg = f"{kind} {name!r} is not valid: {allowed}"
        raise ConfigurationError(msg)
    return name


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of *known* that *word* was probably meant to be, for "did you mean"."""
    import difflib  # for messages only: it costs more to import than this whole module

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=cutoff)), None)


def check_election(name: object) -> str:
    """Return *name* if it can name an election; raise `ConfigurationError` otherwise."""
    checked = _check(
        "election",
        name,
        _ELECTION,
        "use letters, digits, '.', '_' and '-', no slash; begin with a letter or digit",
    )
    if checked.endswith(_RUNNERS):
        msg = f"election {name!r} is not valid: names that end in {_RUNNERS!r} are kept for workers"
        raise ConfigurationError(msg)
    return checked


def is_election(name: object) -> bool:
    """Whether *name* can name an election."""
    try:
        check_election(name)
    except ConfigurationError:
        return False
    return True


def runners_of(election: str) -> str:
    """
    Return the electorate of the processes that run jobs of *election* without standing in it.

    Nobody is elected there: its leases show which of those processes live.
    """
    return f"{election}{_RUNNERS}"


def check_electorate(name: str) -> str:
    """Return *name* if it names an electorate: that of an election, or that of its `runners_of`."""
    check_election(name.removesuffix(_RUNNERS))
    return name


def check_job(name: object) -> str:
    """Return *name* if it can name a job; raise `ConfigurationError` otherwise."""
    return _check(
        "job name",
        name,
        _JOB,
        "use letters, digits, spaces and '.', '_', '-', ':', '@', '+', ',', '(', ')'; "
        "begin with a letter, a digit or '_'",
    )


def check_namespace(name: object) -> str:
    """
    Return *name* if it can be a namespace; raise `ConfigurationError` otherwise.

    One that lies within another one's elections or ledger can not: its keys would be candidates there.
    """
    checked = _check(
        "namespace", name, _NAMESPACE, "use letters, digits, '.', '_', '-', and '/' between parts"
    )
    parts = checked.removeprefix("/").split("/")
    for folder in _FOLDERS:
        if folder in parts[1:]:
            outer = "/".join(parts[: parts.index(folder, 1)])
            msg = (
                f"namespace {name!r} would lie within what namespace {outer!r} keeps under "
                f"{outer}/{folder}/; use one without {folder!r} as a part"
            )
            raise ConfigurationError(msg)
    return checked


def check_node(name: object) -> str:
    """Return *name* if it can label a node: any printable text; it is never part of a key."""
    if not isinstance(name, str) or not name or len(name) > _MAX or not name.isprintable():
        shown = name[:20] if isinstance(name, str) else name
        msg = f"node must be 1 to {_MAX} printable characters, not {shown!r}"
        raise ConfigurationError(msg)
    return name
