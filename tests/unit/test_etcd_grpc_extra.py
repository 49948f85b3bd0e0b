"""What is said where gRPC can not work: the extra is missing or does not fit, or greenlets are about."""

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

from leader_jobs.config import Settings
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.stores._etcd_login import split_url
from leader_jobs.stores.factory import open_store
from testsupport.cli import COMMAND
from testsupport.over_grpc import OVER_GRPC

URL = "etcd+grpc://h1:2379,h2:2379"
OPEN = textwrap.dedent(f"""
    from leader_jobs.config import Settings
    from leader_jobs.exceptions import ConfigurationError
    from leader_jobs.stores.factory import open_store
    try:
        open_store(Settings(store={URL!r}))
    except ConfigurationError as error:
        print(error)
""")


def run(program: str, *path: Path) -> str:
    """Run a program with folders ahead of everything that can be imported; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("url", "tls", "grpc"),
    [
        ("etcd://h1,h2:1/", False, False),
        ("etcds://h1,h2:1", True, False),
        ("etcd+grpc://h1,h2:1", False, True),
        ("etcds+grpc://h1,h2:1", True, True),
    ],
)
def test_the_scheme_says_which_way(url: str, tls: bool, grpc: bool) -> None:
    """TLS and gRPC are chosen apart from each other."""
    assert split_url(url) == (["h1", "h2:1"], tls, grpc)


@pytest.mark.parametrize("scheme", ["etcd+http", "etcd+", "grpc", "etcd+grpc+tls", "sqlite+grpc"])
def test_other_schemes_are_refused(scheme: str) -> None:
    """By the settings, and by whoever splits a URL without them."""
    with pytest.raises(ConfigurationError, match="unknown kind of store"):
        Settings(store=f"{scheme}://h1")
    with pytest.raises(ConfigurationError, match=r"etcds\+grpc://"):
        split_url(f"{scheme}://h1")


def test_files_for_tls_want_a_scheme_with_tls(tmp_path: Path) -> None:
    """The message writes the scheme out."""
    with pytest.raises(
        ConfigurationError, match=r"begins with etcd\+grpc://; write etcds\+grpc://"
    ):
        Settings(store=URL, ca_file=tmp_path)
    assert Settings(store=URL).plain
    assert not Settings(store="etcds+grpc://h", ca_file=tmp_path).plain


def test_credentials_stay_out_of_the_url() -> None:
    """As with the other schemes, they are refused and not repeated."""
    with pytest.raises(ConfigurationError, match="keep credentials out") as caught:
        Settings(store="etcd+grpc://app:hush@h1")
    assert "hush" not in str(caught.value)


@pytest.mark.skipif(OVER_GRPC, reason="the extra etcd3 is installed")
def test_the_extra_is_not_installed() -> None:
    """One sentence that names the store and the command that helps, on the command line too."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(Settings(store=URL))
    said = str(caught.value)
    assert said.startswith(f"store is '{URL}': what it needs is not installed (No module named ")
    assert "pip install 'leader-jobs[etcd3]'" in said
    assert "etcd://" in said

    done = subprocess.run(
        [*COMMAND, "--store", URL, "candidates"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr == f"error: {said}\n"


def test_a_protobuf_that_does_not_fit(tmp_path: Path) -> None:
    """The message names the version there is and the one that will do, whatever protobuf raises."""
    for folder, text in (
        ("grpc", ""),
        ("google", ""),
        ("google/protobuf", ""),
        ("etcd3", ""),
        (
            "etcd3/etcdrpc",
            "raise TypeError('Descriptors cannot be created directly.\\n\\nIf this')",
        ),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    (tmp_path / "protobuf-5.29.0.dist-info").mkdir()
    (tmp_path / "protobuf-5.29.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: protobuf\nVersion: 5.29.0\n"
    )

    (said,) = run(OPEN, tmp_path).splitlines()

    assert said.startswith(f"store is '{URL}': etcd3 can not be imported beside protobuf 5.29.0;")
    assert "protobuf 3.20.x (pip install 'leader-jobs[etcd3]')" in said
    assert "etcd://" in said


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets(library: str) -> None:
    """gRPC would stop all of them, so a process that was patched is refused, and one that was not, not."""
    if find_spec(library) is None:  # not by importing it: eventlet then complains of every fork
        pytest.skip(f"{library} is not installed")
    patch = {
        "gevent": "from gevent import monkey; monkey.patch_all()",
        "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
    }[library]

    (said,) = run(f"{patch}\n{OPEN}").splitlines()
    assert said.startswith(f"store is '{URL}': gRPC would stop every greenlet of this process")
    assert f"{library} has patched" in said

    imported = "from gevent import monkey" if library == "gevent" else "import eventlet.patcher"
    quiet = "import warnings; warnings.simplefilter('ignore')"
    assert "greenlet" not in run(f"{quiet}\n{imported}\n{OPEN}")
