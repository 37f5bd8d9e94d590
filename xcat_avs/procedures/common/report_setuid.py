"""List the programs that run with the rights of their owner: setuid, setgid, capabilities"""

import os
import stat
from fnmatch import fnmatch

OPTIONS = {
    "allowed": ((), "patterns of paths (usr/bin/su): any other such program is an error; none: all are listed only"),
}
CAPABILITIES = """
chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast
net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice
sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm
block_suspend audit_read perfmon bpf checkpoint_restore
""".split()  # noqa: SIM905  by their numbers


def run(ctx):
    lines, refused = [], []
    for path in ctx.glob("**/*"):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            continue
        what = [word for bit, word in ((stat.S_ISUID, "setuid"), (stat.S_ISGID, "setgid")) if status.st_mode & bit]
        what += capabilities(path)
        if what:
            name = str(path.relative_to(ctx.root))
            lines.append(f"{','.join(what)} {stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid} /{name}")
            if not any(fnmatch(name, pattern) for pattern in ctx.options["allowed"]):
                refused.append(f"/{name}")
    for line in lines:
        ctx.say(line)
    (ctx.paths.logs / "report_setuid.txt").write_text("".join(f"{line}\n" for line in lines))
    if ctx.options["allowed"] and refused:
        raise RuntimeError(f"not in allowed: {', '.join(refused)}; remove the rights, or add them in the recipe")


def capabilities(path):
    """The names of a file's capabilities, from its extended attribute as the kernel keeps it."""
    try:
        data = os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        return []
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(4, len(data), 4)]
    bits = [(words[at] | words[at + 1]) << (16 * at) for at in (0, 2) if len(words) > at + 1]  # permitted, inheritable
    found = sum(bits)
    return [f"cap_{CAPABILITIES[bit] if bit < len(CAPABILITIES) else bit}" for bit in range(64) if found >> bit & 1]
