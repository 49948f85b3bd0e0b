#!/usr/bin/env python
"""The site's command line: ``python manage.py runleader`` and everything else Django has."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_config.settings")
    execute_from_command_line(sys.argv)
