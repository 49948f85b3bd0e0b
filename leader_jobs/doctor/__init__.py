"""
Examines what an election rests on: settings, store, rights, leases, clocks, candidates, jobs.

Nothing is put under a real election, and nobody is asked to do anything: what has to be tried is tried
on a record of the register that no one reads, and removed.
"""

from leader_jobs.doctor.examination import examine
from leader_jobs.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "examine"]
