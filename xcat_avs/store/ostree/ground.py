"""Whether the file system of a directory can hold a repository that machines commit to."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from xcat_avs.system.mounts import NAMES

MOUNTS = Path("/proc/self/mounts")
NFS = "an NFS server has to export it with no_root_squash"
NO_LOCKS = re.compile(r"(?:^|,)(nolock|local_lock=(?:all|flock))(?:,|$)")


def unfit(directory: Path) -> str:
    """Why a repository of mode bare cannot be there, in words; "" where it can. Raises OSError where nothing can be written."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".probe.") as name:
        probe = Path(name) / "file"
        probe.touch()
        if os.geteuid() == 0 and probe.stat().st_uid != 0:
            return f"what root writes there belongs to user {probe.stat().st_uid}: {NFS}"
        try:
            os.chown(probe, 1, 2)
            probe.chmod(0o4755)
            probe.with_name("link").symlink_to("file")
            os.chown(probe.with_name("link"), 1, 2, follow_symlinks=False)
            os.link(probe, probe.with_name("other"))
        except OSError as err:
            return f"its file system does not keep owner, mode, links and hard links ({err.strerror}): {NFS}, and others ext4 and xfs do"
        status = probe.stat()
        if (status.st_uid, status.st_gid, status.st_mode & 0o7777) != (1, 2, 0o4755):
            return f"its file system does not keep owner and mode: {NFS}, and others ext4 and xfs do"
    return _unlocked(os.path.realpath(directory))


def _unlocked(path: str) -> str:
    """Why a lock on the file server does not hold for other machines, in words; "" where it does."""
    found = ("", "", "")
    for line in MOUNTS.read_bytes().splitlines():
        _, point, kind, options, *_ = map(NAMES.unescape, os.fsdecode(line).split(" "))
        if (path == point or path.startswith(f"{point.rstrip('/')}/")) and len(point) >= len(found[0]):
            found = (point, kind, options)
    word = NO_LOCKS.search(found[2]) if found[1].startswith("nfs") else None
    if word is None:
        return ""
    return f"{found[0]} is mounted with {word.group(1)}, so that two machines could commit at the same time; mount it without that"
