"""
What a candidate says about itself, for people to read.

Never an identity: who leads is decided by the store's own ids and revisions. A proposal read back
is hostile input: candidates of other programs (Go, ``etcdctl elect``) may stand in the same
election and say anything.
"""

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import Final, Self

__all__ = ["Proposal"]

_MAX_BYTES: Final = 4096
_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """
    A candidate's own description.

    Attributes:
        node: the label from the settings.
        host: the host's name.
        pid: the process id on that host.
        version: the version of this library.
        incarnation: a random id of one candidate object in one process; runs in progress are known
            to be alive by it.
    """

    node: str
    host: str
    pid: int
    version: str
    incarnation: str

    @classmethod
    def of_this_process(cls, node: str, version: str) -> Self:
        """Describe this process, with a fresh incarnation."""
        return cls(
            node=node,
            host=os.uname().nodename,
            pid=os.getpid(),
            version=version,
            incarnation=os.urandom(16).hex(),
        )

    def encode(self) -> bytes:
        """Return the bytes a candidate enrols with."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Self | None:
        """Read a proposal back; None if it was not written by this library."""
        if len(raw) > _MAX_BYTES:
            return None
        try:
            found = json.loads(raw)
            texts = {f.name: str(found[f.name])[:_MAX_TEXT] for f in fields(cls)}
            pid = int(texts.pop("pid"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return cls(pid=pid, **texts)
