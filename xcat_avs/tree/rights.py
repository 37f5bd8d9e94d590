"""Setuid, setgid and capabilities."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from xcat_avs.tree.manifest import CAPABILITY

SETUID, SETGID = 0o4000, 0o2000
ROOTID = 3  # the revision that has one
PAIRS = {1: 1, 2: 2, ROOTID: 2}  # revision -> words of 32 bits in each set
# Their numbers are their places; see linux/capability.h.
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip


def rights(mode: int, uid: int, gid: int, xattrs: Iterable[tuple[str, bytes]]) -> str:
    """setuid, setgid and capabilities in words; empty for none."""
    words = [f"setuid {uid}"] if mode & SETUID else []
    words += [f"setgid {gid}"] if mode & SETGID else []
    words += [capabilities(value) for name, value in xattrs if name == CAPABILITY]
    return ", ".join(words)


def flags(value: bytes) -> dict[int, str]:
    """Number of a capability -> e, i and p, by the extended attribute security.capability.

    See struct vfs_ns_cap_data of Linux. Raises ValueError for what is none.
    """
    try:
        magic, *words = struct.unpack(f"<{len(value) // 4}I", value)
        pairs = PAIRS[magic >> 24]
        permitted = sum(words[2 * number] << 32 * number for number in range(pairs))
        inheritable = sum(words[2 * number + 1] << 32 * number for number in range(pairs))
    except (struct.error, KeyError, IndexError):
        raise ValueError("no capabilities of a file") from None
    effective = "e" if magic & 1 else ""
    found = {number: "i" * (inheritable >> number & 1) + "p" * (permitted >> number & 1) for number in range(64)}
    return {number: effective + letters for number, letters in found.items() if letters}


def capabilities(value: bytes) -> str:
    """The extended attribute security.capability as getcap prints it."""
    try:
        found = flags(value)
    except ValueError:
        return f"capabilities {value.hex()}"
    by_flags: dict[str, list[str]] = {}
    for number, letters in found.items():
        name = f"cap_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else str(number)
        by_flags.setdefault(letters, []).append(name)
    rootid = f" [rootid={struct.unpack_from('<I', value, 20)[0]}]" if value[3] == ROOTID and len(value) >= 24 else ""
    return " ".join(f"{','.join(names)}={letters}" for letters, names in by_flags.items()) + rootid
