"""Runs of the checkout by somebody else than root, also where only root may enter it, as below /root."""

from __future__ import annotations

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# In a mount namespace of its own a readable directory takes the place of the closed one: with a copy of what
# is run, whatever the modes of the checkout, and with the interpreter.
SEEN = """set -e
closed=$1 top=$2 prefix=$3
shift 3
mount --bind "$closed" /mnt
mount -t tmpfs -o mode=755 tmpfs "$closed"
mkdir -p "$top" "$prefix"
cp -a "/mnt${top#"$closed"}/xcat_avs" "/mnt${top#"$closed"}/share" "$top"
chmod -R a+rX "$top"
case $prefix in "$closed"/*) mount --bind "/mnt${prefix#"$closed"}" "$prefix" ;; esac
umount /mnt
cd "$top"
exec "$@"
"""


def let_in(top: Path) -> None:
    """Let everybody enter a directory of a test. What is above it stays open, for tests of other workers are there too."""
    for path in [top, *top.parents][:-2]:
        path.chmod(path.stat().st_mode & 0o7777 | 0o055)


def by_uid(uid: int) -> tuple[str, ...]:
    """What to put before a command line so that it runs with this uid and gid and no rights besides."""
    setpriv = ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    prefix = Path(sys.prefix)
    way = [path for place in (prefix, TOP) for path in (*reversed(place.parents), place)]
    closed = [path for path in way if path.stat().st_mode & 0o005 != 0o005]
    if not closed:
        return setpriv
    return ("unshare", "--mount", "sh", "-c", SEEN, "sh", str(closed[0]), str(TOP), str(prefix), *setpriv)
