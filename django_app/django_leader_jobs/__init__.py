"""The Django side of leader-jobs: add ``"django_leader_jobs"`` to ``INSTALLED_APPS``."""
