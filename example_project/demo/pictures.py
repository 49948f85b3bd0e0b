"""Pictures of the admin pages, taken of the site while its nodes work; for the documentation."""

import shutil
import tempfile
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

from leader_jobs.clock import SystemClock

__all__ = ["Site", "take_pictures"]

_OPTIONS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
_SCREEN: Final = 1200
_PHONE: Final = 390
#: A page is live, and what it last fetched is drawn, after so many seconds.
_SETTLE: Final = 2.5


@dataclass(frozen=True, slots=True)
class Site:
    """
    The site's pages while they are served.

    Attributes:
        address: host and port.
        user: who may do everything there.
        password: their password.
    """

    address: str
    user: str
    password: str

    @property
    def url(self) -> str:
        """Where the page of the election is."""
        return f"{self.elections}shop/change/"

    @property
    def elections(self) -> str:
        """Where the list of elections is."""
        return f"http://{self.address}/admin/leader_jobs/election/"

    @property
    def login(self) -> str:
        """How to get in."""
        return f"user {self.user}, password {self.password}"


def take_pictures(site: Site, folder: Path) -> None:
    """
    Do what an operator does, and take pictures of what is seen.

    Args:
        site: the site.
        folder: where the pictures go; made if it is missing.

    It takes selenium, and Chromium with its driver.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _camera() as camera:
        camera.log_in(site)
        camera.order(f"{site.elections}shop/jobs/place_orders/run-now/")
        reason = "month-end closing, OPS-214"
        camera.order(f"{site.elections}shop/jobs/roll_up/pause/", reason=reason, lasts="60")
        camera.take(site.url, folder / "election-light.png")
        camera.take(site.url, folder / "election-dark.png", dark=True)
        camera.take(site.url, folder / "election-phone.png", width=_PHONE, height=1100)
        camera.take(f"{site.elections}shop/jobs/place_orders/", folder / "job.png", height=720)
        camera.take(f"{site.elections}shop/pause/", folder / "pause.png", height=560)
        camera.order(f"{site.elections}shop/jobs/roll_up/resume/")


class _Camera:
    """A browser without a window."""

    def __init__(self, driver: "Chrome") -> None:
        self._driver = driver

    def log_in(self, site: Site) -> None:
        """Log in, and put the list of all applications aside."""
        self._driver.get(site.elections)
        self._fill(username=site.user, password=site.password)
        self._press("[type=submit]")
        self._driver.execute_script(
            "localStorage.setItem('django.admin.navSidebarIsOpen', 'false')"
        )

    def order(self, url: str, **fields: str) -> None:
        """Give an order."""
        self._driver.get(url)
        self._fill(**fields)
        self._press("form.lj-form [type=submit]")

    def take(
        self, url: str, path: Path, *, dark: bool = False, width: int = _SCREEN, height: int = 0
    ) -> None:
        """Take a picture of a page, or of the upper *height* pixels of it."""
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        self._resize(width, height or 900)
        self._driver.get(url)
        SystemClock().wait(threading.Event(), _SETTLE)
        if not height:
            script = "return document.getElementById('content').getBoundingClientRect().bottom"
            self._resize(width, int(self._driver.execute_script(script)))
        shot = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(b64decode(shot["data"]))

    def _fill(self, **fields: str) -> None:
        from selenium.webdriver.support.select import Select

        for name, text in fields.items():
            field = self._driver.find_element("name", name)
            if field.tag_name == "select":
                Select(field).select_by_value(text)
            else:
                field.send_keys(text)

    def _press(self, selector: str) -> None:
        self._driver.find_element("css selector", selector).click()

    def _resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}  # noqa: PLR2004
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@contextmanager
def _camera() -> Iterator[_Camera]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*_OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.binary_location = shutil.which("chromium") or ""
        driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            yield _Camera(driver)
        finally:
            driver.quit()
