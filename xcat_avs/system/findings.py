"""What was looked at, and how it is: well, to be noticed, or failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Callable

from xcat_avs.errors import AvsError, SetupError

OK, WARN, FAIL = "[ OK ]", "[WARN]", "[FAIL]"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. result: `[ OK ]`, `[WARN]` or `[FAIL]`. details: what is wrong, a line each.

    fix: the command that fixes it, or in words what does; "" where there is nothing to fix.
    """

    result: str
    text: str
    details: tuple[str, ...] = ()
    fix: str = ""

    def lines(self, most: int) -> list[str]:
        """In words, with at most so many details; a document has all of them."""
        shown = list(self.details)
        if len(shown) > most:
            left = len(shown) - max(most - 1, 0)
            shown = [*shown[: max(most - 1, 0)], f"and {left} more; --json has them all"]
        shown += [f"fix: {self.fix}"] if self.fix else []
        return [f"{self.result} {self.text}", *(f"       {line}" for line in shown)]


def tried(what: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a look finds. One that fails is a finding as well, and no end: others come after it. what: what is looked at."""
    try:
        yield from look()
    except SetupError as err:  # its text says what to do after what is wrong
        text, _, fix = err.text.rpartition("; ")
        fix = err.next or ("" if fix.endswith("?") else fix)
        yield Finding(FAIL, f"{what}: {text or err.text}", err.tail, fix if text else err.next)
    except AvsError as err:
        yield Finding(FAIL, f"{what}: {err.text}", err.tail, err.next)
    except PermissionError as err:
        yield Finding(WARN, f"{what}: {err.filename or ''}: {err.strerror}", fix="sudo avsimage -c check")
    except Exception as err:
        yield Finding(FAIL, f"{what}: {str(err) or type(err).__name__}")
