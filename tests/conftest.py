"""Fixtures for all tests."""

pytest_plugins = ["testsupport.etcd_fixtures", "testsupport.store_urls"]
