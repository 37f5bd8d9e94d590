"""Tiny images, that come up or are broken on purpose, for a kernel that is there: busybox and a script."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

BUSYBOX = "/usr/bin/busybox"
APPLETS = (
    "sh",
    "mount",
    "insmod",
    "modprobe",
    "ip",
    "wget",
    "cpio",
    "gzip",
    "switch_root",
    "sleep",
    "cat",
    "mkdir",
    "losetup",
    "tar",
    "ls",
    "cp",
)
NETWORK, ROOTS = ("virtio_pci", "virtio_net"), ("loop", "squashfs", "overlay")
BEGIN = "#!/bin/sh\nexport PATH=/bin\nmount -t devtmpfs none /dev; mount -t proc none /proc\nexec </dev/console >/dev/console 2>&1\n"
PROMPT = 'printf "\\n%s login: " tiny\nwhile :; do sleep 60; done\n'
# What the initrd of xCAT does: the archive is fetched by its URL, becomes the root in one of three ways, and is booted.
FETCH = """
for module in /modules/*.ko; do insmod "$module"; done
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
for word in $(cat /proc/cmdline); do case $word in imgurl=*) url=${word#imgurl=} ;; esac; done
echo "Getting $url..."
until wget -q "$url"; do sleep 1; done
mkdir /root
case $url in
*.cpio.gz) mount -t tmpfs none /root; gzip -dc rootimg.cpio.gz | (cd /root && cpio -idm); rm -f rootimg.cpio.gz ;;
*.tar.gz) mount -t tmpfs none /root; tar -xzf rootimg.tar.gz -C /root; rm -f rootimg.tar.gz ;;
*.sfs) mkdir /ro /rw; mount -o loop,ro -t squashfs rootimg.sfs /ro && mount -t tmpfs none /rw && mkdir /rw/u /rw/w &&
       mount -t overlay -o lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w none /root ;;
esac
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
"""


def modules(root: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Modules of the image's kernel, and those that they need, as files of an initrd, in the order in which they are loaded."""
    (top,) = (root / "lib/modules").iterdir()
    lines = (line.partition(":") for line in (top / "modules.dep").read_text().splitlines())
    needs = {path: needed.split() for path, _, needed in lines}
    wanted = [path for name in names for path in needs if Path(path).name.split(".")[0] == name]
    order = dict.fromkeys(path for path in wanted for path in [*reversed(needs[path]), path])
    return {f"modules/{number:02d}.ko": (top / path).read_bytes() for number, path in enumerate(order)}


def write(directory: Path, files: Mapping[str, bytes], init: str = "", name: str = "sbin/init") -> Path:
    """A root of busybox with these files, and with a script as its init."""
    for top in ("bin", "dev", "proc", "sys", "tmp", "sbin"):
        (directory / top).mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    for applet in APPLETS:
        (directory / "bin" / applet).symlink_to("busybox")
    for path, data in {**files, **({name: (BEGIN + init).encode()} if init else {})}.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
        (directory / path).chmod(0o755)
    return directory


def packed(directory: Path, target: Path) -> Path:
    """That root as an archive that a kernel takes as its initramfs."""
    words = "find . | cpio --quiet -o -H newc"
    done = subprocess.run(["sh", "-c", words], cwd=directory, check=True, capture_output=True)
    target.write_bytes(gzip.compress(done.stdout, 1))
    return target
