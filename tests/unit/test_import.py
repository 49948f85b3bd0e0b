"""What importing the package costs and needs: nothing. Each test looks at a fresh interpreter."""

import ast
import re
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest

import leader_jobs

_PACKAGE = Path(leader_jobs.__file__).parent
#: Makes a module look as if it were not installed.
_HIDE = """
import sys
for name in ("django", "celery", "kombu", "apscheduler", "cronsim"):
    sys.modules[name] = None
"""
#: Imports everything that the core consists of, and counts it.
_ALL_OF_THE_CORE = """
import importlib, pkgutil, leader_jobs
modules = [
    module.name
    for module in pkgutil.walk_packages(leader_jobs.__path__, "leader_jobs.")
    if not module.name.startswith("leader_jobs.adapters.")
]
for name in modules:
    importlib.import_module(name)
"""
#: Notes whatever is opened, other than modules and folders of modules, and what has begun.
_WATCH = """
import os, signal, sys
noted = []

def watch(event, arguments):
    starts = "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn"
    writes = "os.mkdir", "os.remove", "os.rename", "shutil.", "sqlite3.connect"
    if event.startswith((*starts, *writes, "socket.__new__")):
        noted.append(event)
    elif event == "open" and not (
        str(arguments[0]).endswith((".py", ".pyc", ".so")) or arguments[0] in sys.path
    ):
        noted.append(f"open {arguments[0]}")

def begun():
    handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
    return len(os.listdir("/proc/self/task")), handlers

sys.addaudithook(watch)
before = begun()
"""


def in_a_fresh_interpreter(*program: str, options: tuple[str, ...] = ("-B",)) -> str:
    """Run the pieces of *program* as one, in a new process; return what it prints."""
    source = "\n".join(textwrap.dedent(piece) for piece in program)
    result = subprocess.run(
        [sys.executable, *options, "-c", source],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()


def test_every_public_name_works_on_the_standard_library_alone() -> None:
    """Neither a framework nor the cron extra is needed to get at the names."""
    printed = in_a_fresh_interpreter(
        _HIDE,
        """
        import leader_jobs
        for name in leader_jobs.__all__:
            assert getattr(leader_jobs, name) is not None
        from leader_jobs import *
        print(*sorted(set(leader_jobs.__all__) & globals().keys()))
        """,
    )
    assert printed.split() == sorted(leader_jobs.__all__)


def test_every_module_of_the_core_imports_on_the_standard_library_alone() -> None:
    """Only the adapters know frameworks."""
    printed = in_a_fresh_interpreter(_HIDE, _ALL_OF_THE_CORE, "print(*modules)")

    assert {"leader_jobs.jobs", "leader_jobs.assembly", "leader_jobs.stores.etcd"} <= set(
        printed.split()
    )


def test_a_period_needs_no_extra_and_a_crontab_line_says_which() -> None:
    """Without cronsim `every=` works; `cron=` fails with what to install."""
    printed = in_a_fresh_interpreter(
        _HIDE,
        """
        from leader_jobs import LeaderJobsError, leader_only
        leader_only(every=30, name="a")(lambda: None)
        try:
            leader_only(cron="0 3 * * *", name="b")(lambda: None)
        except LeaderJobsError as error:
            print(type(error).__name__, error)
        """,
    )
    assert printed.startswith("ConfigurationError ")
    assert "leader-jobs[cron]" in printed


def test_importing_everything_starts_and_opens_nothing() -> None:
    """No thread, process, socket, file, database or signal handler."""
    printed = in_a_fresh_interpreter(
        _WATCH,
        _ALL_OF_THE_CORE,
        """
        for name in set(leader_jobs.__all__) - {"__version__"}:
            getattr(leader_jobs, name)
        print(noted, begun() == before)
        import socket
        socket.socket().close()
        open("/dev/null").close()
        print(noted)
        """,
    )
    nothing, what_the_watch_sees = printed.splitlines()
    assert nothing == "[] True"
    assert what_the_watch_sees == "['socket.__new__', 'open /dev/null']"


def test_importing_the_package_loads_no_part_of_it() -> None:
    """Each name is looked up when it is first used, and then it is there for good."""
    printed = in_a_fresh_interpreter(
        """
        import sys, leader_jobs
        parts = [name for name in sys.modules if name.startswith("leader_jobs.")]
        print(parts, "NotLeader" in vars(leader_jobs))
        leader_jobs.NotLeader
        parts = [name for name in sys.modules if name.startswith("leader_jobs.")]
        print(parts, "NotLeader" in vars(leader_jobs))
        """
    )
    assert printed.splitlines() == ["[] False", "['leader_jobs.exceptions'] True"]


def test_the_stores_load_when_they_are_opened() -> None:
    """A site on one kind of store never loads another kind's client."""
    printed = in_a_fresh_interpreter(
        """
        import sys
        from leader_jobs import Settings, open_store
        open_store(Settings(store="memory://a")).close()
        print(*(name for name in ("leader_jobs.stores.memory", "leader_jobs.stores.etcd",
              "leader_jobs.stores.sqlite", "http.client", "sqlite3") if name in sys.modules))
        """
    )
    assert printed == "leader_jobs.stores.memory"


def test_the_lists_of_public_names_agree() -> None:
    """What type checkers see, what is exported, and what can be looked up."""
    tree = ast.parse((_PACKAGE / "__init__.py").read_text())
    checked = {
        node: f"{module.module}.{node.name}"
        for module in ast.walk(tree)
        if isinstance(module, ast.ImportFrom) and str(module.module).startswith("leader_jobs.")
        for node in module.names
        if node.name != "version"
    }
    seen = {node.name: place.rpartition(".")[0] for node, place in checked.items()}

    assert seen == leader_jobs._PLACES
    assert sorted([*seen, "__version__"]) == leader_jobs.__all__


@pytest.mark.parametrize("name", leader_jobs.__all__)
def test_a_public_name_is_the_one_of_its_module(name: str) -> None:
    """Looking it up twice gives the same object."""
    found = getattr(leader_jobs, name)

    assert found is getattr(leader_jobs, name)
    if name != "__version__":
        assert found.__module__ == leader_jobs._PLACES[name]
        assert found.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module, so that `hasattr` and `from leader_jobs import …` say what is wrong."""
    assert not hasattr(leader_jobs, "find_follower")
    with pytest.raises(AttributeError, match=r"module 'leader_jobs' has no attribute 'leaderonly'"):
        leader_jobs.leaderonly  # noqa: B018  looking it up is the test
    with pytest.raises(ImportError, match="leaderonly"):
        exec("from leader_jobs import leaderonly")


def test_the_version_is_that_of_the_distribution() -> None:
    """And one that packaging tools can read."""
    assert leader_jobs.__version__ == version("leader-jobs")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", leader_jobs.__version__)


def test_a_bare_checkout_does_not_know_its_version(tmp_path: Path) -> None:
    """What was never installed works all the same."""
    (tmp_path / "leader_jobs").symlink_to(_PACKAGE)
    printed = in_a_fresh_interpreter(
        f"""
        import sys
        sys.path.append({str(tmp_path)!r})
        import leader_jobs
        print(leader_jobs.__version__)
        """,
        options=("-I", "-S", "-B"),
    )
    assert printed == "unknown"
