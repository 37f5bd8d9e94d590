"""Lists that somebody waits for with a finger on a key: what was asked for before, in a file of the user's own."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRESH = 10.0  # seconds
LONG = 86400.0  # seconds: of what hardly ever changes, and how long files are kept


def directory() -> Path:
    """Where the files are. Raises OSError where that is somebody else's: root, too, may have the environment of a user."""
    user = os.geteuid()
    top = Path(os.environ.get("XDG_CACHE_HOME") or "/nonexistent")
    if not top.is_dir() or top.stat().st_uid != user:
        top = Path(pwd.getpwuid(user).pw_dir, ".cache")
    found = top / "avsimage"
    found.mkdir(parents=True, exist_ok=True, mode=0o700)
    if found.stat().st_uid != user:
        raise PermissionError(f"{found} belongs to somebody else")
    return found


class Later(Exception):
    """The next question gets the answer, and not this one."""


@dataclass
class Remembered:
    """One list, of one installation. ask: gets it anew; it may raise anything."""

    key: Sequence[str]
    ask: Callable[[], Any]
    lasts: float = FRESH

    def __post_init__(self) -> None:
        place = (*self.key, os.environ.get("AVS_CONF", ""), os.environ.get("XCATROOT", ""))
        self.path = directory() / f"{self.key[0]}-{zlib.crc32(repr(place).encode('utf-8', 'surrogateescape')):08x}.json"
        self.rows: Any = []
        with suppress(OSError, ValueError):
            self.rows = json.loads(self.path.read_text(encoding="utf-8"))

    @property
    def known(self) -> bool:
        """Whether it was ever asked for."""
        return self.path.exists()

    @property
    def fresh(self) -> bool:
        """Whether it was asked for just now; also where that has failed, so that it is not tried at every key."""
        with suppress(OSError):
            return 0 <= time.time() - self.path.stat().st_mtime < self.lasts
        return False

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Yield whether it may be asked for now: nobody else does so."""
        with open(self.path.with_name("lock"), "w", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True

    def refresh(self) -> None:
        """Ask, and keep the answer; what is known stays where there is none."""
        try:
            self.rows = self.ask()
        except Later:
            return
        except Exception:
            pass  # nobody who is typing wants to hear why
        with suppress(OSError):
            for path in self.path.parent.glob("*.json"):
                if time.time() - path.stat().st_mtime > LONG:
                    path.unlink()
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.rows), encoding="utf-8")
        new.replace(self.path)
