"""The virtual machine: which program of QEMU, with which arguments."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.errors import AvsError
from xcat_avs.system import command, provides

KVM, TCG = "kvm", "emulation"
DEVICE = Path("/dev/kvm")
CORES = 4  # more make no boot faster
CACHE = 512  # MiB for translated code, of which a boot has more than QEMU's own measure
ADDRESS = "10.0.2.100"  # in the private network of the machine, where the files of the set are
MAC = "52:54:00:61:76:73"
PORTS = (3001, 3002)  # of xcatd, of which there is none: whoever asks is told so at once


@dataclass(frozen=True)
class Kind:
    """An architecture. console: the device of the serial port. cpu: what is emulated, with all that an image may ask for.

    arguments: of its kernels.

    disk: the device on which the first virtual disk is found.
    """

    program: str
    console: str
    options: tuple[str, ...] = ()
    cpu: str = "max"
    disk: str = "/dev/vda"
    arguments: tuple[str, ...] = ()


KINDS = {
    # A kernel counts the ticks of its timer when it starts, and panics where a busy machine emulates too few of them.
    "x86_64": Kind("qemu-system-x86_64", "ttyS0", arguments=("no_timer_check",)),
    "aarch64": Kind("qemu-system-aarch64", "ttyAMA0", ("-machine", "virt")),
    "ppc64le": Kind("qemu-system-ppc64", "hvc0", ("-machine", "pseries"), cpu="power9"),
}
OF_EL = "/usr/libexec/qemu-kvm"  # where EL has the one for its own architecture


@dataclass(frozen=True)
class Guest:
    """What is booted. append: the arguments of the kernel. memory: MiB.

    served: the directory whose files the private network has, or None. disk: an image of a read-only disk, or None.
    """

    osarch: str
    kernel: Path
    initrd: Path
    append: str
    memory: int
    served: Optional[Path] = None
    disk: Optional[Path] = None

    @property
    def initramfs(self) -> bool:
        """Whether the archive itself is the initrd."""
        return self.served is None and self.disk is None


def kind(osarch: str) -> Kind:
    """Raises AvsError for an architecture that is not booted here."""
    if osarch not in KINDS:
        raise AvsError(f"images of {osarch} cannot be booted here; those of {', '.join(KINDS)} can")
    return KINDS[osarch]


def program(osarch: str) -> str:
    """The path of QEMU for an architecture. Raises AvsError with its package: no other mode needs it."""
    name = kind(osarch).program
    found = command.find(name) or (command.find(OF_EL) if osarch == os.uname().machine else None)
    if found is None:
        raise AvsError(provides.missing([name]))
    return found


def why_emulated(osarch: str) -> str:
    """Why KVM cannot be used for an architecture, or ""."""
    here = os.uname().machine
    if osarch != here:
        return f"this machine is {here}"
    if not DEVICE.exists():
        return f"there is no {DEVICE}"
    return "" if os.access(DEVICE, os.R_OK | os.W_OK) else f"{DEVICE} cannot be opened"


def argv(guest: Guest, accelerator: str) -> list[str]:
    """The command line of QEMU: no screen, no disk that is written, no network but its own, the serial port on its output."""
    this = kind(guest.osarch)
    threads = "multi" if guest.osarch != "x86_64" or os.uname().machine == "x86_64" else "single"
    how = ["-accel", "kvm", "-cpu", "host"] if accelerator == KVM else \
          ["-accel", f"tcg,thread={threads},tb-size={CACHE}", "-cpu", this.cpu]  # fmt: skip
    words = [
        program(guest.osarch),
        *this.options,
        *how,
        "-smp",
        str(min(CORES, os.cpu_count() or 1)),
        "-m",
        str(guest.memory),
    ]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]
    words += ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", guest.append]
    if guest.disk is not None:
        words += ["-drive", f"file={_quoted(str(guest.disk))},format=raw,if=virtio,readonly=on"]
    return [*words, "-netdev", _network(guest), "-device", f"virtio-net-pci,netdev=private,mac={MAC}"]


def _network(guest: Guest) -> str:
    """A network that leads nowhere; in it, where files are served, a web server, which is started for each request."""
    words = ["user", "id=private", "restrict=on"]
    if guest.served is not None:
        server = [sys.executable, "-I", str(Path(__file__).with_name("files.py")), str(guest.served)]
        words.append(f"guestfwd=tcp:{ADDRESS}:80-cmd:{_quoted(shlex.join(server))}")
        words += [f"guestfwd=tcp:{ADDRESS}:{port}-cmd:true" for port in PORTS]
    return ",".join(words)


def _quoted(value: str) -> str:
    """A value within the value of an option of QEMU."""
    return value.replace(",", ",,")
