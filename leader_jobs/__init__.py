"""Periodic jobs on a fleet of identical nodes, each occurrence exactly once, whatever dies."""
