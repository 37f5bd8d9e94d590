"""Where a page is written: a new file, or an earlier page."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.system.files import write_atomic

GENERATOR = '<meta name="generator" content="avsimage'  # near the beginning of every page
BEGINNING = 512  # bytes in which it is looked for
MODE = 0o600  # what is in a page is in a store that only root may read


def refuse(path: Path) -> None:
    """Raise AvsError for what is not to be overwritten, or cannot be written."""
    advice = "; give the name of a new file, or of a page that avsimage has made"
    if not path.parent.is_dir():
        raise AvsError(f"{path} cannot be made: there is no directory {path.parent}")
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(kind):
        raise AvsError(f"{path} is {'a directory' if stat.S_ISDIR(kind) else 'no plain file'}{advice}")
    with open(path, "rb") as stream:
        if GENERATOR.encode() not in stream.read(BEGINNING):
            raise AvsError(f"{path} is there, and is no page of avsimage; it was left as it is{advice}")


def write(path: Path, text: str) -> int:
    """Write a page whole, in place of an earlier one, whose mode it keeps. Returns its bytes. Raises AvsError as refuse does."""
    refuse(path)
    data = text.encode("utf-8")
    write_atomic(path, data, stat.S_IMODE(os.lstat(path).st_mode) if path.exists() else MODE)
    return len(data)
