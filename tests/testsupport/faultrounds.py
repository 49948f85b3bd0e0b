"""How often each fault is tried: once, unless ``FAULT_ROUNDS`` says more."""

import os
from typing import Final

__all__ = ["ROUNDS"]

ROUNDS: Final = int(os.environ.get("FAULT_ROUNDS", "1"))
