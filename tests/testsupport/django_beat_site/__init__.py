"""
A small Django project whose schedule django-celery-beat keeps, and what tests of it need.

``BEAT_SITE`` in the environment is JSON: the names and values that its settings have besides.
"""
