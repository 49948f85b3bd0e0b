"""What the templates of the admin pages say times and draw pictures with: ``{% load leader_jobs %}``."""

from datetime import datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_leader_jobs import pictures, words
from django_leader_jobs.observing import RECENT
from leader_jobs import durations, report
from leader_jobs.exceptions import ConfigurationError
from leader_jobs.names import check_job
from leader_jobs.overview import JobView, Member
from leader_jobs.records import OccurrenceRecord, State

register = template.Library()


@register.filter
def at(instant: datetime | None, now: datetime) -> SafeString | str:
    """Show an instant on the wall clock."""
    if instant is None:
        return "-"
    text = words.at(instant, now)
    return format_html('<time datetime="{}">{}</time>', instant.isoformat(), text)


@register.filter
def when(instant: datetime | None, now: datetime) -> str:
    """Show how long ago an instant was, or in how long it will be."""
    return "-" if instant is None else durations.when(instant, now)


@register.filter
def since(instant: datetime | None, now: datetime) -> str:
    """Show how long ago an instant was, without "ago"."""
    return "" if instant is None else durations.how_long(max(0.0, (now - instant).total_seconds()))


@register.filter
def how_long(seconds: float | None) -> str:
    """Show a duration."""
    return "-" if seconds is None else durations.how_long(seconds)


@register.filter
def exact(instant: datetime | None, now: datetime) -> SafeString | str:
    """Show an instant to the millisecond."""
    if instant is None:
        return "-"
    text = f"{words.at(instant, now)}.{instant.microsecond // 1000:03d}"
    return format_html('<time datetime="{}">{}</time>', instant.isoformat(), text)


@register.filter
def took(entry: OccurrenceRecord) -> float | None:
    """Return how long the body of an occurrence ran."""
    return report.took(entry)


@register.filter
def lasted(entry: object, now: datetime) -> str:
    """Show how long a term lasted, or has so far."""
    began, ended = getattr(entry, "began_at", now), getattr(entry, "ended_at", None) or now
    return durations.how_long(max(0.0, (ended - began).total_seconds()))


@register.filter
def mark(state: State) -> SafeString:
    """Draw the mark of a state."""
    return pictures.mark(state)


@register.filter
def strip(job: JobView, now: datetime) -> SafeString:
    """Draw the recent occurrences of a job."""
    return pictures.strip(job.recent, now, slots=RECENT)


@register.filter
def lease_bar(member: Member) -> SafeString:
    """Draw what is left of a lease."""
    return pictures.lease_bar(member.remaining or 0.0, member.ttl or 0.0)


@register.filter
def seconds(value: float) -> str:
    """Show seconds to a tenth, as the script that counts down does."""
    return f"{value:.1f}"


@register.filter
def can_be_named(job: JobView) -> bool:
    """Whether a job can have a page, and orders: one that bears the name of a job."""
    try:
        check_job(job.name)
    except ConfigurationError:
        return False
    return True


@register.simple_tag
def zone() -> str:
    """Say in which time zone times are given."""
    return words.zone()
