"""The example project's beats and worker, as its `site_config.celery` says to start them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import django
import pytest

from testsupport.parenthood import die_with_parent
from testsupport.processes import Diary

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(django.VERSION < (5, 1), reason="the example project needs Django 5.1"),
]

EXAMPLE = Path(__file__).parents[2] / "example_project"


@contextmanager
def started(folder: Path, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Have a process of the site, with all its files in *folder*, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=EXAMPLE,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "site_config.settings",
            "SHOP_DATABASE": str(folder / "shop.sqlite3"),
            "SHOP_MESSAGES": str(folder / "messages"),
            "LEADER_JOBS_STORE": f"sqlite:///{folder}/leader.sqlite3",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509  it does nothing but one system call
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_two_beats_and_a_worker_run_each_instant_of_a_guarded_task_once(tmp_path: Path) -> None:
    """What a newcomer starts by hand counts the stock at :00, :05, :10, and once each time."""
    celery = ("-m", "celery", "-A", "site_config.celery")
    with started(tmp_path, "manage.py", "migrate") as migration:
        assert migration.wait(30) == 0
    with Diary.opened(tmp_path / "log") as log, ExitStack() as running:
        for _ in range(2):
            running.enter_context(started(tmp_path, *celery, "beat", "-S", "leader"))
        worker = (*celery, "worker", "--pool", "solo", "--loglevel", "info", "--logfile")
        running.enter_context(started(tmp_path, *worker, str(log.path)))
        counted: list[str] = []
        while len(counted) < 2:
            line = log.line(within=20)
            if "orders" in line:
                counted.append(line.split("]: ")[-1].split(", term")[0])
        assert len(set(counted)) == 2, counted
        assert all(int(instant[17:19]) % 5 == 0 for instant in counted)
