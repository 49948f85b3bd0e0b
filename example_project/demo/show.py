"""One performance: set up, play, clean up, and the verdict."""

import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from django.contrib.auth.models import User
from django.core.management import call_command

from demo.accounts import account
from demo.observer import Observer
from demo.pictures import Site, take_pictures
from demo.processes import Cast, Process
from demo.screen import Screen, open_screen
from demo.script import PlayFailed, Script, Timetable
from demo.verdict import faults, summary
from django_leader_jobs.conf import load_settings
from django_leader_jobs.discovery import discover_jobs
from leader_jobs.clock import SystemClock
from leader_jobs.exceptions import StoreError
from leader_jobs.jobs import registry

__all__ = ["INTERRUPTED", "run"]

_LAST_LINES: Final = 30
#: The exit code after a Ctrl-C that cut the play short.
INTERRUPTED: Final = 130


def run(
    folder: Path,
    times: Timetable,
    names: Sequence[str],
    *,
    stay: bool,
    pictures: Path | None = None,
) -> int:
    """
    Give one performance.

    Args:
        folder: an empty one, for databases and logs; removed if all goes well.
        times: how long things take.
        names: of the nodes.
        stay: whether to keep the site up, and serve its pages, until Ctrl-C.
        pictures: a folder that pictures of the admin pages go to; None: none are taken.

    Returns:
        The exit code: 0 only if every act went well and nothing was doubled or missed.
    """
    call_command("migrate", verbosity=0)
    clock = SystemClock()
    wrong: list[str] = []
    interrupted = False
    with closing(Observer(load_settings(), clock)) as observer:
        with open_screen(clock) as screen, Cast(names, folder) as cast:
            databases = (folder / "election.sqlite3", folder / "shop.sqlite3")
            script = Script(cast, observer, screen, clock=clock, times=times, databases=databases)
            try:
                script.play()
                if stay or pictures is not None:
                    _receive(folder, script, screen, stay=stay, pictures=pictures)
            except KeyboardInterrupt:
                interrupted = not stay
                screen.say("Ctrl-C: stopping all nodes")
            except (PlayFailed, StoreError) as error:
                wrong.append(str(error))
            try:
                script.close()
            except (PlayFailed, StoreError) as error:
                wrong.append(str(error))
        wrong += _judge(observer)
    if not wrong:
        shutil.rmtree(folder)
        return INTERRUPTED if interrupted else 0
    _show_logs(folder)
    print(f"NOT AS PROMISED: {'; '.join(wrong)} (logs and databases are kept in {folder})")
    return 1


def _judge(observer: Observer) -> list[str]:
    """Print the summary; return what is wrong."""
    discover_jobs()
    accounts = [account(job, observer) for job in registry.of(observer.election)]
    print("\nEvery instant of the schedules, against what the jobs wrote with their work:\n")
    for line in summary(accounts):
        print(line)
    found = list(faults(accounts, observer))
    if not found:
        print("\nEvery order is shipped once. Nothing was done twice, nothing was forgotten.")
    return found


def _receive(
    folder: Path, script: Script, screen: Screen, *, stay: bool, pictures: Path | None
) -> None:
    """Let people see the site, or take pictures of it."""
    with _pages(folder) as site:
        if pictures is not None:
            take_pictures(site, pictures)
        if stay:
            screen.say(f"{site.url} until Ctrl-C ({site.login})")
            script.stay()


@contextmanager
def _pages(folder: Path) -> Iterator[Site]:
    """Serve the site's pages on a free port of this host."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    site = Site(address, "demo", secrets.token_urlsafe(6))
    User.objects.create_superuser(site.user, password=site.password)
    server = Process("server", ("runserver", "--noreload", address), folder)
    server.start()
    try:
        yield site
    finally:
        server.end()


def _show_logs(folder: Path) -> None:
    for log in sorted(folder.glob("*.log")):
        print(f"\n--- the end of {log.name}")
        print("\n".join(log.read_text().splitlines()[-_LAST_LINES:]))
    print()
