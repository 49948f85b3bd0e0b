"""Signals in the child of a fork are the child's, not its parent's."""

import multiprocessing
import os
import signal
import threading
from contextlib import closing

from leader_jobs.mailbox import NOTE, Mailbox


def _wait_to_be_terminated(ready: "multiprocessing.SimpleQueue[int]") -> None:
    ready.put(os.getpid())
    threading.Event().wait(30)


def test_a_terminated_child_dies_and_its_parent_hears_nothing() -> None:
    """A job may start and terminate processes of its own without stopping its node."""
    context = multiprocessing.get_context("fork")
    with closing(Mailbox()) as mailbox, mailbox.open([signal.SIGTERM]):
        ready = context.SimpleQueue()
        child = context.Process(target=_wait_to_be_terminated, args=(ready,))
        child.start()
        assert ready.get() == child.pid
        child.terminate()
        child.join(10)

        assert child.exitcode == -signal.SIGTERM
        mailbox.put()
        assert mailbox.get() == NOTE, "the first thing to arrive is the note, not a signal"
