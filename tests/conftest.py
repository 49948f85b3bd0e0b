"""Fixtures for all tests."""

pytest_plugins = [
    "testsupport.admin_desk",
    "testsupport.broker_fixtures",
    "testsupport.browser",
    "testsupport.browser_site.stage",
    "testsupport.django_beat_site.fixtures",
    "testsupport.etcd_fixtures",
    "testsupport.postgres_fixtures",
    "testsupport.store_urls",
]
