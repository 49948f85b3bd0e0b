"""Stores: where an election's electorate and register live. See `leader_jobs.stores.base`."""
