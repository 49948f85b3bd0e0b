"""
The command line: see elections, steer them, examine what they rest on, run a command in one.

The same commands are there as ``leader-jobs …``, ``manage.py leader …`` and ``celery -A proj leader …``.
"""

from leader_jobs.cli.entry import main

__all__ = ["main"]
