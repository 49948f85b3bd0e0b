"""Orders, from the button to what the nodes do about it: a real browser, a real site, real nodes."""

from typing import Final

import pytest

from leader_jobs.clock import SystemClock
from leader_jobs.observatory import Observatory
from leader_jobs.overview import JobView
from testsupport.browser import Browser
from testsupport.browser_site.stage import Stage

CLOCK: Final = SystemClock()


def job(stage: Stage, name: str) -> JobView:
    """Return a job as it is now."""
    view = Observatory(stage.store, clock=CLOCK).election("default")
    return next(job for job in view.jobs if job.name == name)


def sequence(stage: Stage, name: str) -> int:
    """Return the number of a job's newest occurrence."""
    return max((entry.sequence for entry in job(stage, name).recent), default=-1)


def confirm(browser: Browser, verb: str) -> None:
    """Say yes to the question whether an order is to be given."""
    browser.wait(lambda: browser.all("form.lj-form"), f"nobody asks about {verb}")
    browser.click(verb, "form.lj-form")
    browser.wait_for("obeyed by", ".messagelist")


def test_the_election_is_paused_and_resumed(stage: Stage, browser: Browser) -> None:
    """While it is paused nothing of a job that is due each second is started; then it goes on."""
    browser.click("Pause the election")
    browser.find("[name=reason]").send_keys("an upgrade of the database")
    confirm(browser, "Pause")
    browser.wait_for("The election is paused")
    browser.wait_for("an upgrade of the database")
    before = sequence(stage, "tick")
    due = job(stage, "tick").due
    assert due is not None
    browser.wait(lambda: (CLOCK.utcnow() - due).total_seconds() > 1.5, "time does not pass")
    assert sequence(stage, "tick") == before
    assert browser.find("button.lj-button[disabled]").text.startswith("Run now")

    browser.click("Resume the election")
    confirm(browser, "Resume")
    browser.wait(lambda: sequence(stage, "tick") > before, "nothing is started any more")


def test_one_job_is_paused_and_resumed(stage: Stage, browser: Browser) -> None:
    """The others go on."""
    browser.click("Pause tick", ".lj-jobs")
    confirm(browser, "Pause")
    before, other = sequence(stage, "tick"), sequence(stage, "fails")
    browser.wait(lambda: sequence(stage, "fails") > other + 1, "the other job is not started")
    assert sequence(stage, "tick") == before
    browser.click("Resume tick", ".lj-jobs")
    confirm(browser, "Resume")
    browser.wait(lambda: sequence(stage, "tick") > before, "the job is not started any more")


def test_a_job_is_run_now(stage: Stage, browser: Browser) -> None:
    """One that is due once a year; its run is marked as asked for, and the schedule stays."""
    due = job(stage, "once a year").due
    browser.open(f"{stage.site.url}default/jobs/once a year/")
    browser.click("Run now")
    confirm(browser, "Run now")
    browser.wait_for("asked for by ada", ".lj-history")
    browser.wait_for("succeeded", ".lj-history")
    assert job(stage, "once a year").due == due
    assert [entry.asked_by for entry in job(stage, "once a year").recent][-1] == "ada"


def test_the_leader_resigns(stage: Stage, browser: Browser) -> None:
    """The next in line leads, and the page of whoever asked shows it."""
    leader = stage.leader()
    browser.click("Resign")
    confirm(browser, "Resign")
    browser.wait(
        lambda: (
            " leads" in browser.say(".lj-hero h2") and leader.name not in browser.say(".lj-hero h2")
        ),
        "nobody else leads",
    )
    assert stage.leader() is not leader


def test_leadership_is_handed_to_the_last_in_line(stage: Stage, browser: Browser) -> None:
    """The button stands beside the candidate; those ahead of it step back."""
    buttons = browser.wait(
        lambda: [a for a in [browser.all("tr a[href*=transfer]")] if len(a) == 2], "not all stand"
    )[0]
    heir = str(buttons[-1].get_attribute("textContent")).removeprefix("Hand over to ")
    assert heir in {node.name for node in stage.nodes} - {stage.leader().name}
    buttons[-1].click()
    assert browser.run("return document.querySelector('[name=heir]:checked') !== null")
    confirm(browser, "Hand over")
    browser.wait_for(f"{heir} leads", ".lj-hero h2")
    assert stage.leader().name == heir


@pytest.mark.usefixtures("stage")
def test_what_was_done_is_on_record(stage: Stage, browser: Browser) -> None:
    """Under the name of whoever did it, in the history of the election."""
    browser.click("Pause fails", ".lj-jobs")
    browser.find("[name=reason]").send_keys("it only fails")
    confirm(browser, "Pause")
    browser.open(f"{stage.site.url}default/history/")
    browser.wait_for("Paused job fails: it only fails.")
    browser.wait_for("ada")
