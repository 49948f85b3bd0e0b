"""
The one model: an election, so that the admin has something to list and permissions to ask for.

It has no table and no rows: what there is to see is in the store. See `django_leader_jobs.admin`.
"""

from django.db import models

__all__ = ["OPERATE", "Election"]

#: The code name of the permission to give orders; it includes looking.
OPERATE = "operate_election"


class Election(models.Model):
    """An election, by its name."""

    name = models.CharField(max_length=128, primary_key=True)

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = ((OPERATE, "Can operate election"),)

    def __str__(self) -> str:
        return str(self.name)
