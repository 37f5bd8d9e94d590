"""Times: UTC where they are stored, local where people read them."""

from __future__ import annotations

from datetime import datetime, timezone


def utc_now() -> str:
    """The present as UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_utc(text: str) -> datetime:
    """An ISO 8601 time in UTC, as Subversion (`2026-01-02T03:04:05.123456Z`) and utc_now write it."""
    return datetime.strptime(text.rstrip("Z").split(".")[0], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)


def local(text: str) -> str:
    """A stored UTC time for people: local, to the second; as it stands where it is none, or beyond the calendar."""
    try:
        return parse_utc(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") if text else ""
    except (ValueError, OverflowError, OSError):
        return text


def ctime(text: str) -> str:
    """A stored UTC time as date(1) prints it: `Tue Aug 19 10:26:14 PDT 2014`."""
    return parse_utc(text).astimezone().strftime("%a %b %e %H:%M:%S %Z %Y")
