"""
Settings: one frozen value that knows its sources and refuses nonsense.

Sources, the first that has a key wins: arguments, environment (``LEADER_JOBS_TTL=30``), the
application's mapping (Django's ``LEADER_JOBS`` dict), defaults. A key nobody knows is an error
that names the nearest one; a value out of range is an error that names key, value and range.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import check_election, check_namespace, check_node, nearest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ENVIRONMENT_PREFIX", "Application", "Settings", "Timing", "application", "redact"]

ENVIRONMENT_PREFIX: Final = "LEADER_JOBS_"
#: Set for commands to read, that under ``runleader -- CMD`` and those of hooks; not settings.
_INFORMATIONAL = "TOKEN|EVENT|REASON"
#: What Kubernetes sets in every pod beside a Service that is called ``leader-jobs``.
_SERVICE_LINKS = "SERVICE_HOST|SERVICE_PORT.*|PORT(_.*)?"
_NOT_OURS: Final = re.compile(f"{_INFORMATIONAL}|{_SERVICE_LINKS}")


@dataclass(frozen=True, slots=True)
class Timing:
    """
    What follows from a lease of *ttl* seconds.

    The margin is what the clocks of two hosts may drift apart within one ttl, plus the time between
    reading the clock and acting on it.
    """

    ttl: float

    @property
    def safety_margin(self) -> float:
        """Seconds before the lease can run out at which the term is already over."""
        return max(0.5, self.ttl / 5)

    @property
    def valid_for(self) -> float:
        """Seconds a term may act after the last good renewal was sent."""
        return self.ttl - self.safety_margin

    @property
    def renew_every(self) -> float:
        """Seconds between renewals."""
        return self.ttl / 3

    @property
    def look_every(self) -> float:
        """Seconds after which a waiting candidate looks again although nobody told it to."""
        return 4 * self.ttl

    @property
    def call_timeout(self) -> float:
        """Seconds one try of one remote call may take before the next endpoint is asked."""
        return min(1.0, self.ttl / 6)


def _default_node() -> str:
    return f"{os.uname().nodename}-{os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Everything an entry point needs to know, checked once.

    Attributes:
        store: URL of the store: ``sqlite:////abs/path``, ``etcd://host:port,host:port``,
            ``etcds://…`` for etcd over TLS, ``etcd+grpc://…`` or ``etcds+grpc://…`` for etcd over
            gRPC, or ``memory://name`` within one process.
        namespace: the prefix of every key in etcd; a SQLite file belongs to one application.
        election: the election that jobs belong to unless they name another.
        node: this node's label in logs and pages. A label, never an identity.
        ttl: lease time to ask for, in seconds; 2 to 3600.
        grace: seconds that running jobs get to finish after SIGTERM or a lost term.
        workers: how many jobs may run at once on the leader.
        guardian: whether a process of its own, of 12 MB, has another node lead at once when this
            process dies, on etcd, which does not see that; if None, for ``runleader``,
            ``leader-jobs run`` and beat only.
        user: name to log in to the store with.
        password: its password; never shown.
        password_file: a file that holds the password, read at each login.
        ca_file: the certificate authority that the servers' certificates must come from.
        cert_file: this client's certificate.
        key_file: the key of that certificate.
        probe_port: the port that probes are answered on, 0 for any that is free; None for no probes.
        probe_host: the address they are answered on.
        metrics: whether ``/metrics`` is one of them; needs the extra ``metrics``.
        on_elected: a command that is run when a term of this process begins; no shell reads it.
        on_stepped_down: a command that is run when one has ended.
        hook_timeout: seconds after which such a command is killed.
    """

    store: str
    namespace: str = "leader-jobs"
    election: str = "default"
    node: str = field(default_factory=_default_node)
    ttl: float = 15.0
    grace: float = 10.0
    workers: int = 10
    guardian: bool | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: "Path | None" = None
    ca_file: "Path | None" = None
    cert_file: "Path | None" = None
    key_file: "Path | None" = None
    probe_port: int | None = None
    probe_host: str = "127.0.0.1"
    metrics: bool = False
    on_elected: str | None = None
    on_stepped_down: str | None = None
    hook_timeout: float = 30.0

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        check_election(self.election)
        check_node(self.node)
        _check_range("ttl", self.ttl, 2.0, 3600.0, "seconds")
        _check_range("grace", self.grace, 0.0, 86400.0, "seconds")
        _check_range("workers", self.workers, 1, 1000, "threads")
        _check_range("hook_timeout", self.hook_timeout, 0.1, 3600.0, "seconds")
        if self.probe_port is not None:
            _check_range("probe_port", self.probe_port, 0, 65535, "(0: any that is free)")
        _check_host("probe_host", self.probe_host)
        _check_command("on_elected", self.on_elected)
        _check_command("on_stepped_down", self.on_stepped_down)
        _check_store(self.store)
        self._check_credentials()

    def _check_credentials(self) -> None:
        if self.password is not None and self.password_file is not None:
            msg = "password and password_file are both set; keep one of them"
            raise ConfigurationError(msg)
        has_password = self.password is not None or self.password_file is not None
        if has_password and self.user is None:
            msg = "a password is set but no user; set user too"
            raise ConfigurationError(msg)
        if self.user is not None and not has_password:
            msg = f"user is {self.user!r} but there is no password; set password or password_file"
            raise ConfigurationError(msg)
        if (self.cert_file is None) != (self.key_file is None):
            msg = "cert_file and key_file go together; set both or neither"
            raise ConfigurationError(msg)
        if self.plain and (self.ca_file or self.cert_file):
            scheme = self.store.partition("://")[0]
            msg = (
                f"ca_file or cert_file is set but store begins with {scheme}://; "
                f"write {scheme.replace('etcd', 'etcds')}:// for TLS"
            )
            raise ConfigurationError(msg)

    def __repr__(self) -> str:
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        shown["store"] = redact(self.store)
        return f"Settings({', '.join(f'{key}={value!r}' for key, value in shown.items())})"

    @property
    def plain(self) -> bool:
        """Whether what goes to the store can be read on its way: etcd without TLS."""
        return self.store.startswith(("etcd://", "etcd+grpc://"))

    @property
    def timing(self) -> Timing:
        """What follows from the ttl asked for; a granted ttl has a `Timing` of its own."""
        return Timing(self.ttl)

    @classmethod
    def load(
        cls,
        mapping: Mapping[str, Any] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        mapping_name: str = "LEADER_JOBS",
        **arguments: Any,
    ) -> "Settings":
        """
        Put the settings together from all sources.

        Args:
            mapping: the application's own configuration; keys in capitals as Django writes them;
                None means "not given".
            environ: the environment; that of this process if None.
            mapping_name: what to call *mapping* in messages.
            arguments: what the caller wants regardless of anything else; None means "not given".

        Raises:
            ConfigurationError: naming the source, the key, the value and the way out.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for key, value in _given(mapping or {}):
            name = _known(str(key).lower(), f"{mapping_name}[{key!r}]", str.upper)
            values[name] = _convert(name, value, f"{mapping_name}[{key!r}]")
        for name, source, text in _from_environment(environ):
            values[name] = _convert(name, text, source)
        for key, value in _given(arguments):
            name = _known(key, f"argument {key!r}", str)
            values[name] = _convert(name, value, f"argument {key!r}")
        if not values.get("store"):
            msg = (
                "store is not set: say where the election lives, for example "
                f"{ENVIRONMENT_PREFIX}STORE=sqlite:////var/lib/myapp/leader.sqlite3 "
                f"or {ENVIRONMENT_PREFIX}STORE=etcd://host1:2379,host2:2379"
            )
            raise ConfigurationError(msg)
        return cls(**values)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield key, source and text of each setting; an empty variable counts as not given."""
    for variable, text in environ.items():
        key = variable.removeprefix(ENVIRONMENT_PREFIX)
        if key != variable and text and _NOT_OURS.fullmatch(key) is None:
            source = f"environment variable {variable}"
            yield (
                _known(key.lower(), source, lambda n: ENVIRONMENT_PREFIX + n.upper()),
                source,
                text,
            )


def _given(source: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in source.items() if value is not None]


def _known(name: str, source: str, spell: Any) -> str:
    names = [f.name for f in fields(Settings)]
    if name in names:
        return name
    near = nearest(name, names)
    hint = (
        f"; did you mean {spell(near)}?" if near else f"; known are {', '.join(map(spell, names))}"
    )
    msg = f"{source} is not a setting{hint}"
    raise ConfigurationError(msg)


_FLOATS: Final = frozenset({"ttl", "grace", "hook_timeout"})
_INTEGERS: Final = frozenset({"workers", "probe_port"})
_BOOLEANS: Final = frozenset({"guardian", "metrics"})
_PATHS: Final = frozenset({"password_file", "ca_file", "cert_file", "key_file"})
_TRUTHS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _convert(name: str, value: Any, source: str) -> Any:
    if name in _BOOLEANS:
        return _boolean(value, source)
    kind: type = str
    if name in _FLOATS:
        kind = float
    elif name in _INTEGERS:
        kind = int
    elif name in _PATHS:
        from pathlib import Path

        kind = Path
    elif not isinstance(value, str):
        msg = f"{source} must be a string, not {type(value).__name__}"
        raise ConfigurationError(msg)
    if isinstance(value, bool):
        msg = f"{source} is {value!r}; it must be {'a number' if kind in (int, float) else 'text'}"
        raise ConfigurationError(msg)
    try:
        # By way of text, so that 2.5 is no whole number.
        return int(str(value)) if kind is int else kind(value)
    except (TypeError, ValueError):
        what = {float: "a number", int: "a whole number"}.get(kind, "a path")
        msg = f"{source} is {value!r}; it must be {what}"
        raise ConfigurationError(msg) from None


def _boolean(value: Any, source: str) -> bool:
    truth = value if isinstance(value, bool) else _TRUTHS.get(str(value).lower())
    if truth is None:
        msg = f"{source} is {value!r}; it must be true or false (or yes, no, 1, 0)"
        raise ConfigurationError(msg)
    return truth


def _check_host(name: str, host: str) -> None:
    if not host or any(c.isspace() or c in "/@[]" for c in host):
        msg = f"{name} is {host!r}; it must be an address or a host name, such as 0.0.0.0 or ::"
        raise ConfigurationError(msg)


def _check_command(name: str, command: str | None) -> None:
    if command is None:
        return
    import shlex

    try:
        words = shlex.split(command)
    except ValueError as error:
        msg = f"{name} is {command!r}, which can not be read: {error}; close the quotation"
        raise ConfigurationError(msg) from None
    if not words:
        msg = f"{name} is empty; name a command, or leave it out"
        raise ConfigurationError(msg)


def _check_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:  # also refuses NaN
        msg = f"{name} is {value:g}; it must be between {low:g} and {high:g} {unit}"
        raise ConfigurationError(msg)


_ETCD: Final = ("etcd", "etcds", "etcd+grpc", "etcds+grpc")
_SCHEMES: Final = ("sqlite", *_ETCD, "memory")


def _check_store(url: str) -> None:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        near = nearest(scheme.lower(), _SCHEMES, cutoff=0.7)
        hint = (
            f"did you mean {near}://?" if near else "use sqlite://, etcd://, etcds:// or memory://"
        )
        msg = f"store is {redact(url)!r}: unknown kind of store; {hint}"
        raise ConfigurationError(msg)
    if scheme == "sqlite" and not rest.startswith("//"):
        msg = (
            f"store is {url!r}: a relative path would give each working directory an election of its "
            "own; write four slashes and an absolute path, sqlite:////var/lib/myapp/leader.sqlite3"
        )
        raise ConfigurationError(msg)
    if scheme in _ETCD and "@" in rest:
        msg = f"store is {redact(url)!r}: keep credentials out of the URL; set user and password"
        raise ConfigurationError(msg)


def redact(url: str) -> str:
    """Return *url* with any credentials in it replaced by ``***``, fit for logs and messages."""
    scheme, separator, rest = url.partition("://")
    if "@" not in url or scheme == "sqlite":
        return url
    if not separator:
        return "***"
    # A password may itself hold slashes and at-signs: everything up to the last one goes.
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}"


class Application:
    """
    Where the settings of this process come from when nobody passes any.

    The environment, until an entry point that knows better (a Django project, say) tells.
    Settings are loaded when first needed, never at import.
    """

    def __init__(self) -> None:
        self._load: Callable[[], Settings] | None = None
        self._settings: Settings | None = None
        self._election: str | None = None

    def configure(self, load: Callable[[], Settings] | None) -> None:
        """Take settings from *load* from now on; from the environment again if None."""
        self._load = load
        self._settings = None
        self._election = None

    @property
    def configured(self) -> bool:
        """Whether an entry point has told where settings come from."""
        return self._load is not None

    @property
    def load(self) -> Callable[[], Settings]:
        """What loads the settings at present."""
        return self._load or Settings.load

    @property
    def settings(self) -> Settings:
        """The settings; raises `ConfigurationError` where they make no sense."""
        if self._settings is None:
            self._settings = self.load()
        return self._settings

    @property
    def election(self) -> str:
        """The election of whatever names none; known even where no store is configured."""
        if self._election is None:
            named = os.environ.get(f"{ENVIRONMENT_PREFIX}ELECTION") or "default"
            self._election = self.settings.election if self._load else check_election(named)
        return self._election


#: The defaults of this process.
application: Final = Application()
