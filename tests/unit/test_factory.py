"""From a URL to a store."""

import subprocess
import sys
from pathlib import Path

import pytest

from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores.base import Write
from leader_jobs.stores.factory import open_store
from leader_jobs.stores.memory import MemoryStore
from leader_jobs.stores.sqlite import SqliteStore
from leader_jobs.testing import ManualClock


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("leader.sqlite3", "leader.sqlite3"),
        ("my%20leader.sqlite3", "my leader.sqlite3"),
        ("my leader.sqlite3", "my leader.sqlite3"),
        ("what%3F%23%25.db", "what?#%.db"),
        ("l%C3%A9ader.db", "léader.db"),
        ("a+b.db", "a+b.db"),
    ],
)
def test_a_sqlite_url_names_a_file(tmp_path: Path, file: str, written: str) -> None:
    """The path is percent-decoded, and that file is the store."""
    store = open_store(Settings(store=f"sqlite:///{tmp_path}/{file}"), clock=ManualClock())

    store.commit("mail", [Write("a", b"1")], candidacy=None, deadline=1010.0)
    store.close()

    assert isinstance(store, SqliteStore)
    assert (tmp_path / written).is_file()


def test_more_slashes_are_the_same_path(tmp_path: Path) -> None:
    """A path with a slash too many at its front is still that path."""
    store = open_store(Settings(store=f"sqlite:////{tmp_path}/leader.sqlite3"))

    assert str(tmp_path / "leader.sqlite3") in store.description
    assert f"/{tmp_path}" not in store.description


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////var/lib/x.db?mode=ro", "write %3F if"),
        ("sqlite:////var/lib/x.db#frag", "write %23 if"),
        ("sqlite:////", "names no file"),
        ("sqlite://////", "names no file"),
        ("sqlite:////var/lib/", "names no file"),
        ("sqlite:////var/lib%2F", "names no file"),
        ("sqlite:////var/lib/x%00.db", "remove %00"),
    ],
)
def test_a_url_that_names_no_file_is_refused(url: str, words: str) -> None:
    """The message repeats the URL and says what to change."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(Settings(store=url))

    assert url in str(caught.value)
    assert words in str(caught.value)


def test_opening_touches_nothing(tmp_path: Path) -> None:
    """No file is made before the first call."""
    open_store(Settings(store=f"sqlite:///{tmp_path}/leader.sqlite3"))

    assert list(tmp_path.iterdir()) == []


def test_a_memory_url_names_a_store_of_the_process() -> None:
    """The same name is the same store, another name another one."""
    clock = ManualClock()
    here, again, there = (
        open_store(Settings(store=f"memory://{name}"), clock=clock)
        for name in ("factory-here", "factory-here", "factory-there")
    )

    assert isinstance(here, MemoryStore)
    assert here is again
    assert here is not there


def test_the_given_clock_is_used() -> None:
    """Leases run out by the clock handed over, not by the host's."""
    clock = ManualClock()
    store = open_store(Settings(store="memory://factory-clock"), clock=clock)
    store.enrol("mail", b"", 5.0, deadline=clock.now() + 1)

    clock.advance(5.0)

    assert store.candidates("mail", deadline=clock.now() + 1) == ()


@pytest.mark.parametrize("scheme", ["etcd", "etcds"])
def test_an_etcd_url_opens_without_connecting(scheme: str) -> None:
    """Servers that are away are found out by the first call, not by opening."""
    store = open_store(Settings(store=f"{scheme}://localhost:1,localhost:2"))

    assert "localhost:1" in store.description
    store.close()


@pytest.mark.parametrize(
    ("url", "loaded"),
    [
        ("sqlite:////nonexistent/leader.sqlite3", "sqlite"),
        ("memory://x", "memory"),
        ("etcd://localhost:1", "etcd"),
    ],
)
def test_only_the_store_asked_for_is_loaded(url: str, loaded: str) -> None:
    """A site on one kind of store never imports the others."""
    code = (
        "import sys\n"
        "from leader_jobs.config import Settings\n"
        "from leader_jobs.stores.factory import open_store\n"
        f"open_store(Settings(store={url!r}))\n"
        "kinds = ('sqlite', 'memory', 'etcd')\n"
        "print(*(k for k in kinds if f'leader_jobs.stores.{k}' in sys.modules))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == [loaded]
