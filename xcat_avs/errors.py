"""Errors that reach the user, and their exit codes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Optional

from xcat_avs.escape import printable

COMMAND = re.compile(r"`([^`]+)`")  # in a text


class AvsError(Exception):
    """A known failure: one clear text, printed as `Error: text`, exit code 1.

    text: what failed, on which image, and what to do about it.
    tail: the last lines of a command's output, printed below it.
    log: the file that holds the rest.
    """

    exit_code = 1

    def __init__(self, text: str, tail: Iterable[str] = (), log: Optional[str] = None) -> None:
        super().__init__(text)
        self.text = text
        self.tail = tuple(tail)
        self.log = log

    def __str__(self) -> str:
        lines = [self.text, *("  " + line for line in self.tail)]
        if self.log:
            lines.append(f"  log: {self.log}")
        return "\n".join(map(printable, lines))  # names and output of programs are in it

    @property
    def next(self) -> str:
        """The command that the text says to run next, or ""."""
        found = COMMAND.search(self.text)
        return found.group(1) if found else ""

    def prefixed(self, prefix: str, suffix: str = "") -> AvsError:
        """The same error with more words around its text; those that it begins with already are not said twice."""
        return type(self)(f"{prefix}{self.text.removeprefix(prefix)}{suffix}", self.tail, self.log)


class UsageError(AvsError):
    """The command line is wrong."""


class NotFoundError(AvsError):
    """Something the user named does not exist."""


class DamageError(AvsError):
    """A check has found something damaged."""


class SetupError(AvsError):
    """Something of the installation is missing or wrong: the mode check looks at all of it."""


class NoStoreError(SetupError):
    """There is no store where one is to be read."""


class CommandError(AvsError):
    """A program that was run failed, was killed, or is missing."""


class MissingError(CommandError, SetupError):
    """Programs are not installed."""


class Interrupted(BaseException):
    """A signal asked us to stop. A BaseException, so that no `except Exception` keeps it.

    following: what to do then, or "".
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.following = ""


def counted(number: int, noun: str) -> str:
    """A number of things in words: `1 node`, `2 nodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """A hint ` (did you mean X?)`, or nothing. Neither case nor the dashes of an option make a difference.

    cutoff: how alike they must be, 0 to 1.
    """
    plain: dict[str, list[str]] = {}
    for item in known:
        plain.setdefault(_plain(item), []).append(item)
    same = plain.get(_plain(name))
    close = same or [item for key in difflib.get_close_matches(_plain(name), plain, 3, cutoff) for item in plain[key]]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _plain(name: str) -> str:
    return name.casefold().lstrip("-")
