"""What a console says of a boot, how much memory it takes, and what the machine and its kernel are told."""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from xcat_avs.boot import arguments, booting, console, files, judge, machine, memory
from xcat_avs.boot.booting import Terms
from xcat_avs.boot.judge import Heard
from xcat_avs.boot.machine import KINDS, KVM, TCG, Guest
from xcat_avs.errors import AvsError

CONSOLES = Path(__file__).resolve().parents[1] / "data/consoles"
MIB = 1 << 20


def recorded(name: str) -> str:
    return (CONSOLES / f"{name}.log").read_bytes().decode("utf-8", "replace")


def test_memory_of_each_form() -> None:
    tree = memory.unpacked([0, 1, 4096, 4097])
    assert tree == 4 * 1024 + 4096 + 4096 + 8192
    # Half of all memory for what is unpacked; or both at once, where the archive is as large.
    assert memory.needed("cpio", 100 * MIB, 400 * MIB) == 1088
    assert memory.needed("tar", 500 * MIB, 400 * MIB, 20 * MIB) == 1280
    assert memory.needed("squashfs", 100 * MIB, 400 * MIB, 10 * MIB) == 512
    assert memory.needed("squashfs", 0, 0) == 320


def test_arguments_of_a_set_without_xcat() -> None:
    plan = arguments.alone("cpio", KINDS["x86_64"], "quiet a=b")
    assert plan.initramfs
    assert plan.append.split()[:2] == ["rdinit=/sbin/init", "console=ttyS0"]
    assert plan.append.endswith(" quiet a=b")
    assert "root=" not in plan.append
    disk = arguments.alone("squashfs", KINDS["aarch64"], "")
    assert (disk.initramfs, disk.disk) == (False, True)
    assert disk.append.startswith("root=/dev/vda rootfstype=squashfs ro console=ttyAMA0 ")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", "imgurl=http://10.0.2.100:80/i/p/rootimg.sfs XCAT=10.0.2.100:3001 NODE=avs-boot FC=0 BOOTIF=01-52-54-00-61-76-73"),
        ("imgurl=http://!myipfn!:80//i/p/rootimg.sfs XCAT=mgmt:3001 NODE=cn001 FC=0 BOOTIF=01-${netX/mac:hexhyp} console=tty0 a",
         "imgurl=http://10.0.2.100:80/i/p/rootimg.sfs XCAT=10.0.2.100:3001 NODE=cn001 FC=0 BOOTIF=01-52-54-00-61-76-73 a"),
        ("imgurl=http://10.0.0.1:80/x.metainfo x=!myipfn!", "imgurl=http://10.0.2.100:80/i/p/rootimg.sfs.metainfo"),
    ],
)  # fmt: skip
def test_arguments_of_nodeset(given: str, wanted: str) -> None:
    plan = arguments.by_xcat(given.split(), "/i/p/rootimg.sfs", KINDS["x86_64"], "")
    assert plan.append.startswith(f"{wanted} nonodestatus console=ttyS0 ")
    assert not plan.initramfs


def guest(**more: object) -> Guest:
    made = Guest("x86_64", Path("/k"), Path("/i"), append="a=b", memory=512)
    return replace(made, **more)  # type: ignore[arg-type]


def test_command_line_of_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "program", lambda osarch: "qemu")
    words = machine.argv(guest(), TCG)
    assert words[0] == "qemu"
    assert " ".join(words).count("restrict=on") == 1
    assert {"-no-reboot", "-nodefaults", "stdio", "512", "a=b"} <= set(words)
    assert not any(word.startswith("guestfwd") for word in words)
    by_kvm = machine.argv(guest(disk=Path("/a,b")), KVM)
    assert "file=/a,,b,format=raw,if=virtio,readonly=on" in by_kvm
    assert by_kvm[by_kvm.index("-cpu") + 1] == "host"
    network = machine.argv(guest(served=Path("/s t,u")), TCG)[-3]
    assert network.startswith("user,id=private,restrict=on,guestfwd=tcp:10.0.2.100:80-cmd:")
    assert "'/s t,,u'" in network


def test_an_architecture_that_nothing_boots() -> None:
    with pytest.raises(AvsError, match="images of s390x cannot be booted here"):
        machine.program("s390x")


@pytest.mark.parametrize(
    ("family", "package"), [("debian", "qemu-system-x86"), ("el", "qemu-kvm"), ("sles", "qemu-x86")]
)
def test_qemu_that_is_missing(family: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("xcat_avs.system.command.find", lambda program: None)
    monkeypatch.setattr("xcat_avs.system.provides.family", lambda: family)
    with pytest.raises(AvsError, match=f"qemu-system-x86_64 is not installed; it is in the package {package}$"):
        machine.program("x86_64")


def test_success_that_is_no_pattern() -> None:
    with pytest.raises(AvsError, match=r"\[boot\] success is no regular expression: '\(': "):
        console.patterns("(")


def test_pexpect_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pexpect", None)
    for prefix, way in (
        (sys.base_prefix, "it is in the package python3-pexpect"),
        ("/venv", "`.* -m pip install pexpect`"),
    ):
        monkeypatch.setattr(sys, "prefix", prefix)
        with pytest.raises(AvsError, match=f"pexpect, a library of Python that is not installed; {way}"):
            console.library()


def ask(directory: Path, request: bytes) -> bytes:
    """What the web server of the private network says, started as QEMU starts it."""
    ours, its = socket.socketpair()
    with ours, its:
        words = [sys.executable, "-I", files.__file__, str(directory)]
        with subprocess.Popen(words, stdin=its.fileno(), stdout=its.fileno(), stderr=its.fileno()) as server:
            its.close()
            ours.sendall(request)
            data = b""
            while block := ours.recv(1 << 16):
                data += block
        assert server.returncode == 0
    return data


def test_web_server_of_the_private_network(tmp_path: Path) -> None:
    (tmp_path / "rootimg.sfs").write_bytes(b"archive" * 10000)
    head, _, body = ask(tmp_path, b"GET //install/x/rootimg.sfs HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert b"Content-Length: 70000" in head
    assert body == b"archive" * 10000
    assert ask(tmp_path, b"GET /rootimg.sfs.metainfo HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 404 ")
    assert ask(tmp_path, b"GET /../../etc/passwd HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 404 ")


class Machine:
    """Stands for QEMU: a script that says something on its output."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self.said = tmp_path / "boot.log", list[str]()
        self._scripts: dict[str, str] = {}
        monkeypatch.setattr(machine, "argv", lambda guest, how: ["/bin/sh", "-c", self._scripts[how]])
        monkeypatch.setattr(machine, "why_emulated", lambda osarch: "" if KVM in self._scripts else "a test")
        monkeypatch.setattr(booting, "FIRST", 0.3)
        monkeypatch.setattr(booting, "SETTLE", 1.0)
        monkeypatch.setattr(console, "AFTER", 0.2)
        monkeypatch.setattr(console, "TURN", 0.1)

    def say(self, text: str) -> None:
        self.said.append(text)

    def verbose(self, text: str) -> None: ...
    def started(self, argv: object) -> None: ...
    def tick(self, log: object, far: object = None) -> None: ...

    def boot(self, tcg: str, kvm: str = "", seconds: float = 20, units: tuple[str, ...] = ()) -> booting.Outcome:
        self._scripts = {TCG: tcg, **({KVM: kvm} if kvm else {})}
        return booting.boot(guest(), Terms("", units, seconds), self.log, self)  # type: ignore[arg-type]


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


UP = "echo '[    0.000000] Linux version 6.1'; printf '\\r\\nnode login: '; exec sleep 60"


def test_a_login_prompt_is_the_end(qemu: Machine) -> None:
    done = qemu.boot(UP)
    assert (done.verdict.kind, done.verdict.words, done.accelerator) == (judge.BOOTED, "node login:", TCG)
    assert done.seconds < 5
    assert b"\nnode login: " in qemu.log.read_bytes()
    assert qemu.said == []


@pytest.mark.parametrize("broken", ["echo broken >&2; kill -ABRT $$", "exec sleep 60"])
def test_kvm_that_does_not_work(broken: str, qemu: Machine) -> None:
    """It aborts, or the kernel never says a word."""
    done = qemu.boot(UP, kvm=broken)
    assert (done.verdict.kind, done.accelerator, done.why) == (
        judge.BOOTED,
        TCG,
        "/dev/kvm is there, and does not work",
    )
    assert qemu.said == ["/dev/kvm is there, and does not work: it is emulated"]


def test_kvm_that_works(qemu: Machine) -> None:
    done = qemu.boot("exit 1", kvm=UP)
    assert (done.verdict.kind, done.accelerator, done.why) == (judge.BOOTED, KVM, "")


def test_qemu_that_cannot_even_start_it(qemu: Machine) -> None:
    with pytest.raises(AvsError, match="ended before the kernel's first word") as caught:
        qemu.boot("echo cannot allocate the memory >&2; exit 1")
    assert caught.value.tail[-1] == "cannot allocate the memory"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("exec sleep 60", judge.SILENT),
        ("echo Linux; exec sleep 60", judge.LATE),
        ("echo Linux; sleep 0.1", judge.ENDED),
        ("while :; do echo '[ 1.0] usb 1-1: reset'; done", judge.MUCH),
    ],
)
def test_what_never_comes_up(script: str, kind: str, qemu: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MOST", 10000)
    done = qemu.boot(script, seconds=0.3)
    assert done.verdict.kind == kind


def test_a_unit_that_fails_after_the_login_prompt(qemu: Machine) -> None:
    late = "printf '\\nnode login: '; sleep 0.1; echo '[FAILED] Failed to start ssh.service - OpenBSD server.'; echo Startup finished in 1s; exec sleep 60"
    assert qemu.boot(late).verdict.kind == judge.BOOTED
    done = qemu.boot(late, units=("ssh*",))
    assert done.verdict.kind == judge.UNIT
    assert done.verdict.failed == ["ssh.service - OpenBSD server"]


@pytest.mark.parametrize("path", sorted(CONSOLES.glob("*.log")), ids=lambda path: path.stem)
def test_recorded_consoles_are_told_apart(path: Path) -> None:
    """Each is the console of a real boot, under emulation, of an image that is broken as its name says."""
    name, _, _ = path.stem.partition(".")
    up = name.startswith(("booted", "failed_unit"))
    heard = Heard(recorded(path.stem), reached="node login:" if up else "", ended=True)
    units = ("ssh.service",) if name == "failed_unit" else ()
    verdict = judge.judge(heard, initramfs=not path.stem.endswith(".initrd"), units=units)
    assert verdict.kind == name.replace("root_module", "no module of the root's file system").replace("_", " ")
