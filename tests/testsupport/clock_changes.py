"""Where clocks change: what must happen then, written down, and read the long way."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from leader_jobs.schedules import Schedule

MINUTE = timedelta(minutes=1)


def listing(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Walk forward through the planned instants in (since, until]."""
    found = []
    instant = schedule.next_after(since)
    while instant is not None and instant <= until:
        found.append(instant)
        instant = schedule.next_after(instant)
    return found


def listing_backwards(schedule: Schedule, since: datetime, until: datetime) -> list[datetime]:
    """Walk backward through the same instants, and return them in order."""
    found: list[datetime] = []
    instant = schedule.latest_until(until, after=since)
    while instant is not None:
        found.insert(0, instant)
        instant = schedule.latest_until(instant - timedelta(microseconds=1), after=since)
    return found


def local(zone: str, day: str) -> datetime:
    """Return midnight of a day in a zone."""
    return datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))


# Zone, line, first and last day (midnight to midnight), the planned instants.
TABLE = [
    # Berlin, 29 March 2026: 02:00 +01 is followed by 03:00 +02.
    (
        "Europe/Berlin",
        "30 2 * * *",
        ("2026-03-28", "2026-03-31"),
        ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"],
    ),
    ("Europe/Berlin", "0 2 * * *", ("2026-03-29", "2026-03-30"), ["2026-03-29T03:00+02:00"]),
    ("Europe/Berlin", "15,45 2 * * *", ("2026-03-29", "2026-03-30"), ["2026-03-29T03:00+02:00"]),
    ("Europe/Berlin", "0 2,3 * * *", ("2026-03-29", "2026-03-30"), ["2026-03-29T03:00+02:00"]),
    (
        "Europe/Berlin",
        "30 2,3 * * *",
        ("2026-03-29", "2026-03-30"),
        ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"],
    ),
    ("Europe/Berlin", "30 1 * * *", ("2026-03-29", "2026-03-30"), ["2026-03-29T01:30+01:00"]),
    ("Europe/Berlin", "*/20 2 * * *", ("2026-03-29", "2026-03-30"), []),
    (
        "Europe/Berlin",
        "30 * * * *",
        ("2026-03-29", "2026-03-29T05:00"),
        [
            "2026-03-29T00:30+01:00",
            "2026-03-29T01:30+01:00",
            "2026-03-29T03:30+02:00",
            "2026-03-29T04:30+02:00",
        ],
    ),
    (
        "Europe/Berlin",
        "0 */2 * * *",
        ("2026-03-28T23:00", "2026-03-29T06:00"),
        ["2026-03-29T00:00+01:00", "2026-03-29T04:00+02:00", "2026-03-29T06:00+02:00"],
    ),
    # Berlin, 25 October 2026: 03:00 +02 is 02:00 +01.
    (
        "Europe/Berlin",
        "30 2 * * *",
        ("2026-10-24", "2026-10-27"),
        ["2026-10-24T02:30+02:00", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"],
    ),
    (
        "Europe/Berlin",
        "0 1-3 * * *",
        ("2026-10-25", "2026-10-26"),
        ["2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T03:00+01:00"],
    ),
    (
        "Europe/Berlin",
        "30 * * * *",
        ("2026-10-25T01:00", "2026-10-25T04:00"),
        [
            "2026-10-25T01:30+02:00",
            "2026-10-25T02:30+02:00",
            "2026-10-25T02:30+01:00",
            "2026-10-25T03:30+01:00",
        ],
    ),
    (
        "Europe/Berlin",
        "*/30 2 * * *",
        ("2026-10-25", "2026-10-26"),
        [
            "2026-10-25T02:00+02:00",
            "2026-10-25T02:30+02:00",
            "2026-10-25T02:00+01:00",
            "2026-10-25T02:30+01:00",
        ],
    ),
    # New York, 8 March 2026: 02:00 -05 is followed by 03:00 -04.
    ("America/New_York", "30 2 * * *", ("2026-03-08", "2026-03-09"), ["2026-03-08T03:00-04:00"]),
    ("America/New_York", "30 2 * * SUN", ("2026-03-08", "2026-03-09"), ["2026-03-08T03:00-04:00"]),
    ("America/New_York", "30 2 * * MON", ("2026-03-08", "2026-03-09"), []),
    (
        "America/New_York",
        "30 * * * *",
        ("2026-03-08T01:00", "2026-03-08T04:00"),
        ["2026-03-08T01:30-05:00", "2026-03-08T03:30-04:00"],
    ),
    # New York, 1 November 2026: 02:00 -04 is 01:00 -05.
    ("America/New_York", "30 1 * * *", ("2026-11-01", "2026-11-02"), ["2026-11-01T01:30-04:00"]),
    ("America/New_York", "0 2 * * *", ("2026-11-01", "2026-11-02"), ["2026-11-01T02:00-05:00"]),
    (
        "America/New_York",
        "@hourly",
        ("2026-11-01T00:30", "2026-11-01T02:00"),
        ["2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00", "2026-11-01T02:00-05:00"],
    ),
    # Lord Howe, 4 October 2026: 02:00 +10:30 is followed by 02:30 +11.
    (
        "Australia/Lord_Howe",
        "15 2 * * *",
        ("2026-10-03", "2026-10-06"),
        ["2026-10-03T02:15+10:30", "2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
    ),
    ("Australia/Lord_Howe", "45 2 * * *", ("2026-10-04", "2026-10-05"), ["2026-10-04T02:45+11:00"]),
    (
        "Australia/Lord_Howe",
        "15 * * * *",
        ("2026-10-04T01:00", "2026-10-04T04:00"),
        ["2026-10-04T01:15+10:30", "2026-10-04T03:15+11:00"],
    ),
    (
        "Australia/Lord_Howe",
        "*/20 4 * * *",
        ("2026-10-04", "2026-10-05"),
        ["2026-10-04T04:00+11:00", "2026-10-04T04:20+11:00", "2026-10-04T04:40+11:00"],
    ),
    # Lord Howe, 5 April 2026: 02:00 +11 is 01:30 +10:30.
    ("Australia/Lord_Howe", "45 1 * * *", ("2026-04-05", "2026-04-06"), ["2026-04-05T01:45+11:00"]),
    ("Australia/Lord_Howe", "0 2 * * *", ("2026-04-05", "2026-04-06"), ["2026-04-05T02:00+10:30"]),
    (
        "Australia/Lord_Howe",
        "35 * * * *",
        ("2026-04-05", "2026-04-05T03:00"),
        [
            "2026-04-05T00:35+11:00",
            "2026-04-05T01:35+11:00",
            "2026-04-05T01:35+10:30",
            "2026-04-05T02:35+10:30",
        ],
    ),
    # Havana, 8 March 2026: there is no midnight, 00:00 -05 is 01:00 -04.
    (
        "America/Havana",
        "0 0 * * *",
        ("2026-03-07T12:00", "2026-03-09"),
        ["2026-03-08T01:00-04:00", "2026-03-09T00:00-04:00"],
    ),
    ("America/Havana", "*/30 0 8 3 *", ("2026-03-07T12:00", "2026-03-10"), []),
    # St John's, 7 November 2010: at 00:01 the clocks go back to 23:01 of the day before.
    (
        "America/St_Johns",
        "0 0 * * *",
        ("2010-11-06T12:00", "2010-11-07T12:00"),
        ["2010-11-07T00:00-02:30"],
    ),
    (
        "America/St_Johns",
        "30 * 6 11 *",
        ("2010-11-06T22:00", "2010-11-07T12:00"),
        ["2010-11-06T22:30-02:30", "2010-11-06T23:30-02:30", "2010-11-06T23:30-03:30"],
    ),
    # Apia had no 30 December 2011 at all.
    (
        "Pacific/Apia",
        "0 12 * * *",
        ("2011-12-29", "2012-01-01"),
        ["2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"],
    ),
    ("Pacific/Apia", "*/15 * 30 12 *", ("2011-12-29", "2012-01-01"), []),
    # Ends of years, and leap days.
    (
        "Europe/Berlin",
        "0 0 1 1 *",
        ("2025-12-01", "2027-12-01"),
        ["2026-01-01T00:00+01:00", "2027-01-01T00:00+01:00"],
    ),
    ("Asia/Kathmandu", "59 23 31 12 *", ("2026-01-01", "2027-01-02"), ["2026-12-31T23:59+05:45"]),
    (
        "UTC",
        "0 0 29 2 *",
        ("2026-01-01", "2033-01-01"),
        ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"],
    ),
    ("UTC", "0 0 29 2 *", ("2096-03-01", "2104-03-01"), ["2104-02-29T00:00+00:00"]),
    ("UTC", "0 9 L * *", ("2028-02-01", "2028-03-01"), ["2028-02-29T09:00+00:00"]),
    # Before 1970.
    (
        "UTC",
        "0 12 * * *",
        ("1969-12-31", "1970-01-02"),
        ["1969-12-31T12:00+00:00", "1970-01-01T12:00+00:00"],
    ),
    (
        "Europe/London",
        "0 12 1 * *",
        ("1968-09-15", "1968-12-15"),
        ["1968-10-01T12:00+01:00", "1968-11-01T12:00+01:00", "1968-12-01T12:00+01:00"],
    ),
]


#: A zone and the middle of a few days in which its clocks change.
CHANGES = [
    ("UTC", datetime(2026, 3, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 3, 8, 5, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 10, 29, 21, tzinfo=UTC)),
    ("America/St_Johns", datetime(2010, 11, 7, 2, 31, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Antarctica/Casey", datetime(2020, 3, 7, 16, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
]


def members(field: str, low: int, high: int) -> set[int]:
    """Return the numbers a field names."""
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        start = low if first == "*" else int(first)
        stop = high if first == "*" else int(last or first)
        found.update(range(start, stop + 1, int(step or 1)))
    return found


class Reading:
    """A line read the long way: does it name this minute of the wall clock?"""

    def __init__(self, line: str, *, both_days: bool = False) -> None:
        """Read *line*; *both_days* if the day must match in both of its fields in any case."""
        minute, hour, day, month, weekday = line.split()
        self.minutes, self.hours = members(minute, 0, 59), members(hour, 0, 23)
        self.days, self.months = members(day, 1, 31), members(month, 1, 12)
        self.weekdays = members(weekday, 0, 6)
        starred = day.startswith("*") or weekday.startswith("*")
        self.either_day = not (starred or both_days)
        self.fixed = not (minute.startswith("*") or hour.startswith("*"))

    def names(self, wall: datetime) -> bool:
        """Return whether the line names the wall time."""
        day, weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        right_day = (day or weekday) if self.either_day else (day and weekday)
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and wall.month in self.months
            and right_day
        )

    def planned(self, zone: ZoneInfo, since: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the planned instants in (since, until], looking at every minute."""
        instant = since.replace(second=0, microsecond=0)
        former = (instant - MINUTE).astimezone(zone).replace(tzinfo=None)
        while instant <= until:
            shown = instant.astimezone(zone)
            wall = shown.replace(tzinfo=None, fold=0)
            if self.fixed:
                # What was skipped just now counts as now; what is shown again does not count.
                skipped = (former + n * MINUTE for n in range(1, (wall - former) // MINUTE))
                due = any(map(self.names, skipped)) or (not shown.fold and self.names(wall))
            else:
                due = self.names(wall)
            if due and instant > since:
                yield instant
            former = wall
            instant += MINUTE
