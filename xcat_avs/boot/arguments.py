"""What the kernel of a set is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xcat_avs.boot.machine import ADDRESS, MAC, Kind

# Without colours, with a line for each unit by its name, and with an end where nothing goes on.
CONSOLE = ("TERM=dumb", "systemd.show_status=yes", "systemd.status_unit_format=name", "panic=-1")


@dataclass(frozen=True)
class Plan:
    """How a set is booted. initramfs: the archive is the initrd. disk: the archive is a disk. append: the arguments of the kernel."""

    append: str
    initramfs: bool = False
    disk: bool = False


def alone(method: str, kind: Kind, more: str) -> Plan:
    """A set that is booted without xCAT: the archive as initramfs, or as the disk of the distribution's own initrd."""
    if method == "cpio":
        return Plan(_append(["rdinit=/sbin/init"], kind, more), initramfs=True)
    return Plan(_append([f"root={kind.disk}", "rootfstype=squashfs", "ro"], kind, more), disk=True)


def by_xcat(given: Sequence[str], path: str, kind: Kind, more: str) -> Plan:
    """A set whose initrd fetches the archive. given: what nodeset has written, as far as it has; path: of the archive.

    The addresses become those of the private network, in which there is a web server and no xcatd.
    """
    private = {
        "imgurl": f"http://{ADDRESS}:80/{path.lstrip('/')}",
        "XCAT": f"{ADDRESS}:3001",
        "BOOTIF": f"01-{MAC.replace(':', '-')}",
    }
    words = given or ["imgurl=", "XCAT=", "NODE=avs-boot", "FC=0", "BOOTIF="]
    told = []
    for word in words:
        name, equals, value = word.partition("=")
        if name in private:
            told.append(f"{name}={private[name]}{'.metainfo' if value.endswith('.metainfo') else ''}")
        elif not name.startswith("console") and not set("$!") & set(word):
            told.append(name + equals + value)
    return Plan(_append([*told, "nonodestatus"], kind, more))


def _append(words: Sequence[str], kind: Kind, more: str) -> str:
    return " ".join([*words, f"console={kind.console}", *kind.arguments, *CONSOLE, *more.split()])
