"""What an operator fills in before an order is given."""

from datetime import datetime, timedelta
from typing import Any, Final

from django import forms
from django.utils import timezone

from django_leader_jobs.observing import lookout

__all__ = ["Form", "PauseForm", "TransferForm"]

_LONGEST: Final = 500
_LASTS: Final = (
    ("", "when somebody resumes it"),
    ("15", "after 15 minutes"),
    ("60", "after 1 hour"),
    ("240", "after 4 hours"),
    ("1440", "after 24 hours"),
)


class Form(forms.Form):
    """A form for an order that needs no more than a confirmation."""


class PauseForm(Form):
    """Why, and for how long."""

    reason = forms.CharField(
        required=False,
        max_length=_LONGEST,
        help_text="For whoever comes across the pause. Everybody who may see elections sees it.",
        widget=forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off"}),
    )
    lasts = forms.ChoiceField(label="It ends", required=False, choices=_LASTS)
    until = forms.DateTimeField(
        label="Or at",
        required=False,
        help_text="A time of day on the clock that this page shows.",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )

    def clean(self) -> dict[str, Any]:
        """Settle on one end, which is to come."""
        found: dict[str, Any] = super().clean() or self.cleaned_data
        lasts, until = found.get("lasts"), found.get("until")
        now = lookout.clock.utcnow()
        if lasts and until:
            msg = "Say for how long, or until when, but not both."
            raise forms.ValidationError(msg)
        if until is not None:
            found["until"] = until = _aware(until)
            if until <= now:
                self.add_error("until", "That is past.")
        if lasts:
            found["until"] = now + timedelta(minutes=int(lasts))
        return found


class TransferForm(Form):
    """To whom."""

    heir = forms.CharField(max_length=_LONGEST, error_messages={"required": "Choose a candidate."})


def _aware(instant: datetime) -> datetime:
    """Return what was typed with its zone, which Django leaves out where ``USE_TZ`` is off."""
    return timezone.make_aware(instant) if timezone.is_naive(instant) else instant
