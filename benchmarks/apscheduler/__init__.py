"""Schedulers of APScheduler, elected and stock: bursts, the way from due to body, and idleness."""
