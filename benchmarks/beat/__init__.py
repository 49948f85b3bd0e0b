"""Beats side by side: the same faults, loads and spells of idleness, for several leader electors."""
