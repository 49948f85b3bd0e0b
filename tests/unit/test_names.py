"""Names of elections, jobs, namespaces and nodes."""

from collections.abc import Callable

import pytest

from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import (
    check_election,
    check_job,
    check_namespace,
    check_node,
    nearest,
    runners_of,
)

Check = Callable[[object], str]


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_election, "default"),
        (check_election, "Mail.out_2-b"),
        (check_election, "a" * 128),
        (check_job, "shop.tasks.refresh"),
        (check_job, "_private:5@night"),
        (check_job, "add every 10 s (eu)"),
        (check_election, "runners"),
        (check_election, "mail.runners2"),
        (check_namespace, "leader-jobs"),
        (check_namespace, "/team/shop"),
        (check_node, "web 1 (Köln)"),
        (check_node, "x" * 128),
    ],
)
def test_good_names_are_returned(check: Check, name: str) -> None:
    """A name that is fine comes back as it is."""
    assert check(name) == name


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_election, "a/b"),
        (check_election, "/a"),
        (check_election, ".hidden"),
        (check_election, "-option"),
        (check_election, "two words"),
        (check_election, "line\n"),
        (check_election, "ä"),
        (check_election, "nul\0"),
        (check_election, "%"),
        (check_job, "shop/refresh"),
        (check_job, "-option"),
        (check_job, "trailing "),
        (check_job, " leading"),
        (check_job, "line\n"),
        (check_namespace, "a//b"),
        (check_namespace, "a/"),
        (check_namespace, "/"),
        (check_namespace, "a/../b"),
        (check_namespace, "a b"),
        (check_node, "line\nbreak"),
        (check_node, "\x1b[31mred"),
    ],
)
def test_bad_characters_are_refused(check: Check, name: str) -> None:
    """A name that could break out of a key, a file name or a log line is refused and shown."""
    with pytest.raises(ConfigurationError, match="not"):
        check(name)


@pytest.mark.parametrize("check", [check_election, check_job, check_namespace, check_node])
@pytest.mark.parametrize("name", ["", None, 5, b"bytes", ["list"]])
def test_only_non_empty_text_is_a_name(check: Check, name: object) -> None:
    """Nothing, numbers and bytes are no names."""
    with pytest.raises(ConfigurationError, match="not"):
        check(name)


@pytest.mark.parametrize("check", [check_election, check_job, check_namespace, check_node])
def test_long_names_are_refused(check: Check) -> None:
    """129 characters are one too many."""
    with pytest.raises(ConfigurationError, match="128"):
        check("a" * 129)


def test_the_message_of_a_long_name_is_short() -> None:
    """A name of a megabyte does not flood the log."""
    with pytest.raises(ConfigurationError) as caught:
        check_election("a" * 1_000_000)

    assert len(str(caught.value)) < 200


def test_no_election_lies_within_another() -> None:
    """No slash can get into an election's name, so no key of one has another's prefix."""
    for name in ("n/sub", "n/", "n\\sub/", "n%2Fsub/x"):
        with pytest.raises(ConfigurationError):
            check_election(name)


@pytest.mark.parametrize("name", ["mail", "a.b", "x" * 120])
def test_workers_show_themselves_where_nobody_can_be_elected(name: str) -> None:
    """Their electorate has a name that no election can have, and each election's is its own."""
    with pytest.raises(ConfigurationError, match="kept for workers"):
        check_election(runners_of(name))
    assert runners_of(name).startswith(name)
    assert runners_of(name) != runners_of(f"{name}x")


def test_the_nearest_name_is_the_one_that_was_meant() -> None:
    """Or none, if it is near to nothing."""
    assert nearest("latset", ["all", "latest", "skip"]) == "latest"
    assert nearest("tomorrow", ["all", "latest", "skip"]) is None
