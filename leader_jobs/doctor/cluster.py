"""How an etcd cluster is: members, versions, clocks, leases, rights."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from shlex import quote
from typing import Final

from leader_jobs.clock import Clock
from leader_jobs.config import Settings, Timing
from leader_jobs.doctor.clocks import apart
from leader_jobs.doctor.findings import Finding, fine, problem, refused, warning
from leader_jobs.durations import how_long
from leader_jobs.exceptions import StoreError
from leader_jobs.stores.etcd_checkup import Checkup, Cluster, Expiry, Member

__all__ = ["examine_cluster", "known_bugs"]

_Version = tuple[int, int, int]
#: From one version on, up to but without another: what is wrong there.
_BUGS: Final[Sequence[tuple[_Version, _Version, str]]] = (
    (
        (0, 0, 0),
        (3, 4, 31),
        "a member with a stalled disk goes on confirming leases that the cluster has revoked (etcd#15247)",
    ),
    (
        (3, 5, 0),
        (3, 5, 13),
        "a member with a stalled disk goes on confirming leases that the cluster has revoked (etcd#15247)",
    ),
    ((3, 5, 0), (3, 5, 3), "members may come to differ in their data after a crash (etcd#13766)"),
    ((3, 5, 0), (3, 5, 23), "a renewal of a revoked lease may be answered as good (etcd#20615)"),
    ((3, 6, 0), (3, 6, 5), "a renewal of a revoked lease may be answered as good (etcd#20615)"),
)
_OLDEST: Final = (3, 4, 0)
#: At the latest seconds of difference between clocks that are worth a word, and that hurt.
_APART: Final = 1.0
_FAR_APART: Final = 10.0
#: A renewal is two calls; it has to fit into a lease with room for two more tries.
_ROUND_TRIPS: Final = 3
#: etcd's own limit unless it is told otherwise, and how full is nearly full.
_QUOTA: Final = 2 * 2**30
_NEARLY: Final = 0.8


def examine_cluster(settings: Settings, *, clock: Clock, timeout: float) -> Iterator[Finding]:
    """Yield what there is to say of the cluster; the last one is fatal if it can not be used."""
    with closing(Checkup(settings, clock=clock, timeout=timeout)) as checkup:
        members: dict[str, Member] = {}
        for endpoint in checkup.endpoints:
            try:
                members[str(endpoint)] = checkup.member(endpoint)
            except StoreError as error:
                yield _missed(str(endpoint), error)
            else:
                yield _reached(str(endpoint), members[str(endpoint)])
        if not members:
            yield problem("store", "no member of the cluster can be used", "see above", fatal=True)
            return
        checkup.use([endpoint for endpoint in checkup.endpoints if str(endpoint) in members])
        yield from _versions(members)
        if len({member.cluster for member in members.values()}) > 1:
            yield _split(members)
            return
        away = len(checkup.endpoints) - len(members)
        yield from _identity(members, away, checkup.cluster())
        yield from _room(members)
        yield from _clocks(members)
        try:
            yield from _rights_and_leases(checkup, settings, members)
        except StoreError as error:
            yield problem("store", str(error), "see to the cluster, then look again", fatal=True)


def _missed(endpoint: str, error: StoreError) -> Finding:
    if error.lasting:
        return refused("endpoint", error)
    return problem("endpoint", str(error), f"see to the member at {endpoint}, or name another")


def _reached(endpoint: str, member: Member) -> Finding:
    if member.leader == 0:
        return problem(
            "endpoint",
            f"{endpoint} answers, and knows no leader of the cluster",
            "start the other members, or let them reach this one",
        )
    if member.learner:
        return warning(
            "endpoint",
            f"{endpoint} is a learner, which can not answer for the cluster",
            "promote it, or leave it out of the store's URL",
        )
    trip = how_long(member.round_trip)
    return fine("endpoint", f"{endpoint} answers; a consistent read takes {trip}")


# -- versions -------------------------------------------------------------------------------------


def known_bugs(version: str) -> tuple[str, ...]:
    """Return what is known to be wrong with leases in a version of etcd; nothing of a later one."""
    number = _number(version)
    if number is None:
        return ()
    return tuple(dict.fromkeys(text for first, last, text in _BUGS if first <= number < last))


def _number(version: str) -> _Version | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found is not None else None


def _versions(members: dict[str, Member]) -> Iterator[Finding]:
    by_version: dict[str, list[str]] = {}
    for endpoint, member in members.items():
        by_version.setdefault(member.version, []).append(endpoint)
    for version, endpoints in by_version.items():
        if not version:
            yield warning(
                "version",
                f"{', '.join(endpoints)} does not tell this user its version",
                "compare `etcdctl endpoint status`, as root, with what is known of etcd's versions",
            )
            continue
        where = f"etcd {version} at {', '.join(endpoints)}"
        number = _number(version)
        if number is not None and number < _OLDEST:
            yield problem("version", f"{where} is too old", "upgrade to 3.5.23 or later")
        elif bugs := known_bugs(version):
            yield warning(
                "version",
                f"{where}: {'; '.join(bugs)}",
                "upgrade to the latest 3.5 or 3.6; until then leader-jobs confirms every renewal by a "
                "read of its own, and fences every write",
            )
        else:
            yield fine("version", f"{where}: no bugs of leases are known")


# -- the cluster ----------------------------------------------------------------------------------


def _split(members: dict[str, Member]) -> Finding:
    groups = ", ".join(f"{endpoint} in {member.cluster:x}" for endpoint, member in members.items())
    return problem(
        "cluster",
        f"the endpoints belong to different clusters, each with an election of its own: {groups}",
        "name members of one cluster alone",
        fatal=True,
    )


def _identity(members: dict[str, Member], away: int, cluster: Cluster | None) -> Iterator[Finding]:
    if cluster is None:
        return
    named = len({member.id for member in members.values()}) + away
    if named < cluster.size:
        yield warning(
            "cluster",
            f"the store's URL names {named} of the cluster's {cluster.size} members",
            "name all of them, so that calls can go on with the others when one is away",
        )
    elif cluster.size == 1:
        yield warning(
            "cluster",
            "the cluster has one member: while that is away nobody leads",
            "run three members, on three hosts",
        )
    else:
        yield fine("cluster", f"all {cluster.size} members are named")
    for alarm in cluster.alarms:
        yield problem(
            "alarm",
            f"the cluster has raised the alarm {alarm}, and takes no writes",
            "compact and defragment it, then etcdctl alarm disarm"
            if alarm == "NOSPACE"
            else "see `etcdctl alarm list` and etcd's manual on corruption",
        )


def _room(members: dict[str, Member]) -> Iterator[Finding]:
    for endpoint, member in members.items():
        for error in member.errors:
            yield warning("endpoint", f"{endpoint} says: {error}", "see its log")
        quota = member.quota or _QUOTA
        if member.size > _NEARLY * quota:
            yield warning(
                "room",
                f"the database of {endpoint} has {member.size / 2**20:.0f} MiB; at "
                f"{quota / 2**20:.0f} MiB it takes no writes any more"
                f"{'' if member.quota else ', unless it was told otherwise'}",
                "run etcd with --auto-compaction-retention=1h, and defragment it",
            )


def _clocks(members: dict[str, Member]) -> Iterator[Finding]:
    """Compare each member's clock with ours, to the second that HTTP tells."""
    differences = {
        e: apart(member.clock) for e, member in members.items() if member.clock is not None
    }
    if not differences:
        return
    endpoint = max(differences, key=lambda e: abs(differences[e]))
    worst = differences[endpoint]
    if abs(worst) < _APART:
        yield fine("clock", "this host's clock agrees with those of the members, to about a second")
        return
    way = "behind" if worst > 0 else "ahead of"
    yield (problem if abs(worst) >= _FAR_APART else warning)(
        "clock",
        f"this host's clock is {how_long(abs(worst))} {way} that of {endpoint}",
        "have both keep time by NTP; jobs start by the leader's clock",
    )


# -- rights and leases ----------------------------------------------------------------------------


def _rights_and_leases(
    checkup: Checkup, settings: Settings, members: dict[str, Member]
) -> Iterator[Finding]:
    missing = checkup.missing_rights()
    user = f"user {settings.user!r}" if settings.user else "anybody"
    for prefix in missing:
        yield problem(
            "rights",
            f"{user} may not read and write under {prefix}",
            f"etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}",
        )
    if not missing:
        yield fine("rights", f"{user} may read and write all of election {settings.election!r}")
        for key in checkup.squatters():
            yield problem(
                "squatter",
                f"the key {key} has no lease: whoever stands behind it never leads",
                f"etcdctl del -- {quote(key)}",
            )
        for intruder in checkup.intruders():
            what, _, remedy = intruder.rpartition("; ")
            yield problem("namespace", what, remedy)
    granted = checkup.granted(settings.ttl)
    yield _grant(settings.ttl, granted)
    yield _pace(granted, max(member.round_trip for member in members.values()))
    if not missing:
        yield _expiry(checkup.expiry())


def _grant(asked: float, granted: float) -> Finding:
    if granted > asked:
        return warning(
            "ttl",
            f"of a ttl of {asked:g} s the cluster makes {granted:g} s: takeovers take that long",
            "lower etcd's --election-timeout, of which it grants one and a half at least, or ask for more",
        )
    return fine("ttl", f"a ttl of {granted:g} s is granted, as asked for")


def _pace(ttl: float, round_trip: float) -> Finding:
    renewal, try_ = 2 * round_trip, Timing(ttl).call_timeout
    took = f"a call takes {how_long(round_trip)}"
    if ttl < _ROUND_TRIPS * renewal or round_trip > try_:
        return problem(
            "pace",
            f"{took}; with a ttl of {ttl:g} s one that takes {how_long(try_)} is given up, so leases run out",
            "raise ttl, or bring this host nearer to the cluster",
        )
    return fine("pace", f"{took}, a renewal two of them; a ttl of {ttl:g} s has room for many")


def _expiry(found: Expiry) -> Finding:
    granted = f"a test lease of {found.granted:g} s"
    if found.gone_after is None:
        return problem(
            "expiry",
            f"{granted} did not run out: a leader that dies is never replaced",
            "look for 'failed to revoke lease' in etcd's log; it is known of servers that only verify JWT "
            "tokens (etcd#14616), and after a change of root's password (etcd#13975)",
        )
    if found.gone_after < found.granted:
        return problem(
            "expiry",
            f"{granted} ran out after {found.gone_after:.1f} s already: two may lead at once",
            "see to the clock of etcd's leader",
        )
    return fine("expiry", f"{granted} ran out after {found.gone_after:.1f} s")
