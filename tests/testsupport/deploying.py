"""The files of docs/deploy/files, as tests run them; and what to do where a test can not be run."""

import os
from pathlib import Path
from typing import Final

import pytest

__all__ = ["FILES", "adapted", "give_up", "read"]

#: Where the recipes are.
FILES: Final = Path(__file__).parents[2] / "docs" / "deploy" / "files"


def read(name: str) -> str:
    """Return a file of the recipes."""
    return (FILES / name).read_text()


def adapted(name: str, changes: dict[str, str]) -> str:
    """Return a file of the recipes with what is *changed* of it; what is not there can not be changed."""
    text = read(name)
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def give_up(reason: str) -> None:
    """Skip the test, or fail it where everything is required to run (``REQUIRE_DEPLOY=1``)."""
    (pytest.fail if os.environ.get("REQUIRE_DEPLOY") == "1" else pytest.skip)(reason)
