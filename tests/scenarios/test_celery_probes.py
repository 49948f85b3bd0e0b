"""Celery's processes answer probes and run hooks: beat, a worker that stands in an election, both in one."""

import re
from pathlib import Path

import pytest

from testsupport.beat_fleet import BeatFleet
from testsupport.brokers import FilesystemBroker
from testsupport.node_fleet import Node
from testsupport.probing import Asked, ask
from testsupport.processes import Diary, children_of

pytestmark = pytest.mark.timeout(90)


def fleet_of(folder: Path, broker: FilesystemBroker, **conf: object) -> BeatFleet:
    """Return a fleet whose processes answer on ports that are free."""
    store = f"sqlite:///{folder}/store.sqlite3"
    conf = {f"leader_jobs_{key}": value for key, value in conf.items()}
    given = {"leader_jobs_probe_port": 0, "leader_jobs_metrics": True} | conf
    return BeatFleet(folder, store, broker, ttl=15.0, conf=given)


class Probed:
    """A node of a fleet that answers probes."""

    def __init__(self, fleet: BeatFleet, node: Node) -> None:
        self._fleet = fleet
        self.node = node
        self.url = ""

        def said() -> bool:
            found = re.search(r"probes are answered on (\S+)", node.log.read_text())
            self.url = found[1] if found is not None else ""
            return bool(self.url) or not node.alive

        fleet.await_that(said, "no port is said")
        assert self.url, node.log.read_text()

    def ask(self, path: str) -> Asked:
        """Ask a probe."""
        return ask(self.url, path)

    def wait_for(self, path: str, status: int) -> Asked:
        """Ask until the answer has *status*."""
        self._fleet.await_that(lambda: self.ask(path).status == status, f"{path} is not {status}")
        return self.ask(path)


def test_beats(tmp_path: Path, filesystem_broker: FilesystemBroker) -> None:
    """The one that publishes says so, with what it published; its hooks are run."""
    with Diary.opened(tmp_path / "diary") as diary:
        say = f"sh -c 'echo $LEADER_JOBS_EVENT $LEADER_JOBS_NODE >{diary.path}'"
        fleet = fleet_of(tmp_path, filesystem_broker, on_elected=say, on_stepped_down=say)
        with fleet:
            leader = Probed(fleet, fleet.beat("a"))
            leader.wait_for("/leader", 200)
            assert diary.line() == "elected a"
            standby = Probed(fleet, fleet.beat("b"))
            standby.wait_for("/readyz", 200)
            assert standby.ask("/leader").status == 503
            for beat in (leader, standby):
                assert beat.ask("/livez").status == 200
            fleet.await_that(
                lambda: (
                    'dispatch_lag_seconds_count{election="default",node="a"} 0.0'
                    not in leader.ask("/metrics").text
                ),
                "nothing is counted",
            )
            assert leader.ask("/status").json["elections"][0]["turned"] < 5

            assert leader.node.terminate() == 0
            standby.wait_for("/leader", 200)
            # In either order: each node tells what happened to itself.
            assert {diary.line(), diary.line()} == {"stepped_down a", "elected b"}
            assert standby.node.terminate() == 0
            assert diary.line() == "stepped_down b"


def test_a_worker_that_stands_in_an_election(
    tmp_path: Path, filesystem_broker: FilesystemBroker
) -> None:
    """Its main process answers; the children of its pool, which are forked later, have no port."""
    with fleet_of(tmp_path, filesystem_broker, worker_elections=["mail"]) as fleet:
        worker = Probed(fleet, fleet.worker("w"))
        said = worker.wait_for("/leader?election=mail", 200).text
        assert said.startswith("node w leads election 'mail'")
        assert worker.ask("/readyz").status == 200
        assert worker.ask("/livez").text == "alive: leader in election 'mail'\n"
        status = worker.ask("/status").json
        assert status["pid"] == worker.node.process.pid
        assert status["elections"][0]["turned"] is None
        assert 'leader_jobs_leader{election="mail",node="w"} 1.0' in worker.ask("/metrics").text


def test_a_beat_that_is_embedded_in_a_worker(
    tmp_path: Path, filesystem_broker: FilesystemBroker
) -> None:
    """It is the one that can lead, so it is the one that answers."""
    with fleet_of(tmp_path, filesystem_broker) as fleet:
        schedule = f"{tmp_path}/schedule"
        beat = ("-B", "--scheduler", "leader", "-s", schedule, "-P", "solo", "-Q", "idle")
        worker = Probed(fleet, fleet.worker("w", *beat))
        worker.wait_for("/leader", 200)

        assert worker.ask("/livez").status == 200
        pid = worker.ask("/status").json["pid"]
        assert pid in children_of(worker.node.process.pid)
