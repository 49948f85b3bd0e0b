"""Settings of schedulers, from APScheduler's own configuration and from elsewhere."""

from pathlib import Path
from typing import Any

import pytest

from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
from leader_jobs.adapters.apscheduler_settings import SchedulerOptions, options_of, settings_of
from leader_jobs.config import Settings, application
from leader_jobs.exceptions import ConfigurationError
from testsupport.apscheduler_rig import until


def test_the_embedded_store_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the working directory, whatever characters its name has."""
    folder = tmp_path / "a b%c"
    folder.mkdir()
    monkeypatch.chdir(folder)
    scheduler = LeaderBackgroundScheduler()
    scheduler.start()
    until(lambda: scheduler.leads)
    scheduler.shutdown()
    assert (folder / "leader-jobs.sqlite3").exists()


def test_settings_by_prefix(tmp_path: Path) -> None:
    """As APScheduler reads its own from a file of a web framework."""
    scheduler = LeaderBackgroundScheduler(
        {
            "apscheduler.leader_jobs.store": f"sqlite:///{tmp_path}/a.sqlite3",
            "apscheduler.leader_jobs.ttl": "5",
            "apscheduler.leader_jobs.election": "mail",
            "apscheduler.leader_jobs.look_every": "2.5",
            "apscheduler.timezone": "UTC",
        }
    )
    settings = scheduler._settings()
    assert (settings.ttl, settings.election) == (5.0, "mail")
    assert options_of(scheduler._given).look_every == 2.5
    scheduler.configure({"x.leader_jobs.ttl": "6"}, prefix="x.", leader_jobs={"ttl": 7})
    assert scheduler._settings().ttl == 7.0


def test_the_application_is_beneath_and_the_environment_above(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What Django was configured with counts where the scheduler says nothing."""
    site = Settings(store="memory://site", ttl=9, grace=3, election="site")
    application.configure(lambda: site)
    monkeypatch.setenv("LEADER_JOBS_GRACE", "4")
    settings = settings_of({"ttl": 5, "election": None})
    found = settings.store, settings.ttl, settings.grace, settings.election
    assert found == ("memory://site", 5.0, 4.0, "site")
    assert settings_of({"election": "mail"}, election="own").election == "own"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"elction": "a"}, r"leader_jobs\['elction'\] is not a setting.*did you mean 'election'"),
        ({"look_evry": 1}, "did you mean 'look_every'"),
        ({"zzz": 1}, "known are .*look_every.*store"),
        ({"look_every": "x"}, r"\['look_every'\] is 'x'; it must be a number"),
        ({"look_every": 0}, "between 1 and 3600 seconds"),
        ({"look_every": float("nan")}, "between 1 and 3600 seconds"),
        ({"max_burst": 2.5}, r"\['max_burst'\] is 2.5; it must be a number"),
        ({"max_burst": 1000}, "between 1 and 100 run times"),
        ({5: 1}, r"leader_jobs\[5\] is not a setting"),
        ("memory://", "leader_jobs is 'memory://'; "),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_when_it_is_given(given: Any, words: str) -> None:
    """With the key, its value and the way out, before anything is started."""
    with pytest.raises(ConfigurationError, match=words):
        LeaderBackgroundScheduler(leader_jobs=given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ttl": "soon"}, "'ttl'.*is 'soon'; it must be a number"),
        ({"ttl": 0.1}, "ttl is 0.1"),
        ({"store": "redis://a"}, "redis"),
        ({"store": 5}, "must be a string"),
        ({"election": "a/b"}, "election 'a/b' is not valid"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_at_the_start(given: Any, words: str) -> None:
    """Not before: the environment and the application have a say."""
    scheduler = LeaderBackgroundScheduler(leader_jobs=given)
    with pytest.raises(ConfigurationError, match=words):
        scheduler.start()
    assert not scheduler.running


def test_a_password_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nor in the URL of the store."""
    caplog.set_level("INFO")
    given = {"store": "etcd://user:geheim@127.0.0.1:1", "ttl": 5}
    scheduler = LeaderBackgroundScheduler(leader_jobs=given)
    with pytest.raises(ConfigurationError):
        scheduler.start()
    assert "geheim" not in caplog.text + repr(scheduler)


def test_misfire_grace_time_is_unlimited_unless_given() -> None:
    """One second, as stock has it, would drop what any takeover makes late."""
    kinds = {
        None: LeaderBackgroundScheduler(),
        5: LeaderBackgroundScheduler(job_defaults={"misfire_grace_time": 5}),
        7: LeaderBackgroundScheduler({"apscheduler.job_defaults.misfire_grace_time": "7"}),
        1: LeaderBackgroundScheduler(job_defaults={"misfire_grace_time": 1}),
    }
    for expected, scheduler in kinds.items():
        assert scheduler._job_defaults["misfire_grace_time"] == expected


def test_options_check_themselves() -> None:
    """Also if they are made by hand."""
    assert SchedulerOptions() == SchedulerOptions(look_every=10.0, max_burst=100)
    with pytest.raises(ConfigurationError):
        SchedulerOptions(look_every=-1)
