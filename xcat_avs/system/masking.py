"""Keep the passwords of URLs out of files: logs, and what a version says of how it was built."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from xcat_avs import escape

PIECE = 1 << 20  # bytes
LONGEST = 4096  # bytes of a URL up to the end of its password, where a file is read in pieces
URL_PASSWORD = re.compile(escape.URL_PASSWORD.pattern.encode())


def text(value: str) -> str:
    """value with *** in place of each password of a URL."""
    return escape.masked(value)


def data(value: bytes) -> bytes:
    """The same of a file's content, of any encoding."""
    return URL_PASSWORD.sub(escape.MASK.encode(), value) if b"://" in value else value


def write(path: Path, content: str) -> None:
    path.write_text(text(content), encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Write what source holds to target; what is no text as it is."""
    content = source.read_bytes()
    target.write_bytes(content if b"\0" in content else data(content))


def _mask_rest(stream: IO[bytes]) -> None:
    """Mask a file from where it is read. It may be large: what follows a password is all that is held in memory."""
    said = b""
    while piece := stream.read(PIECE):
        said += piece
        if data(said) != said:
            start = stream.tell() - len(said)
            shown = data(said + stream.read())
            stream.seek(start)
            stream.write(shown)
            stream.truncate()
            return
        said = said[-LONGEST:]


@contextmanager
def appended(path: Path) -> Iterator[None]:
    """Whatever programs append to a file in the block has no password of a URL after it."""
    start = path.stat().st_size if path.exists() else 0
    try:
        yield
    finally:
        with suppress(OSError), open(path, "r+b") as stream:
            if os.path.isfile(path):
                stream.seek(start)
                _mask_rest(stream)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to append to, by programs too, that has no password of a URL after the block."""
    with appended(path), open(path, "ab") as stream:
        yield stream
