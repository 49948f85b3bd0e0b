"""The admin pages in a real browser, beside real nodes: live, readable by everybody, hard to fool."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Final

import django
import pytest
from selenium.webdriver.common.keys import Keys

from leader_jobs.clock import SystemClock
from leader_jobs.names import runners_of
from testsupport.browser import Browser
from testsupport.browser_site.stage import Stage

CLOCK: Final = SystemClock()
#: Notes what the leader's lease and its bar show, at each tenth of a second.
SAMPLE: Final = """
const [count, done] = arguments;
const found = [];
const timer = setInterval(() => {
  const lease = document.querySelector(".lj-big .lj-lease");
  const width = lease.querySelector(".lj-left").getAttribute("width");
  found.push([parseFloat(lease.querySelector("b").textContent), parseFloat(width)]);
  if (found.length === count) { clearInterval(timer); done(found); }
}, 100);
"""
#: Counts the answers of the server that are put into the page.
COUNT: Final = """
window.answers = 0;
new MutationObserver(() => { answers += 1; })
  .observe(document.querySelector(".lj-big .lj-lease"), { attributeFilter: ["data-left"] });
"""
HOSTILE: Final = "<script>document.title = 'fooled'</script><img src=x onerror=\"alert(1)\">"


@contextmanager
def no_reload(browser: Browser) -> Iterator[None]:
    """See to it that the page is the same one at the end of the block."""
    browser.run("window.marked = true")
    yield
    assert browser.run("return window.marked")


def answers(browser: Browser, number: int) -> None:
    """Wait until the page was brought up to date so many times."""
    browser.run(COUNT)
    browser.wait(lambda: browser.run("return answers") >= number, "the page is not live")


# -- live ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stage")
def test_the_lease_counts_down_and_jumps_back(browser: Browser) -> None:
    """The bar shrinks between two answers of the server; a renewal is seen as a jump."""
    browser.wait_for("Live", "#lj-status")
    samples = browser.driver.execute_async_script(SAMPLE, 30)
    steps = [after[0] - before[0] for before, after in pairwise(samples)]
    assert sum(step < 0 for step in steps) >= 12, samples
    assert any(step > 0.4 for step in steps), samples
    for left, width in samples:
        assert 0 < left <= 3.0, samples
        assert width == pytest.approx(100 * left / 3.0, abs=2.5), samples


def test_a_takeover_appears_without_a_reload(stage: Stage, browser: Browser) -> None:
    """The leader is killed: the page names the next one, tells it aloud, and draws the new term."""
    leader = stage.leader()
    browser.wait_for(f"{leader.name} leads", ".lj-hero h2")
    reigns = len(browser.all(".lj-timeline .lj-term"))
    with no_reload(browser):
        leader.kill()
        browser.wait(
            lambda: (
                " leads" in browser.say(".lj-hero h2")
                and leader.name not in browser.say(".lj-hero h2")
            ),
            "nobody takes over",
        )
        headline = browser.say(".lj-hero h2")
        news = browser.run("return document.getElementById('lj-news').textContent")
        assert news == headline
        assert browser.find("#lj-news").get_attribute("aria-live") == "polite"
        browser.wait(
            lambda: len(browser.all(".lj-timeline .lj-term")) > reigns, "no new term is drawn"
        )
        browser.find("details summary").click()
        browser.wait_for("its process was gone", "details")


def test_a_leader_that_does_not_renew_is_suspended(stage: Stage, browser: Browser) -> None:
    """Frozen, it is seen to fail before its lease is over: in words, and in red."""
    leader = stage.leader()
    leader.freeze()
    browser.wait_for(f"{leader.name} leads, but is suspended", ".lj-hero h2")
    hero, lease = browser.find(".lj-hero"), browser.find(".lj-big .lj-lease")
    assert "lj-bad" in str(hero.get_attribute("class"))
    assert "lj-late" in str(lease.get_attribute("class"))


@pytest.mark.usefixtures("stage")
def test_what_somebody_is_at_stays_while_the_page_changes(browser: Browser) -> None:
    """Focus, scroll position and an open table outlast the answers of the server."""
    browser.wait_for("Live", "#lj-status")
    browser.find("details summary").click()
    button = browser.all("td.lj-acts a")[-1]
    browser.run("arguments[0].focus(); scrollBy(0, 120)", button)
    place = browser.run("return scrollY")
    answers(browser, 2)
    assert browser.run("return document.activeElement === arguments[0]", button)
    assert browser.run("return scrollY") == place
    assert browser.find("details").get_attribute("open") is not None


def test_the_site_goes_away_and_comes_back(stage: Stage, browser: Browser) -> None:
    """The page says that it is not live, and lets no lease run out that it knows nothing of."""
    browser.wait_for("Live", "#lj-status")
    with no_reload(browser):
        stage.site.kill()
        browser.wait_for("Not live: this site does not answer", "#lj-status")
        assert "lj-stale" in str(browser.find("#lj-live").get_attribute("class"))
        stage.site.start()
        browser.wait(lambda: browser.say("#lj-status") == "Live", "the page stays dead")
        assert "lj-stale" not in str(browser.find("#lj-live").get_attribute("class"))
    # That the server was not there is no fault of the page.
    assert all("ERR_" in complaint for complaint in browser.complaints())


def test_a_session_that_is_over_is_said(stage: Stage, browser: Browser) -> None:
    """Instead of a login page within the page."""
    browser.wait_for("Live", "#lj-status")
    browser.driver.delete_all_cookies()
    browser.wait_for("you are logged out", "#lj-status")
    assert browser.all("[name=password]") == []
    stage.log_in(browser)


# -- occurrences --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stage")
def test_marks_are_reached_by_keyboard_and_pointer(browser: Browser) -> None:
    """A strip is one stop; arrows go from mark to mark, which is told and shown; Escape hides it."""
    strip = browser.wait(lambda: browser.find(".lj-strip[data-what=fails]"), "there is no strip")
    browser.wait(lambda: len(browser.all(".lj-strip[data-what=fails] g")) >= 2, "nothing failed")
    assert len(browser.all(".lj-strip [tabindex]")) == 0
    browser.run("arguments[0].focus()", strip)
    last = int(str(strip.get_attribute("aria-valuenow")))
    strip.send_keys(Keys.ARROW_LEFT)
    assert int(str(strip.get_attribute("aria-valuenow"))) == last - 1
    told = str(strip.get_attribute("aria-valuetext"))
    assert "failed: planned " in told
    assert "<b>no route</b> to the mail server" in told
    assert browser.say(".lj-tip") == told
    strip.send_keys(Keys.ESCAPE)
    assert not browser.find(".lj-tip").is_displayed()

    browser.run(
        "const box = arguments[0].querySelector('g').getBoundingClientRect();"
        "arguments[0].dispatchEvent(new PointerEvent('pointermove',"
        " { bubbles: true, clientX: box.left + 1, clientY: box.top + 1 }))",
        strip,
    )
    assert browser.find(".lj-tip").is_displayed()


@pytest.mark.usefixtures("stage")
def test_every_mark_of_a_strip_is_within_it(browser: Browser) -> None:
    """None is cut off, and none lies over another."""
    browser.wait(lambda: len(browser.all(".lj-strip[data-what=tick] g")) >= 3, "nothing happens")
    inside, apart = browser.run(
        """
        const strip = document.querySelector(".lj-strip[data-what=tick]");
        const around = strip.getBoundingClientRect();
        const boxes = [...strip.querySelectorAll("g")].map((mark) => mark.getBoundingClientRect());
        return [
          boxes.every((box) => box.left >= around.left - 1 && box.right <= around.right + 1),
          boxes.slice(1).every((box, n) => box.left >= boxes[n].right - 0.5),
        ];
        """
    )
    assert inside
    assert apart


def test_the_page_of_a_job_has_a_table_of_what_happened(stage: Stage, browser: Browser) -> None:
    """It grows as the job runs."""
    browser.open(f"{stage.site.url}default/jobs/tick/")
    rows = len(browser.all(".lj-history tbody tr"))
    with no_reload(browser):
        browser.wait(
            lambda: (
                "succeeded" in browser.say(".lj-history")
                and (len(browser.all(".lj-history tbody tr")) > rows or rows == 100)
            ),
            "nothing is added",
        )


# -- everybody ----------------------------------------------------------------------------------------

#: What is looked at for barriers: the whole page, where Django's own part of it has none.
ALL: Final = "html" if django.VERSION >= (5, 2) else ".lj"
LOOKS: Final = {"light": {}, "dark": {"dark": True}, "phone": {"phone": True}}


@pytest.mark.parametrize("look", LOOKS)
def test_nobody_is_kept_out(stage: Stage, browser: Browser, look: str) -> None:
    """axe-core finds no serious barrier, and nothing is wider than the screen."""
    browser.wear(**LOOKS[look])
    pages = ["default/change/", "default/pause/"]
    pages += ["", "default/jobs/fails/", "default/transfer/"] if look == "phone" else []
    stage.control.pause("once a year", reason="a reason of some length, such as a ticket: OPS-1234")
    for page in pages:
        browser.open(stage.site.url + page)
        assert browser.overflow() <= 0, page
        assert browser.barriers(ALL) == [], page


def test_it_can_be_read_and_used_without_scripts(stage: Stage, browser: Browser) -> None:
    """What there is to see is there, and an order is two pages away."""
    with browser.without_scripts():
        browser.open(stage.page)
        said = browser.find("#main").text
        assert f"{stage.leader().name} leads" in said
        assert "left of 3.0 s" in said
        assert "As of" in said
        assert browser.find(".lj-strip title").get_attribute("textContent")
        browser.find("td.lj-acts a[href*='tick/pause']").click()
        browser.find("[name=reason]").send_keys("no scripts")
        browser.find("form.lj-form [type=submit]").click()
        assert "no scripts" in browser.find("#main").text


def test_the_pages_are_under_a_strict_policy(stage: Stage, browser: Browser) -> None:
    """What all these tests rely on: an inline style is forbidden, noted and complained of."""
    browser.run("document.body.setAttribute('style', 'color: red')")
    assert any("style-src" in violation for violation in browser.forbidden())
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())
    browser.open(stage.page)


def test_texts_of_others_stay_texts(stage: Stage, browser: Browser) -> None:
    """A candidate may call itself anything; the page says it, and does nothing of it."""
    deadline = CLOCK.now() + 5.0
    name = HOSTILE.encode()
    foreign = stage.store.enrol("default", name, 60.0, deadline=deadline)
    member = stage.store.enrol(runners_of("default"), name, 60.0, deadline=deadline)
    stage.control.pause("tick", reason=HOSTILE)
    try:
        for page in (f"{stage.site.url}default/change/", stage.site.url):
            browser.open(page)
            browser.wait_for("Live", "#lj-status")
            assert browser.all("#main script, #main img") == []
            assert "fooled" not in browser.driver.title
    finally:
        for candidacy in (foreign, member):
            stage.store.withdraw(candidacy, deadline=CLOCK.now() + 5.0)
