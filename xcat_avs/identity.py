"""Who asks."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass, field

from xcat_avs.clock import parse_utc, utc_now
from xcat_avs.errors import AvsError


def login_name() -> str:
    """The name of the real uid; a uid may have none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid{os.getuid()}"


@dataclass(frozen=True)
class Identity:
    """Who asks. user: the person (-u, or who logged in); the rest is recorded beside it."""

    user: str
    uid: int = field(default_factory=os.getuid)
    login: str = field(default_factory=login_name)
    sudo_user: str = field(default_factory=lambda: os.environ.get("SUDO_USER", ""))
    host: str = field(default_factory=socket.gethostname)
    # The process as the machine sees it, not as a private namespace does.
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=utc_now)

    @classmethod
    def of(cls, user: str) -> Identity:
        name = user or os.environ.get("SUDO_USER", "") or login_name()
        if not name.isprintable() or any(char.isspace() or char in "/@:;" for char in name):
            raise AvsError(f"user name {name!r} may not hold spaces, control characters or any of / @ : ;")
        return cls(name)

    def facts(self) -> dict[str, object]:
        """What is recorded of who builds."""
        return {"user": self.user, "uid": self.uid, "login": self.login, "sudo_user": self.sudo_user, "host": self.host}

    def stamp(self) -> str:
        """When it was asked, in local time, as a part of a name: `2026-11-23-04-05-06`."""
        return parse_utc(self.started).astimezone().strftime("%Y-%m-%d-%H-%M-%S")

    def real(self) -> str:
        """Who that is to the system."""
        sudo = f", through sudo from {self.sudo_user}" if self.sudo_user else ""
        return f"uid {self.uid} on {self.host}{sudo}"
