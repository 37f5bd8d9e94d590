"""What others wrote, made fit for a terminal: names, messages, reports, the output of programs."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
SPACES = "\u00a0\u3000"  # no more than spaces, and common in some languages
# A user and a password in a URL. The @REVISION of Subversion is none: a port and a slash are before it. A password with a
# slash in it is no valid one, but a password; its length has a limit, else a long list of URLs with ports takes minutes.
URL_PASSWORD = re.compile(r"(://[^\s/:@\"\[]*):(?:[^\s/\"]*@|(?!\d+/)[^\s\"]{0,2048}@)")
MASK = r"\1:***@"


def masked(text: str) -> str:
    """text with *** in place of each password of a URL; the user stays."""
    return URL_PASSWORD.sub(MASK, text) if "://" in text else text


def printable(text: str, keep: str = SPACES) -> str:
    """text as one line that shows all there is in it, but passwords of URLs, and steers nothing.

    What is not printable (controls, new lines, what changes the direction of writing or has no width) comes out as
    `\\n`, `\\x1b` or `\\u202e`, a byte of a name that is not UTF-8 as `\\xe9`. What is printable stays, and so does a
    text that came out of here before. keep: other characters that stay.
    """
    text = masked(text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def printable_lines(text: str) -> str:
    """The same of a text of several lines, which stay lines, as tabs stay tabs."""
    return "\n".join(printable(line, SPACES + "\t") for line in text.split("\n"))


def is_text(value: str) -> bool:
    """Whether it is UTF-8 text that steers nothing; it may have several lines."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return all(char.isprintable() or char in "\n\t" for char in value)


def first_lines(argv: Iterable[str]) -> str:
    """A command in one line: of a script among its words only the first."""
    parts = [word.strip().partition("\n") for word in argv]
    return " ".join(f"{first} ..." if more else first for first, more, _ in parts)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:  # surrogateescape's form of a byte that is not UTF-8
        return NAMED.get(char, f"\\x{code & 0xFF:02x}")
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
