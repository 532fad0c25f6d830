"""Deadlines, extensions, and what being late costs: a small TOML file, read by `Policy.read`.

timezone = "Europe/Berlin"       # of the times below that name no offset
percent_per_day = 10             # of the score, for each day begun
max_days = 5                     # what comes later than this counts nothing; without it there is no end
grace_minutes = 10               # none by default

[labs.01]
deadline = 2026-11-20T23:59:00
[labs.02]
deadline = 2026-12-04            # to the end of that day
percent_per_day = 20             # also max_days and grace_minutes, for this lab

[extensions."Ada Lovelace"]      # as in the gradebook, or as you write it
01 = 2026-11-27                  # another deadline
02 = 3                           # or days more
"""

from __future__ import annotations

import math
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

from helpers.course.notebooks import CourseError
from helpers.course.submit import slug

RULES = ("percent_per_day", "max_days", "grace_minutes")


@dataclass(frozen=True)
class Lateness:
    """How late something is, and what of its score stays."""

    days_late: int  #: days begun since the deadline, 0 if in time
    factor: float  #: from 0 to 1, to multiply the score with
    sentence: str  #: for the student and the instructor


@dataclass(frozen=True)
class Deadline:
    """What the policy says about one lab."""

    due: datetime
    percent_per_day: float = 0.0
    max_days: int | None = None
    grace_minutes: float = 0.0


@dataclass(frozen=True)
class Policy:
    """Deadlines by the lab's number, and extensions by student and number. An empty policy knows no late."""

    deadlines: Mapping[int, Deadline] = field(default_factory=dict)
    extensions: Mapping[str, Mapping[int, datetime]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read the file that the module's text describes. Raises CourseError, one sentence with the key."""
        try:
            fields = tomllib.loads(Path(path).read_bytes().decode("utf-8-sig"))
        except OSError as error:
            raise CourseError(f"{path} cannot be read ({error.strerror}); check its name.") from error
        except UnicodeDecodeError as error:
            raise CourseError(f"{path} is not UTF-8 text; save it as UTF-8.") from error
        except tomllib.TOMLDecodeError as error:
            raise CourseError(f"{path} is not TOML: {error}; correct it there.") from error
        try:
            return _policy(fields)
        except CourseError as error:
            raise CourseError(f"{path}: {error}") from error

    def penalty(self, student: str, lab: str, received: datetime | None, late: bool = False) -> Lateness:
        """What the policy says about a lab ("01" or "01_numpy_saliency") received at that time.

        late: the platform marked it as late; without a time that is for the instructor to settle.
        """
        rule = self.deadlines.get(_number(lab, ""))
        if rule is None:
            return Lateness(0, 1.0, "There is no deadline for this lab.")
        extended = self.extensions.get(slug(student), {}).get(_number(lab, ""))
        due = extended or rule.due
        what = f"{'extended deadline' if extended else 'deadline'} {_spoken(due)}"
        if received is None:
            if late:
                text = f"The platform marked it late, but not since when ({what}); nothing is taken off."
                return Lateness(0, 1.0, text)
            return Lateness(0, 1.0, f"When it was handed in is not known, so it counts as in time ({what}).")
        if received.tzinfo is None:
            raise ValueError("received needs a time zone")
        if received <= due + timedelta(minutes=rule.grace_minutes):
            return Lateness(0, 1.0, f"Handed in in time ({what}).")
        # Days on the wall: where clocks change in between, a day still ends at the deadline's time of day.
        local = received.astimezone(due.tzinfo).replace(tzinfo=None) - due.replace(tzinfo=None)
        days = max(1, math.ceil(local / timedelta(days=1)))
        begun = f"{days} day{'s' * (days > 1)} late ({what}, handed in {_spoken(received, due.tzinfo)})"
        if rule.max_days is not None and days > rule.max_days:
            return Lateness(days, 0.0, f"{begun}: later than {rule.max_days} days, so it counts nothing.")
        factor = round(max(0.0, 1 - days * rule.percent_per_day / 100), 10)
        return Lateness(days, factor, f"{begun}: {100 * (1 - factor):g} % of the score is taken off.")

    def unknown_students(self, students: set[str]) -> list[str]:
        """Those who have an extension, but are not among `students`: mistyped, or nothing handed in."""
        return sorted(set(self.extensions) - set(students))


def _policy(fields: dict[str, Any]) -> Policy:
    _only(fields, "", ("timezone", "labs", "extensions", *RULES))
    zone = _zone(fields.get("timezone"))
    general = _rules(fields, "")
    deadlines: dict[int, Deadline] = {}
    for name, entry in _table(fields, "labs").items():
        key = f"labs.{name}"
        entry = _table_at(entry, key)
        _only(entry, key, ("deadline", *RULES))
        if "deadline" not in entry:
            raise CourseError(f"{key} has no deadline; add one.")
        number = _number(name, key)
        if number in deadlines:
            raise CourseError(f"{key} names a lab a second time; delete one.")
        due = _time(entry["deadline"], f"{key}.deadline", zone)
        deadlines[number] = Deadline(due, **{**general, **_rules(entry, key)})
    extensions: dict[str, dict[int, datetime]] = {}
    for name, entry in _table(fields, "extensions").items():
        key = f"extensions.{name}"
        if not slug(name) or slug(name) in extensions:
            raise CourseError(f"{key} names no student, or one a second time; correct it.")
        theirs = extensions[slug(name)] = {}
        for lab, value in _table_at(entry, key).items():
            number = _number(lab, f"{key}.{lab}")
            if number not in deadlines:
                raise CourseError(f"{key}.{lab}: there is no [labs.{lab}] to extend; add it.")
            theirs[number] = _extended(value, f"{key}.{lab}", zone, deadlines[number].due)
    return Policy(deadlines, extensions)


def _extended(value: Any, key: str, zone: tzinfo | None, due: datetime) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value <= 1000:
            raise CourseError(f"{key} is {value} days; give 1 to 1000, or a new deadline.")
        return due + timedelta(days=value)
    return _time(value, key, zone)


def _only(entry: Mapping[str, Any], key: str, known: tuple[str, ...]) -> None:
    for name in entry:
        if name not in known:
            where = f"{key}.{name}" if key else name
            raise CourseError(f"{where} is not known; here stand {', '.join(known)}.")


def _table(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _table_at(fields.get(key, {}), key)


def _table_at(entry: Any, key: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise CourseError(f"{key} is not a table; write it as [{key}] with a line for each entry below.")
    return entry


def _rules(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = {}
    for name in RULES:
        if name not in entry:
            continue
        value, where = entry[name], f"{key}.{name}" if key else name
        top = 100 if name == "percent_per_day" else 100_000
        whole = name == "max_days"
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value <= top:
            raise CourseError(
                f"{where} is {value!r}; give a {'whole ' if whole else ''}number from 0 to {top}."
            )
        found[name] = value
    return found


def _zone(name: Any) -> tzinfo | None:
    if name is None:
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, TypeError, ValueError, OSError) as error:
        advice = "give one such as 'Europe/Berlin', or write each time with its offset (+01:00)"
        raise CourseError(f"timezone is {name!r}, which this machine does not know; {advice}.") from error


def _time(value: Any, key: str, zone: tzinfo | None) -> datetime:
    """A deadline in its zone. A date alone means the end of that day."""
    if isinstance(value, datetime):
        due = value
    elif isinstance(value, date):
        due = datetime.combine(value, time(23, 59, 59))
    else:
        example = "2026-11-20T23:59:00"
        raise CourseError(f"{key} is {value!r}; give a time without quotes, such as {example}.")
    if due.tzinfo is not None:
        # The offset is this day's; the zone, where there is one, knows those of the days after.
        return due.astimezone(zone) if zone and due.astimezone(zone).utcoffset() == due.utcoffset() else due
    if zone is None:
        raise CourseError(
            f"{key} has no time zone; set timezone at the top, or add an offset such as +01:00."
        )
    return due.replace(tzinfo=zone)


def _number(lab: str, key: str) -> int:
    """The number of a lab, -1 if it has none and there is no key to complain about."""
    found = re.match(r"(\d{1,4})(?=_|$)", lab)
    if not found and key:
        raise CourseError(f"{key}: {lab} is no lab; write its number, such as 01.")
    return int(found[1]) if found else -1


def _spoken(when: datetime, zone: tzinfo | None = None) -> str:
    """A time with its offset: "20 Nov 2026, 23:59 (UTC+01:00)"."""
    when = when.astimezone(zone) if zone else when
    offset = timezone(when.utcoffset() or timedelta())
    months = (
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
    )  # strftime speaks the system's language
    return f"{when.day} {months[when.month - 1]} {when.year}, {when:%H:%M} ({offset})"
