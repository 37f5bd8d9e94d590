"""Setuid, setgid and capabilities."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from xcat_avs.tree.manifest import CAPABILITY

SETUID, SETGID = 0o4000, 0o2000
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


def capabilities(value: bytes) -> str:
    """The extended attribute security.capability as getcap prints it; see struct vfs_ns_cap_data of Linux."""
    try:
        magic, *words = struct.unpack(f"<{len(value) // 4}I", value)
        pairs = {1: 1, 2: 2, 3: 2}[magic >> 24]
        permitted = sum(words[2 * number] << 32 * number for number in range(pairs))
        inheritable = sum(words[2 * number + 1] << 32 * number for number in range(pairs))
    except (struct.error, KeyError, IndexError, ValueError):
        return f"capabilities {value.hex()}"
    by_flags: dict[str, list[str]] = {}
    for number in range(64):
        flags = "i" * (inheritable >> number & 1) + "p" * (permitted >> number & 1)
        if flags:
            name = f"cap_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else str(number)
            by_flags.setdefault(("e" if magic & 1 else "") + flags, []).append(name)
    rootid = f" [rootid={words[4]}]" if magic >> 24 == 3 and len(words) > 4 else ""
    return " ".join(f"{','.join(names)}={flags}" for flags, names in by_flags.items()) + rootid
