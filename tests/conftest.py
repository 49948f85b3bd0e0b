"""Fixtures for all tests."""

import signal

# Where the tests are started in the background, a shell has it ignored, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

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
