"""`leader_only`: the guard of a function, and the registry of jobs."""

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from leader_jobs.config import application
from leader_jobs.exceptions import ConfigurationError, LeadershipLost, NotLeader
from leader_jobs.jobs import Job, JobRegistry, leader_only, registry
from leader_jobs.occurrences import CatchUp
from leader_jobs.runs import Lost, Run, assert_leader, current_run, running
from leader_jobs.schedules import Every
from leader_jobs.stores.base import Candidacy
from leader_jobs.term import EndReason, Term, held_terms
from leader_jobs.testing import ManualClock

#: The election of functions that name none.
DEFAULT = "default"


@pytest.fixture(name="clock")
def _clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(name="jobs")
def _jobs() -> JobRegistry:
    return JobRegistry()


@pytest.fixture(autouse=True)
def _default_application(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the environment decide about the default election, and let it say nothing."""
    monkeypatch.delenv("LEADER_JOBS_ELECTION", raising=False)
    application.configure(None)
    yield
    application.configure(None)


def make_term(clock: ManualClock, election: str = DEFAULT) -> Term:
    """Return a term."""
    candidacy = Candidacy(election=election, id="a", token=7, ttl=15.0)
    return Term(candidacy=candidacy, deadline=clock.now() + 12.0, clock=clock)


@pytest.fixture(name="term")
def _term(clock: ManualClock) -> Iterator[Term]:
    """Return a term of the default election that this process holds."""
    term = make_term(clock)
    held_terms.post(term)
    yield term
    held_terms.remove(term)


def make_run(term: Term) -> Run:
    """Return a run under *term*."""
    return Run(
        election=term.election,
        job="j",
        occurrence="o",
        planned_at=datetime(2026, 1, 1, tzinfo=UTC),
        token=term.token,
        attempt=1,
        lost=Lost(term),
    )


# -- the guard ----------------------------------------------------------------------------------------


@leader_only
def double(number: int, *, plus: int = 0) -> int:
    """Return twice the number."""
    return 2 * number + plus


@leader_only(on_standby="raise")
def strict() -> str:
    """Return something."""
    return "done"


@leader_only(election="other", on_standby="raise")
def elsewhere() -> str:
    """Return something."""
    return "done"


def test_a_standby_does_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """None is returned, and the log says why."""
    caplog.set_level("INFO")

    assert double(2) is None
    assert "double not run: this node does not lead election 'default'" in caplog.text


def test_a_standby_that_is_to_raise_raises() -> None:
    """The message names function and election."""
    with pytest.raises(NotLeader, match=r"strict not run: this node does not lead .*'default'"):
        strict()


@pytest.mark.usefixtures("term")
def test_the_leader_runs_the_body() -> None:
    """With its arguments, and its result comes back."""
    assert double(2, plus=1) == 5
    assert strict() == "done"


@pytest.mark.usefixtures("term")
def test_leading_one_election_is_not_leading_another() -> None:
    """A function belongs to one election."""
    with pytest.raises(NotLeader, match="'other'"):
        elsewhere()


def test_a_term_in_doubt_starts_nothing(term: Term) -> None:
    """While renewals fail nothing new begins."""
    term.suspended = True
    with pytest.raises(NotLeader, match="in doubt"):
        strict()
    term.suspended = False

    assert strict() == "done"


def test_a_term_that_nobody_saw_end_starts_nothing(term: Term, clock: ManualClock) -> None:
    """The deadline is looked at in each call."""
    clock.advance(12)

    assert not term.ended.is_set()
    assert double(2) is None


def test_a_run_may_call_guarded_functions_of_its_election(clock: ManualClock) -> None:
    """The ledger has recorded it, whatever this process holds."""
    with running(make_run(make_term(clock))):
        assert strict() == "done"
        with pytest.raises(NotLeader):
            elsewhere()
    with pytest.raises(NotLeader):
        strict()


def test_a_run_that_is_lost_is_refused(term: Term, clock: ManualClock) -> None:
    """Even if this process leads again meanwhile: the run belongs to the former term."""
    former = make_term(clock)
    former.end(EndReason.LOST)

    with running(make_run(former)), pytest.raises(NotLeader, match=r"term 7 .* is over"):
        strict()
    assert term.active


@pytest.mark.usefixtures("term")
def test_a_run_of_another_election_does_not_stand_in_the_way(clock: ManualClock) -> None:
    """What counts there is the term this process holds."""
    with running(make_run(make_term(clock, "other"))):
        assert strict() == "done"
        assert elsewhere() == "done"


def test_a_coroutine_function_stays_one(term: Term) -> None:
    """It asks when it is awaited, not when it is called."""

    @leader_only
    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number

    assert inspect.iscoroutinefunction(answer)
    assert asyncio.run(answer(3)) == 3
    waiting = answer(3)
    term.end(EndReason.LOST)
    assert asyncio.run(waiting) is None


def test_a_decorated_function_looks_like_the_one_it_guards() -> None:
    """Name, text and signature are there for whoever looks at them."""
    assert double.__name__ == "double"
    assert double.__doc__ == "Return twice the number."
    assert str(inspect.signature(double)) == "(number: int, *, plus: int = 0) -> int"


def test_what_the_body_raises_goes_through(jobs: JobRegistry, term: Term) -> None:
    """The guard hides nothing."""

    @leader_only(every=1, name="fails", jobs=jobs)
    def fails() -> None:
        msg = "as written"
        raise ZeroDivisionError(msg)

    assert term.active
    with pytest.raises(ZeroDivisionError, match="as written"):
        fails()


# -- assert_leader ------------------------------------------------------------------------------------


def test_outside_of_a_run_the_election_has_to_be_named(term: Term) -> None:
    """And then the token of the term comes back."""
    assert assert_leader(DEFAULT) == term.token
    with pytest.raises(NotLeader, match="name the election"):
        assert_leader()
    with pytest.raises(NotLeader, match="does not lead election 'other'"):
        assert_leader("other")


def test_within_a_run_its_own_term_counts(clock: ManualClock) -> None:
    """Until it is over."""
    term = make_term(clock)
    with running(make_run(term)) as run:
        assert current_run() is run
        assert assert_leader() == assert_leader(DEFAULT) == term.token
        clock.advance(12)
        with pytest.raises(LeadershipLost, match="stop this run"):
            assert_leader()
    assert current_run() is None


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_waiting_for_the_loss_of_a_term_that_lasts_ends_in_time(
    clock: ManualClock, timeout: float
) -> None:
    """False means that it is still ours."""
    assert not make_run(make_term(clock)).lost.wait(timeout)


def test_waiting_sees_a_deadline_that_nobody_noticed(clock: ManualClock) -> None:
    """No event is set when a deadline passes."""
    run = make_run(make_term(clock))
    clock.advance(12)

    assert run.lost.wait()


# -- the registry -------------------------------------------------------------------------------------


def test_a_function_with_a_schedule_is_a_job(jobs: JobRegistry) -> None:
    """Under its full name, with its body unguarded."""

    @leader_only(
        every=30,
        name="mail.send",
        catch_up="all",
        window=timedelta(hours=6),
        max_burst=3,
        overlap=True,
        on_crash="rerun",
        jobs=jobs,
    )
    def send() -> str:
        return "sent"

    (job,) = jobs.of(DEFAULT)
    assert job.name == "mail.send"
    assert job.function() == "sent"
    assert send() is None
    assert job.schedule.fingerprint == Every(30).fingerprint
    assert (job.policy.catch_up, job.policy.max_burst) == (CatchUp.ALL, 3)
    assert job.policy.window == timedelta(hours=6)
    assert job.policy.overlap
    assert job.rerun_on_crash
    assert Path(job.place.rpartition(":")[0]).name == "test_jobs.py"


def test_a_job_takes_its_name_from_its_function(jobs: JobRegistry) -> None:
    """Module and name, as one would import it; and the defaults are careful ones."""

    def plain() -> None:
        """Do nothing."""

    plain.__qualname__ = "plain"
    leader_only(cron="0 3 * * *", timezone="Europe/Paris", jobs=jobs)(plain)

    (job,) = jobs.of(DEFAULT)
    assert job.name == f"{__name__}.plain"
    assert job.schedule.describe() == "0 3 * * * (Europe/Paris)"
    assert not job.policy.overlap
    assert not job.rerun_on_crash


def test_a_function_without_a_schedule_is_no_job(jobs: JobRegistry) -> None:
    """It is only guarded."""
    leader_only(jobs=jobs)(lambda: None)

    assert jobs.of(DEFAULT) == ()
    assert not any(job.function is double for job in registry.of(DEFAULT))


def add(jobs: JobRegistry, name: str, **arguments: Any) -> None:
    """Register a job that does nothing."""
    leader_only(every=1, name=name, jobs=jobs, **arguments)(lambda: None)


def test_jobs_are_listed_by_election(jobs: JobRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that name none belong to the application's default, whatever that is by then."""
    monkeypatch.setenv("LEADER_JOBS_ELECTION", "site")
    add(jobs, "b")
    add(jobs, "c", election="mail")
    add(jobs, "a", election="site")

    assert [job.name for job in jobs.of("site")] == ["a", "b"]
    assert [job.name for job in jobs.of("mail")] == ["c"]
    assert jobs.of(DEFAULT) == ()
    assert jobs.elections() == ("mail", "site")
    jobs.clear()
    assert jobs.elections() == ()


def test_two_functions_under_one_name_are_refused(jobs: JobRegistry) -> None:
    """Both places are named."""
    leader_only(every=1, name="twice", jobs=jobs)(lambda: 1)

    with pytest.raises(ConfigurationError) as caught:
        leader_only(every=1, name="twice", jobs=jobs)(lambda: 2)
    places = [word.strip(";") for word in str(caught.value).split() if "test_jobs.py:" in word]
    assert len(set(places)) == 2
    assert "another name=" in str(caught.value)


def test_a_loop_that_registers_one_name_again_and_again_is_refused(jobs: JobRegistry) -> None:
    """Else only the last one would ever run."""
    functions = [lambda q=queue: q for queue in ("mail", "sms")]
    decorate = leader_only(every=5, name="drain", jobs=jobs)
    decorate(functions[0])

    with pytest.raises(ConfigurationError, match="two jobs are called 'drain'"):
        decorate(functions[1])


def test_a_module_that_is_loaded_anew_replaces_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a development server may do it."""
    module = tmp_path / "some_jobs.py"
    module.write_text(
        "from leader_jobs.jobs import leader_only, JobRegistry\n"
        "try:\n    JOBS\nexcept NameError:\n    JOBS = JobRegistry()\n"
        "@leader_only(every=5, jobs=JOBS)\ndef work(): return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loaded = importlib.import_module("some_jobs")
    try:
        (before,) = loaded.JOBS.of(DEFAULT)
        importlib.reload(loaded)
        (after,) = loaded.JOBS.of(DEFAULT)
    finally:
        del sys.modules["some_jobs"]

    assert (before.name, before.place) == (after.name, after.place)
    assert after.function is not before.function


# -- bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 0}, r"every is 0; it must be between 0.1 s and 100 years"),
        ({"every": -1}, r"every is -1"),
        ({"every": True}, r"every is True"),
        ({"every": float("nan")}, r"every is nan"),
        ({"every": "30"}, r"every is '30'; it must be a number of seconds or a timedelta"),
        ({"every": 1, "cron": "* * * * *"}, r"every=1 and cron='\* \* \* \* \*' are both given"),
        ({"every": 1, "timezone": "UTC"}, r"timezone='UTC' goes with cron="),
        ({"timezone": "UTC"}, r"timezone='UTC' goes with cron="),
        ({"cron": "* * * *"}, r"cron"),
        ({"cron": "0 0 31 2 *"}, r"never fires"),
        ({"cron": "@daily", "timezone": "Mars/Olympus"}, r"Mars/Olympus"),
        ({"every": 1, "catch_up": "lates"}, r"catch_up is 'lates'; did you mean 'latest'\?"),
        ({"every": 1, "window": -5}, r"window is -5"),
        ({"every": 1, "window": True}, r"window is True"),
        ({"every": 1, "window": float("nan")}, r"window is nan"),
        ({"every": 1, "window": 1e300}, r"window is 1e\+300"),
        ({"every": 1, "max_burst": 0}, r"max_burst is 0"),
        ({"every": 1, "overlap": "no"}, r"overlap is 'no'"),
        (
            {"every": 1, "on_crash": "retry"},
            r"on_crash is 'retry'; it must be 'interrupt' or 'rerun'",
        ),
        ({"every": 1, "on_standby": None}, r"on_standby is None; it must be 'skip' or 'raise'"),
        ({"every": 1, "election": "a/b"}, r"election 'a/b' is not valid"),
        ({"every": 1, "name": "a/b"}, r"job name 'a/b' is not valid"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused_in_one_line(
    jobs: JobRegistry, arguments: dict[str, Any], said: str
) -> None:
    """Where it is written, naming argument and value; and nothing is registered."""
    decorate: Callable[..., Any] = leader_only
    with pytest.raises(ConfigurationError, match=said) as caught:
        decorate(jobs=jobs, **arguments)(lambda: None)

    assert "\n" not in str(caught.value)
    assert jobs.elections() == ()


def test_a_function_within_a_function_needs_a_name(jobs: JobRegistry) -> None:
    """Its own would not be one that another node finds again."""

    def inner() -> None:
        """Do nothing."""

    with pytest.raises(ConfigurationError, match=r"<locals>.inner' is not valid.*needs name="):
        leader_only(every=1, jobs=jobs)(inner)
    leader_only(every=1, name="inner", jobs=jobs)(inner)
    assert [job.name for job in jobs.of(DEFAULT)] == ["inner"]


def test_a_registry_takes_jobs_made_by_hand(jobs: JobRegistry) -> None:
    """As an adapter does that has schedules of its own."""
    add(jobs, "model")
    (model,) = jobs.of(DEFAULT)
    job = Job(
        name="by hand",
        function=double,
        schedule=Every(5),
        policy=model.policy,
        rerun_on_crash=False,
        election="mail",
        place="settings",
    )
    jobs.add(job)

    assert jobs.of("mail") == (job,)
