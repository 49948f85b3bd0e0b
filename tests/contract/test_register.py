"""Records, versions and guarded commits: the same on every store."""

import threading

import pytest

from leader_jobs.exceptions import Conflict, Fenced, StoreRefused
from leader_jobs.names import runners_of
from leader_jobs.stores.base import ABSENT, Record, Survey, Write
from testsupport.background import Background
from testsupport.place import ELECTION, Place

# More than this is not worth a test's time where a store takes it.
MOST_WRITES = 1000
MOST_BYTES = 2_000_000


# -- versions ---------------------------------------------------------------------------------------


def test_an_empty_register_has_no_records(place: Place) -> None:
    """Reading before anything was written finds nothing."""
    assert place.read() == {}


def test_the_version_returned_is_the_version_read(place: Place) -> None:
    """Every record of one commit has the version that the commit returned."""
    version = place.commit(Write("a", b"1"), Write("b", b"2"))

    assert version != ABSENT
    assert place.read() == {"a": Record(b"1", version), "b": Record(b"2", version)}


def test_another_process_reads_the_same(place: Place) -> None:
    """What one store object committed, another reads at once."""
    version = place.commit(Write("a", b"1"))

    assert place.open().read(ELECTION, "a", deadline=place.within()) == {"a": Record(b"1", version)}


def test_versions_only_grow(place: Place) -> None:
    """No version ever comes back, not even that of a record that was removed in between."""
    versions = [place.commit(Write("a", b"1"))]
    versions.append(place.commit(Write("a", b"2"), Write("b", b"1")))
    place.commit(Write("a", None))
    versions.append(place.commit(Write("a", b"1", expect=ABSENT)))

    assert versions == sorted(set(versions))
    with pytest.raises(Conflict):
        place.commit(Write("a", b"stale", expect=versions[0]))


def test_only_written_records_change_version(place: Place) -> None:
    """A commit leaves the versions of other records alone."""
    before = place.commit(Write("a", b"1"))
    after = place.commit(Write("b", b"1"))

    assert place.read() == {"a": Record(b"1", before), "b": Record(b"1", after)}


# -- guards -----------------------------------------------------------------------------------------


def test_the_expected_version_lets_a_write_pass(place: Place) -> None:
    """Read, change, write at the version read."""
    version = place.commit(Write("a", b"1", expect=ABSENT))
    newer = place.commit(Write("a", b"2", expect=version))

    assert place.read() == {"a": Record(b"2", newer)}


def test_a_commit_is_all_or_nothing(place: Place) -> None:
    """One wrong guard of three and nothing is written; the refusal names the record."""
    version = place.commit(Write("a", b"1"), Write("b", b"1"))
    place.commit(Write("b", b"2"))
    before = place.read()

    with pytest.raises(Conflict) as caught:
        place.commit(
            Write("a", b"new", expect=version),
            Write("b", b"new", expect=version),
            Write("c", b"new", expect=ABSENT),
            Write("d", b"new"),
        )

    assert caught.value.keys == ("b",)
    assert place.read() == before


def test_every_record_that_differs_is_named(place: Place) -> None:
    """Whoever is refused learns of all conflicts at once."""
    version = place.commit(Write("a", b"1"), Write("b", b"1"))

    with pytest.raises(Conflict) as caught:
        place.commit(
            Write("a", b"new", expect=ABSENT),
            Write("b", b"new", expect=version),
            Write("c", b"new", expect=version),
        )

    assert set(caught.value.keys) == {"a", "c"}


def test_absent_means_absent(place: Place) -> None:
    """The first writer of a new record wins, the second is refused."""
    place.commit(Write("a", b"", expect=ABSENT))

    with pytest.raises(Conflict):
        place.commit(Write("a", b"second", expect=ABSENT))
    assert place.read()["a"].value == b""


def test_a_write_without_guard_always_passes(place: Place) -> None:
    """Where the caller does not care, the last writer wins."""
    place.commit(Write("a", b"1"))
    place.commit(Write("a", b"2"))

    assert place.read()["a"].value == b"2"


def test_a_record_can_be_removed(place: Place) -> None:
    """Removal is a write like others: guarded, unguarded, and of nothing."""
    version = place.commit(Write("a", b"1"), Write("b", b"1"))

    with pytest.raises(Conflict):
        place.commit(Write("a", None, expect=version + 1))
    place.commit(Write("a", None, expect=version))
    place.commit(Write("b", None), Write("never-there", None))

    assert place.read() == {}


# -- the fence --------------------------------------------------------------------------------------


def test_the_leader_may_write(place: Place) -> None:
    """A commit under the term that leads passes, with guards and without."""
    leader = place.enrol()

    version = place.commit(Write("a", b"1", expect=ABSENT), under=leader)
    place.commit(Write("a", b"2", expect=version), Write("b", b"1"), under=leader)

    assert place.read("a")["a"].value == b"2"


def test_a_waiter_may_not_write(place: Place) -> None:
    """A living candidacy that does not lead is fenced, and nothing is written."""
    place.enrol()
    waiter = place.enrol()

    with pytest.raises(Fenced):
        place.commit(Write("a", b"1"), under=waiter)
    assert place.read() == {}


def test_one_that_withdrew_may_not_write(place: Place) -> None:
    """After the last commit comes none."""
    leader = place.enrol()
    place.store.withdraw(leader, deadline=place.within())

    with pytest.raises(Fenced):
        place.commit(Write("a", b"1"), under=leader)
    assert place.read() == {}


def test_a_deposed_leader_is_fenced_though_its_guards_would_hold(place: Place) -> None:
    """A commit prepared in the old term, with versions still right, changes nothing in the new."""
    old = place.enrol(ttl=place.ttl)
    new = place.enrol()
    prepared = [Write("a", b"old", expect=place.commit(Write("a", b"1"), under=old))]
    place.wait_gone(old, ahead_of=new)

    with pytest.raises(Fenced):
        place.commit(*prepared, under=old)
    assert place.read()["a"].value == b"1"
    place.commit(Write("a", b"new"), under=new)
    assert place.read()["a"].value == b"new"


def test_the_fence_is_named_before_a_conflict(place: Place) -> None:
    """Who does not lead is told so, rather than sent to read and try again."""
    old, new = place.enrol(), place.enrol()
    version = place.commit(Write("a", b"1"), under=old)
    place.store.withdraw(old, deadline=place.within())
    place.commit(Write("a", b"2"), under=new)

    with pytest.raises(Fenced):
        place.commit(Write("a", b"late", expect=version), under=old)


def test_elections_have_their_own_fences(place: Place) -> None:
    """The leader of one election waits in another; each fence asks about its own."""
    here = place.enrol(election="here")
    place.enrol(election="there")
    waiting = place.enrol(election="there")

    place.commit(Write("a", b"1"), under=here, election="here")
    with pytest.raises(Fenced):
        place.commit(Write("a", b"1"), under=waiting, election="there")


# -- reading ----------------------------------------------------------------------------------------

KEYS = (
    "job", "job/1", "job/10", "job/2", "jobs", "Job", "joc", "j_b", "j%b", "j*b", "j?b", "j[o]b",
    "%", "_", "*", "it's", 'so"so', "back\\slash", "ünïcode", "job\U0010ffff", "job/\x7f", "a b",
)  # fmt: skip


@pytest.mark.parametrize(
    "prefix",
    ["", "j", "job", "job/", "job/1", "J", "%", "_", "j%", "j_", "j*", "*", "j?", "j[", "it'", '"',
     "back\\", "ü", "job\U0010ffff", "nothing"],
)  # fmt: skip
def test_a_prefix_is_taken_literally(place: Place, prefix: str) -> None:
    """Exactly the keys that start with it are read; no character means anything else."""
    place.commit(*(Write(key, key.encode()) for key in reversed(KEYS)))

    found = place.read(prefix)

    assert {key: record.value for key, record in found.items()} == {
        key: key.encode() for key in KEYS if key.startswith(prefix)
    }


@pytest.mark.parametrize(
    "prefixes",
    [("job", "%"), ("job/1", "job", "job/"), ("nothing", "a"), ("nothing", "none"), ("j", "j")],
)
def test_several_prefixes_are_read_at_once(place: Place, prefixes: tuple[str, ...]) -> None:
    """A record under any of them is read, and once."""
    place.commit(*(Write(key, key.encode()) for key in reversed(KEYS)))

    found = place.read(*prefixes)

    assert {key: record.value for key, record in found.items()} == {
        key: key.encode() for key in KEYS if key.startswith(prefixes)
    }
    assert found == {key: record for key, record in place.read().items() if key in found}
    assert place.store.read(ELECTION, deadline=place.within()) == {}


def test_many_prefixes_are_read_as_of_one_moment(place: Place) -> None:
    """Two hundred, with more records than a server hands out at a time, while somebody writes."""
    many = [f"big/{number:04d}" for number in range(1200)]
    for first in range(0, len(many), 100):
        place.commit(*(Write(key, b"") for key in many[first : first + 100]))
    folders = [f"{number:03d}/" for number in range(200)]
    ends = f"{folders[0]}x", f"{folders[-1]}x"
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            place.commit(*(Write(key, b"") for key in ends))

    place.commit(*(Write(key, b"") for key in ends))
    writing = Background(write)
    seen: set[int] = set()
    try:
        while len(seen) < 5:
            found = place.read(folders[0], "big/", *folders[1:])
            assert found.keys() == {*many, *ends}
            assert found[ends[0]] == found[ends[1]]
            seen.add(found[ends[0]].version)
    finally:
        enough.set()
        writing.result()


def test_elections_are_surveyed_together(place: Place) -> None:
    """Of each it is seen who leads and waits, who only runs jobs, and the records asked for."""
    first, second = (place.enrol(name, election="mail") for name in (b"first", b"second"))
    runner = place.enrol(b"runner", election=runners_of("mail"))
    place.commit(Write("a/1", b"1"), Write("b/1", b"2"), Write("c/1", b"3"), election="mail")
    place.commit(Write("a/1", b"4"), election="mail-x")

    names = ["mail-x", "nobody", "mail"]
    found = place.store.survey(names, "a/", "b/", deadline=place.within())

    assert list(found) == names
    assert found["nobody"] == Survey((), (), {})
    assert found["mail-x"] == Survey((), (), place.read("a/", election="mail-x"))
    mail = found["mail"]
    assert [entrant.id for entrant in mail.candidates] == [first.id, second.id]
    assert [entrant.proposal for entrant in mail.candidates] == [b"first", b"second"]
    assert [entrant.ttl for entrant in mail.candidates] == [30.0, None]
    assert mail.candidates[0].remaining == pytest.approx(30.0, abs=5)
    assert mail.candidates[1].remaining is None
    assert [(entrant.id, entrant.ttl) for entrant in mail.runners] == [(runner.id, None)]
    assert mail.records == place.read("a/", "b/", election="mail")
    assert place.store.survey([], "a/", deadline=place.within()) == {}


def test_many_elections_are_surveyed_together(place: Place) -> None:
    """More than a server looks at in one request."""
    names = [f"election{number}" for number in range(70)]
    for name in names:
        place.commit(Write("a", name.encode()), election=name)

    found = place.store.survey(names, "a", "b", deadline=place.within())

    assert [found[name].records["a"].value.decode() for name in names] == names


def test_elections_do_not_share_records(place: Place) -> None:
    """However alike the names, each election reads and guards its own records only."""
    names = ["mail", "mail2", "mail-x", "mai", "mail.x", "Mail"]
    for name in names:
        place.commit(Write("job", name.encode(), expect=ABSENT), election=name)

    for name in names:
        found = place.read(election=name)
        assert {key: record.value for key, record in found.items()} == {"job": name.encode()}


def test_candidates_are_no_records(place: Place) -> None:
    """Electorate and register of an election do not meet."""
    place.enrol(b"proposal")
    place.commit(Write("job", b"1"))

    assert set(place.read()) == {"job"}
    assert len(place.store.candidates(ELECTION, deadline=place.within())) == 1


# -- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [b"", b"\0", bytes(range(256)), b"\xff" * 1000, b"x" * 100_000],
    ids=["empty", "zero", "all", "bad", "long"],
)  # fmt: skip
def test_a_value_may_be_any_bytes(place: Place, value: bytes) -> None:
    """What was written is read, text or not."""
    place.commit(Write("a", value))

    assert place.read()["a"].value == value


def test_as_many_guards_as_the_limits_say(place: Place) -> None:
    """A fenced commit may carry exactly as many guarded writes as `limits` says."""
    leader = place.enrol()
    count = min(place.store.limits.guards, MOST_WRITES)
    keys = [f"job/{number}" for number in range(count)]

    version = place.commit(*(Write(key, b"1", expect=ABSENT) for key in keys), under=leader)
    place.commit(*(Write(key, b"2", expect=version) for key in keys), under=leader)

    assert len(place.read("job/")) == count
    assert {record.value for record in place.read().values()} == {b"2"}


def test_as_many_writes_as_the_limits_say(place: Place) -> None:
    """A fenced commit may carry exactly as many writes as `limits` says."""
    leader = place.enrol()
    count = min(place.store.limits.writes, MOST_WRITES)

    place.commit(*(Write(f"job/{number}", b"1") for number in range(count)), under=leader)

    assert len(place.read("job/")) == count


def test_as_many_bytes_as_the_limits_say(place: Place) -> None:
    """Keys and values may add up to exactly what `limits` says."""
    leader = place.enrol()
    size = min(place.store.limits.size, MOST_BYTES)

    place.commit(Write("big", bytes(size - 6), expect=ABSENT), Write("end", b""), under=leader)

    assert len(place.read()["big"].value) == size - 6


@pytest.mark.parametrize("what", ["guards", "writes"])
def test_more_than_the_limits_is_refused(place: Place, what: str) -> None:
    """One write too many for a fenced commit and nothing is written; that it is final is said."""
    leader = place.enrol()
    count = getattr(place.store.limits, what) + 1
    expect = ABSENT if what == "guards" else None

    with pytest.raises(StoreRefused):
        place.commit(
            *(Write(f"job/{number}", b"", expect=expect) for number in range(count)), under=leader
        )
    assert place.read() == {}


def test_a_record_named_twice_is_refused(place: Place) -> None:
    """Which of the two would win is nobody's guess."""
    with pytest.raises(StoreRefused):
        place.commit(Write("a", b"1"), Write("b", b"1"), Write("a", b"2"))
    assert place.read() == {}
