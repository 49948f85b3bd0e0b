"""``python -m leader_jobs …`` is ``leader-jobs …``."""

import sys

from leader_jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
