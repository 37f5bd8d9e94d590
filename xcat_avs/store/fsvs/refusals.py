"""What a server's refusals mean, by the codes that Subversion's clients print, and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

CERTIFICATE = re.compile(r"E230001: .*verification failed: (.*)")
FORBIDDEN = re.compile(r"\bE(175013|220001|220004|170001: Authorization failed)\b")
PASSWORD = re.compile(r"\bE(215004|170001)\b")
NO_REPOSITORY = re.compile(
    r"\bE(175003|175009|180001|210005|170000|160013)\b|E000002: Could not find the requested SVN filesystem"
)
MOVED = re.compile(r"\bE(?:170011|175011|195019): (.*)")
SERVERS_OWN = re.compile(r"\bE(175002|000013|000028|000030): |the requested SVN filesystem")
# What svn+ssh says of ssh is advice for whoever looks into it, and no reason.
GONE = re.compile(r"\bE(?:000032|000104|00011\d|120\d{3}|175012|210002|67000\d): (?!To better)(.*)|\bE210002\b")
USERNAME = re.compile(r"^Username: (.+)$", re.MULTILINE)


def directory() -> str:
    """Where Subversion keeps passwords, certificates and settings of this user."""
    return os.path.expanduser("~/.subversion")


def gone(lines: Iterable[str]) -> bool:
    """Whether a client's lines say that the server does not answer, or no longer."""
    return any(map(GONE.search, lines))


def meaning(stderr: str, url: str, kept: Callable[[], str]) -> str:
    """What it means and what to do; "" where nothing is known of it. kept(): the user whose password is kept, or ""."""
    once = f"type `svn info {url}` once{', as root,' if os.geteuid() == 0 else ''}"
    if found := CERTIFICATE.search(stderr):
        return (f"its certificate is not accepted ({found.group(1)}): {once} compare the fingerprint with the server's and answer p; "
                f"or name its authority by ssl-authority-files in {directory()}/servers")  # fmt: skip
    if FORBIDDEN.search(stderr):
        return (f"it forbids this to {kept() or 'whoever has not logged in'}: let its rules (authz) give that user rw, or log in as another; and "
                "the URL has to be that of a repository, not of a directory of some")  # fmt: skip
    if PASSWORD.search(stderr):
        user = kept()
        what = (
            f"it refuses the password that is kept for {user}" if user else "it asks for a password, and none is kept"
        )
        return (
            f"{what} in {directory()}/auth: {once} and have Subversion keep the right one; see Passwords in avsimage(1)"
        )
    if "E170013" in stderr and NO_REPOSITORY.search(stderr):
        return "the server answers and has no repository there: is [paths] store, or -s, right? On the server, `svnadmin create` makes one"
    if found := MOVED.search(stderr):
        return f"{found.group(1)}: set [paths] store to the URL that it has now"
    if found := GONE.search(stderr):
        reason = f" ({found.group(1)})" if found.group(1) else ""
        return f"it does not answer{reason}: is the server running, and are scheme, host and port of the URL right?"
    if SERVERS_OWN.search(stderr):
        return "the server itself failed; its error log says why. The user that it runs as has to own the repository"
    return ""
