"""
A real browser: Chromium without a window, driven through selenium.

Debian's packages ``chromium`` and ``chromium-driver``, or what ``TEST_CHROMIUM_BIN`` and
``TEST_CHROMEDRIVER_BIN`` name. Where they are missing, tests that ask for one are skipped; with
``REQUIRE_BROWSER=1`` in the environment they fail instead.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from testsupport.servers import find_binary

__all__ = ["Browser"]

T = TypeVar("T")
_OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
#: Notes what the page's security policy forbids, before anything of the page runs.
_WATCH: Final = """
window.forbidden = [];
addEventListener("securitypolicyviolation", (event) => {
  forbidden.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""
_AXE: Final = """
const [within, done] = arguments;
axe.run(within, { resultTypes: ["violations"] }).then(
  (found) => done(found.violations.filter((v) => ["serious", "critical"].includes(v.impact)).map(
    (v) => `${v.id} (${v.impact}): ${v.nodes.map((n) => n.html + " " + n.failureSummary).join(" | ")}`)),
  (error) => done([String(error)]));
"""
_WIDE: Final = (1280, 900)
_PHONE: Final = (390, 844)
_PATIENCE: Final = 15.0


class Browser:
    """
    The browser, on one page at a time.

    Args:
        driver: selenium's.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver: Final = driver
        self._cdp("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)

    # -- how it looks -----------------------------------------------------------------------------

    def wear(self, *, dark: bool = False, phone: bool = False) -> None:
        """Ask for a dark or light page, on a screen or a phone."""
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[theme])
        width, height = _PHONE if phone else _WIDE
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    @contextmanager
    def without_scripts(self) -> Iterator[None]:
        """Run no script of any page during the block."""
        self._cdp("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self._cdp("Emulation.setScriptExecutionDisabled", value=False)

    # -- what it does -----------------------------------------------------------------------------

    def open(self, url: str) -> None:
        """Go to a page."""
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        """Return the first element that a CSS selector finds."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Return all of them."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def click(self, text: str, within: str = "#main") -> None:
        """Click the link or the button that says *text*, as soon as it is there."""
        path = (
            f"//*[self::a or self::button][normalize-space()='{text}' or "
            f"starts-with(normalize-space(), '{text} ')]"
        )

        def click() -> bool:
            self.find(within).find_element(By.XPATH, f".{path}").click()
            return True

        self.wait(click, f"there is no {text!r}")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def say(self, selector: str = "#main") -> str:
        """Return the text that is seen in an element."""
        return str(
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        )

    # -- what it is waited for ----------------------------------------------------------------------

    def wait(self, condition: Callable[[], T], otherwise: str, within: float = _PATIENCE) -> T:
        """Wait until *condition* holds; the page may change under it."""
        waiting = WebDriverWait(
            self.driver, within, 0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        try:
            return waiting.until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"{otherwise} within {within} s, on:\n{self.say('body')}")

    def wait_for(self, text: str, selector: str = "#main", within: float = _PATIENCE) -> None:
        """Wait until an element says *text*."""
        self.wait(lambda: text in self.say(selector), f"{text!r} is not said", within)

    # -- what is wrong ------------------------------------------------------------------------------

    def forbidden(self) -> list[str]:
        """Return what the security policy of the present page has forbidden."""
        return list(self.run("return window.forbidden"))

    def complaints(self) -> list[str]:
        """Return what was written to the console since the last time."""
        return [str(entry["message"]) for entry in self._log()]

    def _log(self) -> list[dict[str, Any]]:
        return list(self.driver.get_log("browser"))  # type: ignore[no-untyped-call]

    def barriers(self, within: str) -> list[str]:
        """Return what axe-core finds in an element that is a serious or critical barrier to somebody."""
        self.run((files("axe_core_python") / "axe.min.js").read_text())
        return list(self.driver.execute_async_script(_AXE, within))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        return int(self.run("return document.documentElement.scrollWidth - innerWidth"))

    def _cdp(self, command: str, **arguments: Any) -> None:
        self.driver.execute_cdp_cmd(command, arguments)


def _binary(variable: str, path: str) -> Path:
    found = find_binary(variable, path)
    if found is None:
        reason = f"no {Path(path).name}: install chromium and chromium-driver, or set {variable}"
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    return found


@pytest.fixture(scope="session", name="chromium")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    options = ChromeOptions()
    options.binary_location = str(_binary("TEST_CHROMIUM_BIN", "usr/bin/chromium"))
    for option in (*_OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(str(_binary("TEST_CHROMEDRIVER_BIN", "usr/bin/chromedriver")))
    driver = Chrome(options=options, service=service)
    try:
        driver.set_script_timeout(30)
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(name="browser")
def _browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, light and wide; at the end no page may have complained, or been forbidden a thing."""
    chromium.wear()
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []
    assert chromium.forbidden() == []
