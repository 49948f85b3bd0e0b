"""Fixtures for all tests."""

pytest_plugins = [
    "testsupport.admin_desk",
    "testsupport.broker_fixtures",
    "testsupport.django_beat_site.fixtures",
    "testsupport.etcd_fixtures",
    "testsupport.postgres_fixtures",
    "testsupport.store_urls",
]
