"""``manage.py leader …``: the commands of ``leader-jobs``, with the settings of the project."""

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from testsupport.cli import Answer, Cli
from testsupport.processes import Diary
from testsupport.site import Site


def manage(site: Site, *arguments: str, **environ: str) -> Answer:
    """Run ``manage.py leader`` as a process."""
    found = site.run("leader", *arguments, **environ)
    return Answer(found.returncode, found.stdout, found.stderr)


def test_a_node_is_steered(tmp_path: Path) -> None:
    """The store is that of the project, and what is said is what ``leader-jobs`` says."""
    site = Site(tmp_path)
    cli = Cli("--store", site.store)
    with site.running("runleader", "--node", "web-1", "--ttl", "30") as node:
        node.wait_for("leads election")
        paused = manage(site, "pause", "--reason", "test", "--json", "--settings=site_settings")
        assert (paused.code, paused.json["obeyed"], paused.json["node"]) == (0, True, "web-1")
        status = manage(site, "status", "--exit-code", "--no-color")
        assert status.code == 0
        assert status.out.splitlines()[:2] == cli("status").out.splitlines()[:2]
        assert "paused    by " in status.out


def test_a_command_is_run(tmp_path: Path) -> None:
    """Options of Django and of the command keep out of each other's way; exit codes are passed on."""
    site = Site(tmp_path, jobs="")
    with Diary.opened(tmp_path / "diary") as diary:
        script = f"echo $LEADER_JOBS_NODE > {diary.path}; exit 3"
        options = ("--node", "web-1", "--restart", "never", "-v", "0")
        answer = manage(site, "run", *options, "--", "sh", "-c", script, "--traceback")
        assert diary.line() == "web-1"
    assert (answer.code, answer.out, answer.err) == (3, "", "")


def test_trouble_is_one_line(tmp_path: Path) -> None:
    """Whatever is wrong with the project's settings; the exit code is 2."""
    answer = manage(Site(tmp_path, settings={"TTL": "soon"}), "status")
    assert answer.code == 2
    assert answer.error == "LEADER_JOBS['TTL'] is 'soon'; it must be a number"


def test_a_call_from_code() -> None:
    """Output goes where it is told to, colours only where they are asked for."""
    out = io.StringIO()
    call_command("leader", "status", "--store", "memory://called", stdout=out)
    assert out.getvalue() == "election  default\nleader    nobody leads\njobs      0\n"

    out = io.StringIO()
    call_command("leader", "status", "--store", "memory://called", stdout=out, force_color=True)
    assert "\x1b[1;31mnobody leads" in out.getvalue()
    with pytest.raises(SystemExit) as ended:
        call_command("leader", "status", "--exit-code", "--store", "memory://called", stdout=out)
    assert ended.value.code == 1
    with pytest.raises(CommandError, match="invalid choice: 'stauts'"):
        call_command("leader", "stauts")
