"""Files that a pack adds to the tree of a tag, each by `put`; all other files are packed as the tag has them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.pack.addon_archives import xattr_line
from xcat_avs.system import descent
from xcat_avs.system.descent import Descent
from xcat_avs.tree.inside import inside
from xcat_avs.tree.manifest import CAPABILITY, SELINUX, Manifest, Xattrs

RELEASE = "etc/avs-release"
XCATINFO = "opt/xcat/xcatinfo"
XATTRS = "usr/lib/avs/xattrs"
SET_XATTRS = "usr/lib/avs/set-xattrs"
UNIT = "etc/systemd/system/avs-xattrs.service"
WANTED = "etc/systemd/system/sysinit.target.d/avs-xattrs.conf"

SCRIPT = """#!/bin/sh
# Set what the archive of this image could not hold: capabilities, ACLs and other extended attributes.
# avsimage put this here with its list: PATH NAME VALUE [CAPABILITIES], each as the %b of printf takes it.
lost=0
while read -r path name value text; do
    path=$(printf '%b.' "/$path")
    path=${path%.}
    name=$(printf '%b' "$name")
    [ "$value" != - ] || value=
    if command -v setfattr >/dev/null; then
        setfattr -h -n "$name" -v "$value" "$path"
    elif [ "$name" = security.capability ] && command -v setcap >/dev/null; then
        setcap "$text" "$path"
    else
        false
    fi || {
        echo "$path: $name is not set" >&2
        lost=1
    }
done <"${0%/*}/xattrs"
exit $lost
"""
SERVICE = f"""[Unit]
Description=Set the extended attributes that the archive of the image could not hold
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /{SET_XATTRS}
"""


def put(root: Path, name: str, text: str, image: str) -> str:
    """Write a file into the root of a disposable checkout, root's own and mode 0644; its times are always the same.

    Returns its path in the tree, or the first directory that had to be made for it.
    Raises AvsError where a link of the image leads to somewhere on this machine.
    """
    # Links of the image are resolved in it; packimage would follow them on this machine.
    directory = inside(root, os.path.dirname(name), follow=True)
    if os.path.realpath(root / os.path.dirname(name)) != os.path.realpath(directory):
        raise AvsError(f"{image}: /{os.path.dirname(name)} of the image leads out of it")
    path = directory.relative_to(root) / os.path.basename(name)
    added = path
    while not os.path.lexists(root / added.parent):
        added = added.parent
    descent.write_file(str(root), str(path), text.encode())
    with Descent(str(root)) as tree:
        for made in (path, *path.parents):
            place, last = tree.parent("" if str(made) == "." else str(made))
            os.utime(last, (0, 0), dir_fd=place, follow_symlinks=False)
    return str(added)


def release(root: Path, facts: Mapping[str, str], osimage: str, image: str) -> list[str]:
    """Say in /etc/avs-release what the image is. Returns what was added.

    osimage: where xCAT serves it, what it is served as, for /opt/xcat/xcatinfo, which packimage writes anew; else "".
    """
    text = _lines(facts)
    added = [put(root, RELEASE, text, image)]
    if osimage:
        added.append(put(root, XCATINFO, _lines({"IMAGENAME": osimage}) + text, image))
    return added


def rich(stored: Manifest) -> dict[str, Xattrs]:
    """The paths of the root image, relative to its top, with attributes that cpio cannot hold."""
    found = {
        path.partition("/")[2]: tuple(item for item in entry.xattrs if item[0] != SELINUX)
        for path, entry in stored.items()
        if path.startswith("rootimg/")
    }
    return {path: xattrs for path, xattrs in found.items() if xattrs}


def xattrs_at_boot(root: Path, wanted: Mapping[str, Xattrs], image: str) -> list[str]:
    """Have a node set what cpio cannot hold when it boots; returns what was added."""
    left = present(root, wanted)
    if not left or not _has(root, "systemctl") or not (_has(root, "setfattr") or _has(root, "setcap")):
        return []
    lines = [xattr_line(path, *item) for path in sorted(left) for item in left[path]]
    texts = {XATTRS: "".join(lines), SET_XATTRS: SCRIPT, UNIT: SERVICE, WANTED: f"[Unit]\nWants={Path(UNIT).name}\n"}
    return [put(root, name, text, image) for name, text in texts.items()]


def lost_at_boot(root: Path, wanted: Mapping[str, Xattrs]) -> list[str]:
    """The paths of which a node cannot set all that cpio cannot hold.

    The image needs systemd, and setfattr, or setcap where there are only capabilities.
    """
    left = present(root, wanted)
    if left and _has(root, "systemctl") and _has(root, "setfattr"):
        return []
    able = bool(left) and _has(root, "systemctl") and _has(root, "setcap")
    return sorted(path for path, found in left.items() if not able or any(name != CAPABILITY for name, _ in found))


def present(root: Path, wanted: Mapping[str, Xattrs]) -> dict[str, Xattrs]:
    """What of it an exlist has left in the tree."""
    return {path: xattrs for path, xattrs in wanted.items() if os.path.lexists(root / path)}


def order(root: Path, wanted: Mapping[str, Xattrs]) -> None:
    """Have the attributes of each path in one order: archives have them in that of the file system, which goes by history."""
    with Descent(str(root)) as tree:
        for path, xattrs in wanted.items():
            if len(xattrs) > 1:
                name = tree.name("" if path == "." else path)
                for attribute, _ in xattrs:
                    os.removexattr(name, attribute, follow_symlinks=False)
                for attribute, value in xattrs:
                    os.setxattr(name, attribute, value, follow_symlinks=False)


def _has(root: Path, program: str) -> bool:
    return any(inside(root, f"{top}/{program}", True).exists() for top in ("usr/bin", "usr/sbin", "bin", "sbin"))


def _lines(facts: Mapping[str, str]) -> str:
    return "".join(f"{name}='{value}'\n" for name, value in facts.items())
