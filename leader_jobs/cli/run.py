"""The command that stands in an election, and runs another command while leading."""

from leader_jobs.cli.front import Call
from leader_jobs.cli.stand import node_arguments, stand_with_command

__all__ = ["run"]


def run(call: Call) -> int:
    """Stand until a signal comes or the command is done; end as it did."""
    options = vars(call.options)
    settings = call.front.load(election=options["election"], **node_arguments(options))
    return stand_with_command(
        settings,
        options.get("command", []),
        restart=options["restart"],
        verbosity=options["verbosity"],
    )
