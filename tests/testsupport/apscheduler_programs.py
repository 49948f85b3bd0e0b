"""
One small program for each of APScheduler's scheduler classes, as a user would write it.

Started with its kind, the URL of a store and a path to write lines to: ``ready PID``, and for each
run ``KIND PID TOKEN PLACE``, where the place is the thread of the scheduler's loop or another one.
What it reads from its standard input it does: ``pause``, ``resume``, ``stop``; the end of it too.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

KINDS = (
    "background",
    "blocking",
    "asyncio",
    "gevent",
    "gevent-patched",
    "tornado",
    "twisted",
    "qt",
)
EVERY = 0.2

if __name__ == "__main__" and "gevent-patched" in sys.argv:
    from gevent import monkey

    monkey.patch_all()


class Program:
    """
    A program of one kind.

    Args:
        kind: one of `KINDS`.
        url: the store.
        path: where to write lines.
    """

    def __init__(self, kind: str, url: str, path: str) -> None:
        self.kind = kind
        self.options = {"leader_jobs": {"store": url, "ttl": "5"}, "timezone": "UTC"}
        self._out = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._loop_thread = threading.get_ident()

    def main(self) -> None:
        """Run until told to stop."""
        getattr(self, f"_run_{self.kind.partition('-')[0]}")()
        self._write(f"bye {os.getpid()}")

    def _start(self, scheduler: Any, stop: Callable[[], object]) -> None:
        """Start *scheduler*, and do what is read; *stop* ends the program, from any thread."""
        scheduler.add_job(self._work, "interval", seconds=EVERY, id="work")
        if self.kind in ("asyncio", "tornado"):
            scheduler.add_job(self._work_in_loop, "interval", seconds=EVERY, id="loop")
        threading.Thread(target=self._obey, args=(scheduler, stop), daemon=True).start()
        self._write(f"ready {os.getpid()}")
        scheduler.start()

    def _obey(self, scheduler: Any, stop: Callable[[], object]) -> None:
        for line in self._lines():
            if line.strip() == "stop":
                break
            getattr(scheduler, line.strip())()
        stop()

    def _lines(self) -> Iterable[str]:
        if self.kind != "gevent-patched":
            return sys.stdin
        from gevent.fileobject import FileObject

        lines: Iterable[str] = FileObject(sys.stdin.fileno(), "r")
        return lines

    def _work(self) -> None:
        from leader_jobs import current_run

        run = current_run()
        where = "loop" if threading.get_ident() == self._loop_thread else "thread"
        self._write(f"work {os.getpid()} {run.token if run is not None else 0} {where}")

    async def _work_in_loop(self) -> None:
        await asyncio.sleep(0)
        self._work()

    def _write(self, line: str) -> None:
        os.write(self._out, f"{line}\n".encode())

    # -- the kinds --------------------------------------------------------------------------------

    def _run_background(self) -> None:
        from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler

        over = threading.Event()
        scheduler = LeaderBackgroundScheduler(**self.options)
        self._start(scheduler, over.set)
        over.wait()
        scheduler.shutdown()

    def _run_blocking(self) -> None:
        from leader_jobs.adapters.apscheduler import LeaderBlockingScheduler

        scheduler = LeaderBlockingScheduler(**self.options)
        self._start(scheduler, scheduler.shutdown)

    def _run_asyncio(self) -> None:
        from leader_jobs.adapters.apscheduler import LeaderAsyncIOScheduler

        async def serve() -> None:
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            scheduler = LeaderAsyncIOScheduler(**self.options)
            self._start(scheduler, lambda: loop.call_soon_threadsafe(over.set))
            await over.wait()
            scheduler.shutdown()

        asyncio.run(serve())

    def _run_gevent(self) -> None:
        import gevent

        from leader_jobs.adapters.apscheduler import LeaderGeventScheduler

        over, hub = gevent.event.Event(), gevent.get_hub()
        scheduler = LeaderGeventScheduler(**self.options)
        self._start(scheduler, lambda: hub.loop.run_callback_threadsafe(over.set))
        over.wait()
        scheduler.shutdown()

    def _run_tornado(self) -> None:
        from tornado.ioloop import IOLoop

        from leader_jobs.adapters.apscheduler import LeaderTornadoScheduler

        async def serve() -> None:
            loop, over = IOLoop.current(), asyncio.Event()
            scheduler = LeaderTornadoScheduler(**self.options)
            self._start(scheduler, lambda: loop.add_callback(over.set))
            await over.wait()
            scheduler.shutdown()
            await asyncio.sleep(0)

        asyncio.run(serve())

    def _run_twisted(self) -> None:
        from twisted.internet import reactor

        from leader_jobs.adapters.apscheduler import LeaderTwistedScheduler

        loop: Any = reactor  # Twisted installs a module, and puts the reactor in its place
        scheduler = LeaderTwistedScheduler(**self.options)
        loop.addSystemEventTrigger("before", "shutdown", scheduler.shutdown)
        self._start(scheduler, lambda: loop.callFromThread(loop.stop))
        loop.run()

    def _run_qt(self) -> None:
        from apscheduler.schedulers.qt import qtcore

        from leader_jobs.adapters.apscheduler import LeaderQtScheduler

        application = qtcore.QCoreApplication([])
        scheduler = LeaderQtScheduler(**self.options)
        self._start(scheduler, application.quit)
        getattr(application, "exec", application.exec_)()
        scheduler.shutdown()


if __name__ == "__main__":
    Program(*sys.argv[1:]).main()
