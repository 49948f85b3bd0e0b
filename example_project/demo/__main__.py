"""``python -m demo``, from the folder of ``manage.py``; ``make demo`` does that."""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Final

_NODES: Final = ("node-1", "node-2", "node-3")


def main() -> int:
    """Play the demo; return 0 only if everything went as promised."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Three nodes, one leader, no job lost."
    )
    parser.add_argument("--ttl", type=float, default=5.0, help="lease time in seconds (default: 5)")
    parser.add_argument(
        "--calm", type=float, default=7.0, help="seconds between two acts (default: 7)"
    )
    parser.add_argument("--stay", action="store_true", help="keep the site up until Ctrl-C")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="take pictures of the admin pages (selenium)",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    folder = Path(tempfile.mkdtemp(prefix="leader-jobs-demo-"))
    _configure(folder, options.ttl)

    # Only now: these need the settings.
    from demo.script import Timetable
    from demo.show import INTERRUPTED, run

    try:
        times = Timetable(options.ttl, options.calm)
        return run(folder, times, _NODES, stay=options.stay, pictures=options.pictures)
    except KeyboardInterrupt:  # a second one, while nodes were being stopped: they are killed
        return INTERRUPTED


def _configure(folder: Path, ttl: float) -> None:
    """Point this process and its children at fresh databases in *folder*."""
    for name in [name for name in os.environ if name.startswith("LEADER_JOBS_")]:
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "site_config.settings",
        "LEADER_JOBS_STORE": f"sqlite:///{folder / 'election.sqlite3'}",
        "LEADER_JOBS_TTL": str(ttl),
        "SHOP_DATABASE": str(folder / "shop.sqlite3"),
    }
    import django

    django.setup()


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
