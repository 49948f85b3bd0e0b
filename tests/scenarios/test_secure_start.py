"""What can not work is said at the start and by the doctor: one line, with the remedy, and no secret."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from testsupport.certificates import Authority, Pair
from testsupport.cli import COMMAND, Answer, environ
from testsupport.etcd import EtcdCluster, newest_binaries

pytestmark = [pytest.mark.etcd, pytest.mark.gateway]

SECRET: Final = "xyzzy-plugh-42"
NAMESPACE: Final = "ours"
#: Root reads every file unless these are taken from it.
MEEK: Final = (
    ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)
NOBODY: Final = 65534
#: What nobody may see: the password, and what a key file holds.
SECRETS: Final = (SECRET, "BEGIN PRIVATE", "BEGIN EC")


def hide(file: Path) -> None:
    """Take away the right to read a file."""
    if os.geteuid() == 0:
        file.chmod(0o600)
        os.chown(file, NOBODY, NOBODY)
    else:
        file.chmod(0)


class Sites:
    """Clusters, each with something about it, and certificates; made once for all tests."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.authority = Authority(folder / "authority")
        self.named = self.authority.issue("named", common_name="app")
        self.nameless = self.authority.issue("nameless")
        self.hidden = self.authority.issue("secret")
        hide(self.hidden.key)
        self._password = folder / "password"
        self._password.write_text(f"{SECRET}\n")
        self._password.chmod(0o600)
        self.login = {
            "LEADER_JOBS_USER": "app",
            "LEADER_JOBS_PASSWORD_FILE": str(self._password),
        }
        self.plain = self._start()
        self.plain.enable_auth(f"{NAMESPACE}/elections/", user="app", password=SECRET)
        self.secured = self._start(tls=self.authority, client_certificates=True)
        self.secured.enable_auth(f"{NAMESPACE}/", user="app", password=SECRET)
        other = Authority(folder / "other")
        other.issue("etcd", hosts=["127.0.0.1"], client=False)
        self.other = other
        self.server_only = self._start(tls=other, client_certificates=True)
        self.no_gateway = self._start(extra_args=["--enable-grpc-gateway=false"])
        self.nested = self._start()
        self.nested.etcdctl("put", f"{NAMESPACE}/elections/default/sub/elections/x/1", "theirs")

    def _start(self, **options: object) -> EtcdCluster:
        arguments = ["--bcrypt-cost=4", *options.pop("extra_args", [])]  # type: ignore[misc]
        cluster = EtcdCluster(binaries=newest_binaries(), extra_args=arguments, **options)  # type: ignore[arg-type]
        return self._stack.enter_context(cluster)

    def tls(self, authority: Authority, pair: Pair) -> dict[str, str]:
        """Return the settings of a client with a certificate."""
        return {
            "LEADER_JOBS_CA_FILE": str(authority.ca_file),
            "LEADER_JOBS_CERT_FILE": str(pair.cert),
            "LEADER_JOBS_KEY_FILE": str(pair.key),
        }

    def case(self, name: str) -> tuple[dict[str, str], str, str]:
        """Return the environment of a case, what is the matter, and what to do."""
        secured, plain = self.secured.url, self.plain.url
        named, nameless = (self.tls(self.authority, p) for p in (self.named, self.nameless))
        cases: dict[str, tuple[dict[str, str], str, str]] = {
            "common name": (
                {"LEADER_JOBS_STORE": secured, **named, **self.login},
                "CommonName",
                r"without one and a user, or etcds\+grpc:// with leader-jobs\[etcd3\]",
            ),
            "wrong password": (
                {
                    "LEADER_JOBS_STORE": secured,
                    **nameless,
                    "LEADER_JOBS_USER": "app",
                    "LEADER_JOBS_PASSWORD": f"wrong-{SECRET}",
                },
                "does not let user 'app' log in",
                "compare user, password",
            ),
            "no client certificate": (
                {"LEADER_JOBS_STORE": secured, "LEADER_JOBS_CA_FILE": str(self.authority.ca_file)},
                "TLS fails with every endpoint",
                "check etcds://",
            ),
            "server certificate": (
                {
                    "LEADER_JOBS_STORE": self.server_only.url,
                    **self.tls(self.other, self.other.issue("client")),
                },
                "TLS fails with every endpoint",
                "clientAuth .*--client-cert-file and --client-key-file",
            ),
            "gateway off": (
                {"LEADER_JOBS_STORE": self.no_gateway.url},
                "404",
                r"--enable-grpc-gateway=true, or use etcd\+grpc://",
            ),
            "ledger": (
                {"LEADER_JOBS_STORE": plain, **self.login},
                f"user 'app' may not read and write .*{NAMESPACE}/ledger/default/",
                f"grant-permission ROLE --prefix=true readwrite {NAMESPACE}/ledger/default/",
            ),
            "key file": (
                {"LEADER_JOBS_STORE": secured, **self.tls(self.authority, self.hidden)},
                r"key_file '.*secret\.key' \(mode 0[06]00, owned by user \d+\) can not be read by",
                "make it, and the folders above, readable to that user",
            ),
            "no file": (
                {"LEADER_JOBS_STORE": secured, **nameless, "LEADER_JOBS_CA_FILE": "/nowhere/ca"},
                "ca_file '/nowhere/ca' can not be read: No such file",
                "check the path",
            ),
            "namespace": (
                {"LEADER_JOBS_STORE": plain, "LEADER_JOBS_NAMESPACE": "ours/elections/default"},
                "namespace 'ours/elections/default' would lie within what namespace 'ours' keeps",
                "use one without 'elections' as a part",
            ),
            "key of another": (
                {"LEADER_JOBS_STORE": self.nested.url},
                f"the key {NAMESPACE}/elections/default/sub/elections/x/1 lies within",
                "another namespace",
            ),
        }
        variables, what, remedy = cases[name]
        return {"LEADER_JOBS_NAMESPACE": NAMESPACE} | variables, what, remedy


CASES: Final = (
    "common name",
    "wrong password",
    "no client certificate",
    "server certificate",
    "gateway off",
    "ledger",
    "key file",
    "no file",
    "namespace",
    "key of another",
)


@pytest.fixture(name="sites", scope="module")
def _sites() -> Iterator[Sites]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secure-")))
        yield Sites(folder, stack)


def run(*command: str, variables: dict[str, str], folder: Path | None = None) -> Answer:
    """Run a command to its end."""
    found = subprocess.run(
        command,
        env=environ(**variables),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        cwd=folder,
    )
    return Answer(found.returncode, found.stdout, found.stderr)


def assert_discreet(answer: Answer) -> None:
    """Check that no secret is told."""
    for secret in SECRETS:
        assert secret not in answer.out + answer.err


@pytest.mark.parametrize("name", CASES)
def test_what_can_not_work(sites: Sites, name: str) -> None:
    """A node ends with one line that names it and what to do, and the doctor finds the same."""
    variables, what, remedy = sites.case(name)
    leader_jobs = (*(MEEK if name == "key file" else ()), *COMMAND)
    started = run(*leader_jobs, "run", "--verbosity", "2", "--", "true", variables=variables)

    assert started.code == 2
    assert re.search(f"{what}.*; .*{remedy}", started.error), started.error
    assert_discreet(started)
    visited = run(*leader_jobs, "doctor", "--timeout", "2", "--json", variables=variables)
    assert_discreet(visited)
    report = visited.json
    if "findings" not in report:  # the settings themselves are refused
        assert re.search(f"{what}.*; .*{remedy}", report["error"]), report
        return
    found = [f for f in report["findings"] if re.search(what, f["message"])]
    rights = [f for f in report["findings"] if f["check"] == "rights"]
    assert [f["level"] for f in found or rights] == ["problem"], report
    assert re.search(remedy, (found or rights)[0]["remedy"]), report


APP: Final = 'from celery import Celery\napp = Celery("tiny", broker="memory://")\n'
SETTINGS: Final = 'SECRET_KEY = "x"\nINSTALLED_APPS = ["django_leader_jobs"]\nUSE_TZ = True\n'


def test_beat_and_runleader_say_it_too(sites: Sites, tmp_path: Path) -> None:
    """Whatever stands looks before it stands, and ends with exit code 1 and the one line."""
    (tmp_path / "tiny_app.py").write_text(APP)
    (tmp_path / "tiny_settings.py").write_text(SETTINGS)
    variables, what, remedy = sites.case("ledger")
    variables |= {"DJANGO_SETTINGS_MODULE": "tiny_settings", "PYTHONPATH": str(tmp_path)}
    beat = ("celery", "-A", "tiny_app", "beat", "-S", "leader", "-s", str(tmp_path / "schedule"))
    for module in (beat, ("django", "runleader", "--", "true")):
        answer = run(sys.executable, "-m", *module, variables=variables, folder=tmp_path)
        assert answer.code == 1, answer
        assert "Traceback" not in answer.err
        assert re.search(what, answer.err), answer
        (line,) = [line for line in answer.err.splitlines() if re.search(what, line)]
        assert re.search(f"{what}.*; .*{remedy}", line)
        assert_discreet(answer)
