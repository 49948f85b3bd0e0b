"""
Every exception of the library, under one base.

Names without the ``Error`` suffix name a state (`NotLeader`, `Fenced`) rather than a fault. Each
message is one sentence that says what happened and what to do; none carries a password.
"""


class LeaderJobsError(Exception):
    """The base of every exception raised by this library."""


class ConfigurationError(LeaderJobsError):
    """A setting, a name or an argument makes no sense; the message names key, value and way out."""


class NotLeader(LeaderJobsError):
    """This process does not hold the term of the election, so it may not act."""


class LeadershipLost(NotLeader):
    """The term under which this work was started is over; what it does now is not protected."""


class StoreError(LeaderJobsError):
    """
    Something is wrong between this process and its store.

    Attributes:
        lasting: whether trying again as things are is of no use, so that there is no hurry to.
    """

    lasting = False


class StoreUnavailable(StoreError):
    """
    The store did not answer in time.

    The outcome is *unknown*: a write that was under way may have happened, or may still happen.
    """


class HistoryRewound(StoreUnavailable):
    """
    The store's history was taken back: a snapshot was restored, or another store answers.

    What was done before may not have happened; candidacies of before are over.
    """


class StoreRefused(StoreError):
    """The store answered and said no: credentials, rights, TLS or a request it does not accept."""

    lasting = True


class StoreUnusable(StoreError):
    """The store can not be used at all: a corrupt file, an unwritable folder, a network disk."""

    lasting = True


class CandidacyLost(StoreError):
    """The store no longer knows this candidacy: its lease expired, or somebody removed it."""


class CommitRefused(StoreError):
    """A guarded commit changed nothing, because one of its guards did not hold."""


class Fenced(CommitRefused):
    """The commit came under a term that no longer leads."""


class Conflict(CommitRefused):
    """
    A record named by the commit is not at the version the commit expects.

    Args:
        keys: the records that differ, as far as the store can tell.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        super().__init__(f"records changed meanwhile: {', '.join(keys) or 'unknown'}")
        self.keys = keys
