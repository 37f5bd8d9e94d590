"""What xCAT's programs would refuse of a definition, and the chdef that fixes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError

# Attributes that genimage and packimage put into shell lines unquoted.
UNQUOTED = ("rootimgdir", "pkglist", "otherpkglist", "exlist", "profile", "osvers", "osarch", "kernelver", "krpmver",
            "netdrivers", "nodebootif", "otherifce", "kerneldir", "permission", "rootfstype", "synclists", "environvar", "driverupdatesrc")  # fmt: skip
# Attributes that they put between double quotes.
QUOTED = ("postinstall", "pkgdir", "otherpkgdir")
BAD_IN_QUOTES = re.compile(r"[\"$`\\\n]")
# Attributes of the linuximage table; packimage refuses an image that has no row there.
LINUXIMAGE = frozenset({"exlist", "kerneldir", "kernelver", "krpmver", "netdrivers", "nodebootif", "otherifce", "otherpkgdir",
                        "otherpkglist", "permission", "pkgdir", "pkglist", "postinstall", "rootimgdir", "addkcmdline", "driverupdatesrc"})  # fmt: skip
SAFE = re.compile(r"[A-Za-z0-9_./,:+@%=~-]*")


def refuse_unsafe(image: OsImage) -> None:
    """Refuse values with characters that are special to the shell, to which xCAT hands them."""
    for attribute in (*UNQUOTED, *QUOTED):
        value = image.attributes.get(attribute, "")
        bad = (
            BAD_IN_QUOTES.findall(value)
            if attribute in QUOTED
            else [char for char in value if not SAFE.fullmatch(char)]
        )
        if bad:
            held = ", ".join(repr(char) for char in sorted(set(bad)))
            raise AvsError(f"{image.name}: {attribute}={value!r} holds {held}, which xCAT would hand to a shell; "
                           f"change it with `chdef -t osimage {image.name} {attribute}=VALUE`")  # fmt: skip


def needed_chdef(image: OsImage) -> Sequence[str]:
    """The chdef that makes a definition fit for genimage and packimage; empty where it is."""
    wanted = {"osvers": image.osvers, "osarch": image.osarch, "profile": image.profile, "provmethod": "netboot"}
    missing = [f"{key}={value}" for key, value in wanted.items() if not image.attributes.get(key)]
    return ["chdef", "-t", "osimage", image.name, *missing] if missing else []


def refuse_incomplete(image: OsImage, rootimgdir: Path, build: bool) -> None:
    """Say what genimage (build) or packimage would say, but before anything runs, and how to fix it."""
    words = needed_chdef(image)
    if words:
        names = ", ".join(word.split("=")[0] for word in words[4:])
        raise AvsError(f"{image.name}: xCAT needs {names} in the definition; set what its name says with `{' '.join(words)}`, "
                       f"or let `avsimage -c create {image.name} --define` do it")  # fmt: skip
    chdef = f"chdef -t osimage {image.name}"
    if image.provmethod != "netboot":
        raise AvsError(
            f"{image.name} has provmethod {image.provmethod or 'unset'}, and xCAT builds and packs netboot images only"
        )
    if build and not image.attributes.get("pkglist"):
        raise AvsError(f"{image.name}: xCAT needs a pkglist in the definition; set one with `{chdef} pkglist=FILE`")
    # packimage checks only these two.
    if not (LINUXIMAGE if build else {"rootimgdir", "exlist"}) & image.attributes.keys():
        raise AvsError(
            f"{image.name}: xCAT needs a row in its linuximage table; make one with `{chdef} rootimgdir={rootimgdir}`"
        )
