"""``celery -A proj leader …``: the commands of ``leader-jobs``, with the application's settings."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from click.testing import CliRunner

from leader_jobs.adapters.celery_command import leader
from leader_jobs.adapters.celery_entries import job_name
from leader_jobs.clock import SystemClock
from leader_jobs.config import Settings
from leader_jobs.records import JobRecord, OccurrenceRecord, State, history_key, job_key
from leader_jobs.stores.base import Write
from leader_jobs.stores.factory import open_store
from testsupport.cli import Answer, Cli, environ

CLOCK = SystemClock()
THEN = datetime(2024, 2, 28, 3, 0, tzinfo=UTC)
#: An entry of a beat schedule may be called anything; a job may not.
ENTRY = "nightly/report [eu]"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A store where an entry has been sent once."""
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    job = job_name(ENTRY)
    record = JobRecord(job=job, schedule="s", words="", cursor=THEN, sequence=1)
    entry = OccurrenceRecord(
        sequence=0, planned_at=THEN, state=State.SUCCEEDED, token=1, node="a", claimed_at=THEN
    )
    writes = [Write(job_key(job), record.encode()), Write(history_key(job, 0), entry.encode())]
    with closing(open_store(Settings(store=url), clock=CLOCK)) as store:
        store.commit("beat", writes, candidacy=None, deadline=CLOCK.now() + 5.0)
        yield url


@pytest.fixture
def app(url: str) -> Iterator[Celery]:
    """An application that names a store and an election."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(leader_jobs_store=url, leader_jobs_election="beat")
    yield app
    app.close()


def run(app: Celery, *arguments: str) -> Answer:
    """Carry out a command as Celery does."""
    found = CliRunner().invoke(leader, arguments, obj=SimpleNamespace(app=app))
    return Answer(found.exit_code, found.stdout, found.stderr)


def test_the_settings_are_those_of_the_application(app: Celery, url: str) -> None:
    """What is said is word for word what ``leader-jobs`` says of the same store and election."""
    cli = Cli("--store", url, "--election", "beat")
    for arguments in (("status", "--exit-code"), ("candidates",), ("jobs",), ("doctor",)):
        ours = cli(*arguments)
        theirs = run(app, *arguments)
        assert (theirs.code, theirs.err) == (ours.code, "")
        if arguments != ("doctor",):  # which measures
            assert theirs.out == ours.out
    assert run(app, "status", "--json").json["election"] == "beat"


def test_options_stand_before_or_behind_the_command(app: Celery) -> None:
    """And go before the configuration."""
    for arguments in (("--election", "other", "status"), ("status", "--election", "other")):
        assert run(app, *arguments, "--json").json["election"] == "other"
    answer = run(app, "status", "--store", "etcd://127.0.0.1:1", "--timeout", "0.2")
    assert answer.code == 2
    assert "etcd did not answer" in answer.error


def test_a_store_for_an_application_that_names_none(url: str) -> None:
    """The option is enough."""
    with closing(Celery("bare", set_as_current=False)) as bare:
        assert "store is not set" in run(bare, "status").error
        report = run(bare, "status", "--store", url, "--election", "beat", "--json").json
    assert [job["job"] for job in report["jobs"]] == [job_name(ENTRY)]


def test_a_job_is_named_as_its_entry_is(app: Celery) -> None:
    """Whatever that is called; the ledger's name does as well."""
    for name in (ENTRY, job_name(ENTRY)):
        report = run(app, "history", name, "--json").json
        assert report["job"] == job_name(ENTRY)
        assert [entry["state"] for entry in report["occurrences"]] == ["succeeded"]
        assert run(app, "pause", name, "--wait", "0").code == 0
        assert run(app, "resume", name, "--wait", "0").code == 0
    assert run(app, "history", "nothing").code == 1


def test_what_makes_no_sense(app: Celery) -> None:
    """Usage is explained, a wrong configuration named; the exit code is 2."""
    answer = run(app, "stauts")
    assert answer.code == 2
    assert "invalid choice: 'stauts'" in answer.err
    assert "usage: celery leader" in answer.err
    assert run(app, "--help").out.startswith("usage: celery leader")
    app.conf.update(leader_jobs_ttl="soon")
    answer = run(app, "status")
    assert answer.code == 2
    assert "'soon'" in answer.error


def test_the_program(tmp_path: Path, url: str) -> None:
    """Celery finds the command, passes everything behind it on, and exits as it says."""
    text = f"""
        from celery import Celery
        app = Celery("proj")
        app.conf.leader_jobs_store = {url!r}
        app.conf.leader_jobs_election = "beat"
    """
    (tmp_path / "proj.py").write_text("\n".join(line.strip() for line in text.splitlines()))
    found = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "proj", "leader", "status", "--exit-code"],
        cwd=tmp_path,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (found.returncode, found.stderr) == (1, "")
    assert found.stdout == "election  beat\nleader    nobody leads\njobs      1\n"
