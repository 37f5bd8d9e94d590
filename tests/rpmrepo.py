"""A handful of tiny rpms and a repository of them, made with rpmbuild and createrepo_c."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

KVER = "5.14.0-1.el9.x86_64"
EPOCH = 1700000000
COMPS = """<?xml version="1.0" encoding="UTF-8"?>
<comps><group><id>core</id><name>Core</name><description>The smallest root</description>
<default>true</default><uservisible>true</uservisible>
<packagelist><packagereq type="mandatory">filesystem</packagereq>
<packagereq type="mandatory">setup</packagereq></packagelist></group></comps>
"""
LUA_POST = """%post -p <lua>
io.open("/dev/null", "w"):write("noise"):close()
local seen = io.open("/proc/self/status") and posix.stat("/sys/kernel") and "ran\\n" or "without /proc or /sys\\n"
io.open("/var/lib/with-scriptlet.ran", "w"):write(seen):close()
"""


class Package(NamedTuple):
    """One rpm: what it has at each path, and the rest of its spec."""

    name: str
    entries: Mapping[str, bytes | str | None] = {}  # a file, a link (text), a directory (None)
    version: str = "1.0"
    tags: str = ""  # preamble lines, such as "Requires: bash"
    attrs: Mapping[str, str] = {}  # by path, what precedes it in %files: "%attr(...)", "%config"
    scripts: str = ""  # scriptlet sections


def cpio_newc(name: str, data: bytes) -> bytes:
    """Return a newc cpio archive of one executable file."""
    out = b""
    for entry, mode, body in ((name, 0o100755, data), ("TRAILER!!!", 0, b"")):
        fields = (1, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(entry) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % n for n in fields) + entry.encode() + b"\0"
        for part in (head, body):
            out += part + b"\0" * (-len(part) % 4)
    return out


def packages() -> list[Package]:
    """Return the packages every repository has."""
    needs, sticky = "Requires: filesystem", "%attr(1777, root, root)"
    dirs = "boot dev etc proc root run sys tmp usr usr/bin usr/lib usr/lib/modules usr/sbin"
    dirs += " usr/share usr/share/doc var var/lib var/log var/tmp"
    links = {"/bin": "usr/bin", "/lib": "usr/lib", "/sbin": "usr/sbin"}
    modes = {"/tmp": sticky, "/var/tmp": sticky, "/root": "%attr(0550, root, root)"}
    modes |= dict.fromkeys(("/proc", "/sys"), "%attr(0555, root, root)")
    passwd = b"root:x:0:0:root:/root:/bin/bash\n"
    shadow = {"/etc/shadow": b"root:*:19000:0:99999:7:::\n"}
    hidden = {"/etc/shadow": "%attr(0000, root, root) %config(noreplace)"}
    kernel = {
        f"/boot/vmlinuz-{KVER}": b"not a kernel\n",
        f"/boot/initramfs-{KVER}.img": gzip.compress(cpio_newc("init", b"#!/bin/sh\n"), mtime=0),
        f"/lib/modules/{KVER}/modules.dep": b"",
    }
    accounts = {"/etc/passwd": passwd, "/etc/group": b"root:x:0:\n", **shadow}
    return [
        Package("filesystem", {**{f"/{d}": None for d in dirs.split()}, **links}, attrs=modes),
        Package("setup", {**accounts}, tags=needs, attrs=hidden),
        Package("bash", {"/usr/bin/bash": b"#!/bin/sh\n"}, tags=f"{needs} setup"),
        Package("kernel-core", {**kernel}, "5.14.0", f"{needs}\nProvides: installonlypkg(kernel)"),
        Package("vim-minimal", {"/usr/bin/vi": b"#!/bin/sh\n"}, tags=needs),
        Package("excluded-doc", {"/usr/share/doc/excluded": b"doc\n"}, tags=needs),
        Package("needs-nothing", {"/usr/share/needs-nothing": b"nothing\n"}),
        Package("with-scriptlet", tags="Requires(post): filesystem", scripts=LUA_POST),
    ]


def _spec(package: Package, top: Path) -> str:
    """Lay a package's files out below top and return the path of the spec that packs them."""
    tree, spec, files = top / "trees" / package.name, top / f"{package.name}.spec", ""
    tree.mkdir(parents=True)
    for name, content in package.entries.items():
        path = tree / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if path.parent.name == "bin" else 0o644)
        files += f"{package.attrs.get(name, '')} {'%dir' if content is None else ''} {name}\n"
    spec.write_text(
        f"Name: {package.name}\nVersion: {package.version}\nRelease: 1.el9\n"
        f"Summary: {package.name}\nLicense: MIT\nAutoReqProv: no\n{package.tags}\n%description\n"
        f"{package.name}\n%install\nmkdir -p %{{buildroot}}\ncp -a '{tree}/.' %{{buildroot}}\n"
        f"{package.scripts}\n%files\n%defattr(-, root, root, 0755)\n{files}"
    )
    return str(spec)


def build_repo(directory: Path, extra: Sequence[Package] = ()) -> Path:
    """Build the packages, and the extra ones, below directory and return their repository."""
    top, repo = directory / "rpmbuild", directory / "repo"
    top.mkdir(parents=True)
    repo.mkdir()
    (top / "comps.xml").write_text(COMPS)
    macros = {"_topdir": top, "_tmppath": top, "_dbpath": top / "db", "_rpmdir": repo}
    macros["_rpmfilename"] = Path("%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm")
    options = [f"--define={name} {value}" for name, value in macros.items()]
    options += ["--define=_buildhost localhost", "--define=use_source_date_epoch_as_buildtime 1"]
    options += ["--define=clamp_mtime_to_source_date_epoch 1", "--define=__os_install_post %{nil}"]
    options += ["--define=debug_package %{nil}", "--target=x86_64", "--nodeps", "--quiet"]
    specs = [_spec(package, top) for package in [*packages(), *extra]]
    env = {**os.environ, "HOME": str(top), "SOURCE_DATE_EPOCH": str(EPOCH)}
    subprocess.run(["rpmbuild", "-bb", *options, *specs], check=True, env=env)
    for rpm in repo.glob("*.rpm"):
        os.utime(rpm, (EPOCH, EPOCH))
    stamp = ["--no-database", f"--revision={EPOCH}", "--set-timestamp-to-revision"]
    command = ["createrepo_c", "-q", *stamp, f"--groupfile={top / 'comps.xml'}", str(repo)]
    subprocess.run(command, check=True)
    return repo
