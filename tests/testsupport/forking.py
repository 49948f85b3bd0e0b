"""A question answered in the child of a fork."""

import os
from collections.abc import Callable

__all__ = ["in_forked_child"]


def in_forked_child(question: Callable[[], object]) -> str:
    """
    Fork, call *question* in the child, and return the repr of its answer.

    The child ends right after, without any clean-up of this process's objects. If *question*
    raises, the answer is the repr of the exception.
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        # Whatever happens, the child must not go on as a second test run.
        try:
            try:
                answer = repr(question())
            except BaseException as error:  # noqa: BLE001  handed to the parent as the answer
                answer = repr(error)
            os.write(write_end, answer.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer
