"""Elected schedulers run hooks and are counted; they answer no probes on a port of their own."""

from pathlib import Path

import pytest

from leader_jobs.adapters.apscheduler import LeaderBackgroundScheduler
from leader_jobs.exceptions import ConfigurationError
from testsupport.apscheduler_rig import until
from testsupport.processes import Diary


def test_hooks_of_a_scheduler(tmp_path: Path) -> None:
    """They run when it is elected, and before its shutdown has ended when it has stepped down."""
    with Diary.opened(tmp_path / "diary") as diary:
        say = f"sh -c 'echo $LEADER_JOBS_EVENT $LEADER_JOBS_NODE >{diary.path}'"
        own = {"store": f"sqlite:///{tmp_path}/s.sqlite3", "node": "n1", "probe_port": 1}
        hooks = {"on_elected": say, "on_stepped_down": say, "metrics": "yes"}
        scheduler = LeaderBackgroundScheduler(leader_jobs=own | hooks)
        scheduler.start()
        until(lambda: scheduler.leads)
        assert diary.line() == "elected n1"
        scheduler.shutdown()
        scheduler.join()

        assert not diary.is_silent(0.0)
        assert diary.line() == "stepped_down n1"


def test_a_hook_that_is_not_there(tmp_path: Path) -> None:
    """The scheduler does not start, and says why."""
    own = {"store": f"sqlite:///{tmp_path}/s.sqlite3", "on_elected": "no-such-command"}
    scheduler = LeaderBackgroundScheduler(leader_jobs=own)
    with pytest.raises(ConfigurationError, match="there is no command 'no-such-command'"):
        scheduler.start()
