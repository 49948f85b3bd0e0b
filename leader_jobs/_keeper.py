"""
The keeper: the process between ``runleader`` and its command, which outlives neither.

A program of its own, run by path with ``python -I -S`` and never imported: it starts the command in
a process group of its own, and kills it and everything it started when the schedule it was given
says so, when its ``runleader`` is gone, or when the command itself has ended. It needs nobody's
help for that: a ``runleader`` that is frozen past its deadline does not keep the command alive.

Arguments: the process id of ``runleader``; the moments of SIGTERM and SIGKILL on the boot-time
clock; the seconds between the two; the descriptors to hold, separated by commas; the command.
Standard input is a socket. Lines that come in, ``<stop_at> <kill_at>``, replace the schedule; lines
that go out are ``started <pid>``, ``refused <errno>`` and, once nothing is left of the command,
``exited <status> <1 if it was signalled before it exited>``.

Being single-threaded, it may fork, and its own death may serve as the command's parent-death
signal, which the kernel sends when the *thread* that forked ends. It imports little, and not
``typing``, which would take a quarter of its start.
"""

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# The clock of leader_jobs.clock, for both sides must agree on a moment; read here once more,
# because a program run in isolated mode cannot import the library it belongs to.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
#: poll() does not count suspend, and a forgotten copy of the socket would hide a death: look again.
_LOOK_EVERY = 0.25
_KILL_EVERY = 0.01
_CONTROL_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _now() -> float:
    return time.clock_gettime(_BOOT_CLOCK)


def _prctl(option: int, value: int) -> bool:
    """Call prctl(2); False where there is none (it is Linux's own) or no ctypes to reach it."""
    try:
        import ctypes  # some builds of Python go without it

        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (ImportError, AttributeError, OSError):
        return False


def _children() -> Iterator[int]:
    """Yield the direct children of this process, zombies included."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208  importing pathlib would cost as much as the rest
    except OSError:
        return
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123  as above
            # The name in parentheses may itself contain spaces and parentheses.
            if int(stat.read().rpartition(b")")[2].split()[1]) == os.getpid():
                yield pid


class Keeper:
    """One life of one command."""

    def __init__(self, arguments: list[str]) -> None:
        runleader, stop_at, kill_at, grace, held, *self.argv = arguments
        self.runleader = int(runleader)
        self.stop_at, self.kill_at, self.grace = float(stop_at), float(kill_at), float(grace)
        for descriptor in filter(None, held.split(",")):
            os.set_inheritable(int(descriptor), False)  # held here, not by the command
        self.control = os.dup(0)
        self.unread = b""
        self.wakeup, wake = os.pipe()
        for end in (self.wakeup, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _CONTROL_SIGNALS:  # whoever wants us to end ends runleader
            signal.signal(number, signal.SIG_IGN)
        self.adopts_orphans = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.command = 0
        self.status: int | None = None
        self.signalled = False  # before the command exited
        self.stopping_since: float | None = None

    def run(self) -> None:
        """Start the command unless it is too late for it, and stay until nothing of it is left."""
        if self.orphaned or _now() >= self.stop_at or not self.start():
            return
        events = select.poll()
        events.register(self.control, select.POLLIN)
        events.register(self.wakeup, select.POLLIN)
        while self.reap():
            self.act(_now())
            for descriptor, _ in events.poll(math.ceil(1000 * self.patience(_now()))):
                if descriptor == self.wakeup:
                    os.read(self.wakeup, 4096)
                elif not self.listen():
                    events.unregister(self.control)
        self.say(f"exited {self.status} {self.signalled:d}")

    @property
    def orphaned(self) -> bool:
        """Whether runleader is gone."""
        return os.getppid() != self.runleader

    def say(self, line: str) -> None:
        """Tell runleader, if it is still there."""
        with contextlib.suppress(OSError):
            os.write(self.control, f"{line}\n".encode())

    def start(self) -> bool:
        """Start the command; False if there can be no process for it at the moment."""
        keeper = os.getpid()
        # A signal for the child must wait until the child takes signals as the command would.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.command = os.fork()
        except OSError as error:
            self.say(f"refused {error.errno}")
            return False
        if self.command == 0:
            self.become_command(keeper)
        with contextlib.suppress(OSError):  # both sides do it, so that neither has to wait
            os.setpgid(self.command, self.command)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.say(f"started {self.command}")
        return True

    def become_command(self, keeper: int) -> None:
        """Turn this process, the child that *keeper* forked, into the command."""
        try:
            os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != keeper:  # it died before the line above
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)  # some may have been ignored long before us
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execvp(self.argv[0], self.argv)  # noqa: S606  to run what the operator names is its task
        except OSError as error:
            self.say(f"refused {error.errno}")
        finally:
            os._exit(127)

    def patience(self, now: float) -> float:
        """Return the seconds to wait for news before looking at the clock again."""
        if self.stopping_since is None:
            return min(_LOOK_EVERY, max(0.0, self.stop_at - now))
        killing = now >= self.last_moment
        return _KILL_EVERY if killing else min(_LOOK_EVERY, self.last_moment - now)

    @property
    def last_moment(self) -> float:
        """When SIGKILL comes, given that the command is being stopped."""
        return min(self.kill_at, (self.stopping_since or 0.0) + self.grace)

    def listen(self) -> bool:
        """Take in a new schedule; False if runleader is gone."""
        try:
            received = os.read(self.control, 4096)
        except OSError:
            received = b""
        if not received:
            self.stop_at = self.kill_at = 0.0
            return False
        *lines, self.unread = (self.unread + received).split(b"\n")
        for line in lines:
            stop_at, kill_at = line.split()
            self.stop_at, self.kill_at = float(stop_at), float(kill_at)
        return True

    def act(self, now: float) -> None:
        """Do what is due."""
        if self.orphaned:
            self.stop_at = self.kill_at = 0.0
        if self.stopping_since is None and now >= self.stop_at:
            self.signalled = True
            self.stop(now)
        if self.stopping_since is not None and now >= self.last_moment:
            self.send(signal.SIGKILL)

    def stop(self, now: float) -> None:
        """Ask everything to end."""
        self.stopping_since = now
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a stopped process cannot take the first one

    def send(self, number: signal.Signals) -> None:
        """
        Send a signal to the command's group and to those of our children that left it.

        As we adopt orphans, killing our children again and again reaches every descendant in
        whatever session it hides: each death hands us the next ones, and the dead have no more.
        """
        # Only until the command is reaped is its id certain to be the id of its group.
        in_group = self.command if self.status is None else 0
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if in_group:
                os.killpg(in_group, number)
        for child in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(child) != in_group:
                    os.kill(child, number)

    def reap(self) -> bool:
        """Collect the dead; False once no child is left, living or dead."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return False
            if dead is None:
                return True
            ours = dead.si_pid == self.command
            if ours and self.stopping_since is None:
                self.stop(_now())  # what it leaves behind is over with it
            if ours and not self.adopts_orphans:
                self.send(signal.SIGKILL)  # we could not tell when they have ended
            _, status = os.waitpid(dead.si_pid, 0)
            if ours:
                self.status = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    Keeper(sys.argv[1:]).run()
