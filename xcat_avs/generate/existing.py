"""A tree that is there already: what packing it has put into it is no part of the image."""

from __future__ import annotations

import re
from pathlib import Path

from xcat_avs import mounts
from xcat_avs.inside import inside

XCATINFO, POSTSCRIPTS = "opt/xcat/xcatinfo", "xcatpost"
# packimage writes this line for root, always with this date; what stood there before is gone.
ROOT_LINE = re.compile(rb"^root:([^:\n]*)(:13880:0:99999:7:::)$", re.MULTILINE)
LOCKED = re.compile(rb"[*!x]*")


def strip_packimage(root: Path) -> list[str]:
    """Take out of a copied tree what xCAT's packimage has put into it; returns what that was, for the report.

    A tree that it never packed is left as it is. Files of synclists, and /etc/localtime, cannot be told from the image's.
    """
    info = inside(root, XCATINFO)
    if info.is_symlink() or not info.is_file() or b"IMAGEUUID=" not in info.read_bytes():
        return []
    info.unlink()
    found = [f"/{XCATINFO}"]
    if (root / POSTSCRIPTS).is_dir() and not (root / POSTSCRIPTS).is_symlink():
        mounts.remove_tree(root / POSTSCRIPTS)
        found.append(f"/{POSTSCRIPTS}")
    shadow = inside(root, "etc/shadow", follow=True)
    data = shadow.read_bytes() if shadow.is_file() else b""
    match = ROOT_LINE.search(data)
    if match and not LOCKED.fullmatch(match.group(1)):
        shadow.write_bytes(data[: match.start(1)] + b"*" + data[match.end(1) :])
        found.append("root's password in /etc/shadow, which is locked now")
    return found
