"""The kernels of an image: their order, which one is taken, and whether its modules are there."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from xcat_avs import generate
from xcat_avs.errors import AvsError
from xcat_avs.tree import kernels


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def put_all(root: Path, *paths: str) -> None:
    for path in paths:
        put(root / path)


EL9, EL10 = "5.14.0-427.13.1.el9_4.x86_64", "6.12.0-211.34.1.el10_2.aarch64"


@pytest.mark.parametrize(
    ("release", "flavour"),
    [
        (EL9, ""), (f"{EL9}+debug", "debug"), (f"{EL10}+64k", "64k"), (f"{EL10}+64k-debug", "64k-debug"), (f"{EL9}+rt", "rt"),
        ("3.10.0-1160.el7.x86_64.debug", "debug"), ("3.10.0-1160.rt56.1131.el7.x86_64", "rt"), ("2.6.18-398.el5", ""),
        ("5.14.0-70.13.1.rt21.83.el9_0.x86_64", "rt"), ("2.6.18-398.el5xen", "xen"), ("2.6.18-398.el5PAE", "pae"),
        ("5.15.0-100.96.32.el9uek.x86_64", ""), ("5.15.0-1.el9uek64k.aarch64", "64k"), ("4.14.0-115.el7a.aarch64", ""),
        ("3.10.0-1160.el7.centos.plus.x86_64", "plus"), ("5.14.0-427.31.1_lustre.el9.x86_64", ""),
        ("6.8.0-0.rc7.20240308git3aaa8ce7a335.58.fc41.x86_64", ""), ("6.1.79-99.167.amzn2023.x86_64", ""),
        ("6.1.0-18-amd64", ""), ("6.1.0-18-cloud-amd64", "cloud"), ("6.1.0-18-rt-amd64", "rt"), ("6.1.0-13-686-pae", "pae"),
        ("6.12.41+deb13-amd64", ""), ("6.12.41+deb13-cloud-amd64", "cloud"), ("6.12.9+bpo-amd64", ""),
        ("5.10.0-0.bpo.5-amd64", ""), ("6.10.4-arm64-16k", "16k"), ("6.12-rc6-amd64", ""),
        ("5.15.0-91-generic", ""), ("5.15.0-91-lowlatency", "lowlatency"), ("5.15.0-1051-azure", "azure"),
        ("6.8.0-1011-aws", "aws"), ("6.8.0-31-generic-64k", "64k"), ("6.8.0-060800rc7-generic", ""),
        ("6.4.0-150600.23.7-default", ""), ("6.4.0-150600.23.7-rt_debug", "rt_debug"), ("6.4.0-150600.23.7-64kb", "64kb"),
        ("6.8.0", ""), ("6.8.0+", ""), ("6.8.0-rc7", ""), ("6.8.1-arch1-1", ""), ("6.6.30-hpc", "hpc"),
        ("5.15.9.old", "old"), ("6.1.0-18-amd64.dpkg-bak", "old"), ("0-rescue-8c0f5f3c4d", "rescue"),
    ],
)  # fmt: skip
def test_flavour(release: str, flavour: str) -> None:
    assert kernels.flavour(release) == flavour


@pytest.mark.parametrize(
    "ascending",
    [
        ["4.18.0-348.el8.x86_64", "4.18.0-348.20.1.el8_5.x86_64", "4.18.0-372.9.1.el8.x86_64"],
        ["4.18.0-348.20.1.el8_5.x86_64+debug", "4.18.0-348.el8.x86_64"],
        [f"{EL10}+64k", EL10],
        ["5.14.0-999.el9.x86_64+rt", EL9],
        ["0-rescue-8c0f5f3c4d", f"{EL9}.old", f"{EL9}+debug", EL9],
        ["6.1.0-18-rt-amd64", "6.1.0-9-amd64", "6.1.0-18-amd64"],
        ["6.1.0-21-cloud-amd64", "6.1.0-18-amd64"],
        ["6.8.0-rc7", "6.8.0-rc10", "6.8.0", "6.8.1"],
        ["6.12-rc6-amd64", "6.12-amd64", "6.12.9+bpo-amd64", "6.12.41+deb13-amd64"],
        ["6.8.0-060800rc7-generic", "6.8.0-060800-generic"],
        ["5.15.9.old", "5.15.9"],
        ["5.15.0-1051-azure", "5.15.0-89-generic", "5.15.0-91-generic"],
        ["5.15-10", "5.15.9-1"],
    ],
)
def test_the_newest_is_the_newest_plain_one(tmp_path: Path, ascending: list[str]) -> None:
    for release in reversed(ascending):
        put_all(tmp_path, f"boot/vmlinuz-{release}", f"lib/modules/{release}/modules.dep")
    assert list(kernels.kernels(tmp_path)) == ascending
    assert kernels.newest_kernel(tmp_path) == generate.newest_kernel(tmp_path) == ascending[-1]
    if ".el" not in ascending[0]:
        put(tmp_path / "var/lib/dpkg/status")
        assert list(kernels.kernels(tmp_path)) == ascending, "dpkg has it in the same order"


def test_a_kernel_without_its_modules_is_not_the_newest(tmp_path: Path) -> None:
    put_all(tmp_path, "boot/vmlinuz-6.9", "boot/vmlinuz-6.8", "boot/vmlinuz-6.10")
    assert kernels.newest_kernel(tmp_path) == "6.10", "all are built in"
    put(tmp_path / "lib/modules/6.8/modules.dep")
    assert kernels.newest_kernel(tmp_path) == "6.8"
    assert kernels.newest_kernel(tmp_path, ".9") == "6.9"
    assert kernels.newest_kernel(tmp_path, "+rt") == ""


def test_what_is_no_kernel(tmp_path: Path) -> None:
    """SUSE has vmlinux-*.xz for debuggers beside the kernel, and calls that of ARM Image."""
    put_all(tmp_path, *(f"boot/{name}-6.4.0-default" for name in ("vmlinux", "vmlinuz", "config", ".vmlinuz")),
            "boot/vmlinux-6.4.0-default.xz", "boot/vmlinuz-6.4.0-default.hmac", "boot/Image-6.5.0-default")  # fmt: skip
    assert {name: path.name for name, path in kernels.kernels(tmp_path).items()} == {
        "6.4.0-default": "vmlinuz-6.4.0-default",
        "6.5.0-default": "Image-6.5.0-default",
    }


def boot_image(release: str) -> bytes:
    """The header of a kernel of x86, as far as it is read."""
    data = bytearray(4096)
    data[0x202:0x206] = b"HdrS"
    data[0x20E:0x210] = struct.pack("<H", 0x400)
    text = f"{release} (builder@example) #1 SMP\0".encode()
    data[0x600 : 0x600 + len(text)] = text
    return bytes(data)


BANNER = b"\0\1Linux version 6.4.0-default (geeko@example)\n"


@pytest.mark.parametrize(
    ("data", "release"),
    [
        (boot_image(EL9), EL9),
        (BANNER, "6.4.0-default"),
        (gzip.compress(BANNER, mtime=0), "6.4.0-default"),
        (b"MZ\0\0zimg" + struct.pack("<II", 16, 9999) + gzip.compress(BANNER, mtime=0), "6.4.0-default"),
        (b"kernel\n", ""),
        (b"", ""),
        (boot_image("")[:0x300], ""),
        (gzip.compress(BANNER, mtime=0)[:20], ""),
        (b"\x1f\x8bno gzip", ""),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value,
)
def test_the_release_that_a_kernel_file_says(tmp_path: Path, data: bytes, release: str) -> None:
    (tmp_path / "kernel").write_bytes(data)
    assert kernels.read_release(tmp_path / "kernel") == release


def test_a_kernel_and_the_modules_of_another(tmp_path: Path) -> None:
    kernels.check_modules(tmp_path)
    (tmp_path / "kernel").write_bytes(boot_image("3.10.0-1127.13.1.el7.x86_64"))
    (tmp_path / "rootimg").mkdir()
    kernels.check_modules(tmp_path)  # one that has all that it needs built in
    put(tmp_path / "rootimg/usr/lib/modules/3.10.0-1127.18.2.el7.x86_64/kernel/x.ko")
    (tmp_path / "rootimg/lib").symlink_to("usr/lib")
    with pytest.raises(
        AvsError, match=r"kernel is 3\.10\.0-1127\.13\.1\.el7\.x86_64, .* 3\.10\.0-1127\.18\.2\.el7\.x86_64 only"
    ):
        kernels.check_modules(tmp_path)
    (tmp_path / "rootimg/lib/modules/3.10.0-1127.13.1.el7.x86_64").mkdir()
    kernels.check_modules(tmp_path)
    (tmp_path / "rootimg/lib/modules/3.10.0-1127.13.1.el7.x86_64").rmdir()
    (tmp_path / "kernel").write_text("kernel\n")
    kernels.check_modules(tmp_path)  # nothing is known of it


def test_take_kernel_takes_the_newest_and_its_initrd(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    target.mkdir()
    for release in ("6.1.0-9-amd64", "6.1.0-21-amd64", "0-rescue-abc"):
        put(root / f"boot/vmlinuz-{release}", f"kernel {release}")
        put(root / f"boot/initrd.img-{release}", f"initrd {release}")
    kernels.take_kernel(root, target)
    assert (target / "kernel").read_text() == "kernel 6.1.0-21-amd64"
    assert (target / "initrd-stateless.gz").read_text() == "initrd 6.1.0-21-amd64"


def test_take_kernel_that_is_wanted(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    target.mkdir()
    for release in ("5.14.0-9.el9.x86_64", "5.14.0-21.el9.x86_64"):
        put(root / f"boot/vmlinuz-{release}", f"kernel {release}")
        put(root / f"boot/initramfs-{release}.img", f"initrd {release}")
        put(root / f"lib/modules/{release}/modules.dep")
    kernels.take_kernel(root, target, "5.14.0-9.el9.x86_64")
    assert (target / "kernel").read_text() == "kernel 5.14.0-9.el9.x86_64"
    assert (target / "initrd-stateless.gz").read_text() == "initrd 5.14.0-9.el9.x86_64"
    with pytest.raises(AvsError, match=r"the image has no kernel 6\.1 .*; there is 5\.14\.0-9"):
        kernels.take_kernel(root, target, "6.1")
    with pytest.raises(AvsError, match="there is none"):
        kernels.take_kernel(target, target, "6.1")


def test_take_kernel_from_modules(tmp_path: Path) -> None:
    root, target = tmp_path / "root", tmp_path / "target"
    target.mkdir()
    kernels.take_kernel(root, target)
    assert list(target.iterdir()) == []
    put(root / "lib/modules/5.14.0-1.el9/vmlinuz", "k9")
    put(root / "lib/modules/5.14.0-10.el9/vmlinuz", "k10")
    put(root / "boot/initramfs-5.14.0-10.el9.img", "i10")
    kernels.take_kernel(root, target)
    assert (target / "kernel").read_text() == "k10"
    assert (target / "initrd-stateless.gz").read_text() == "i10"


def test_take_kernel_follows_links_in_the_image_not_on_the_host(tmp_path: Path) -> None:
    """/boot/vmlinuz-* may be an absolute link into /usr/lib/modules."""
    root, target = tmp_path / "root", tmp_path / "target"
    target.mkdir()
    host = put(tmp_path / "host/vmlinuz", "the host's kernel")
    put(root / str(host).lstrip("/"), "the image's kernel")
    (root / "boot").mkdir()
    (root / "boot/vmlinuz-6.1.0").symlink_to(host)
    kernels.take_kernel(root, target)
    assert (target / "kernel").read_text() == "the image's kernel"


def test_the_newest_kernel_that_is_whole(tmp_path: Path) -> None:
    put_all(tmp_path, "usr/lib/modules/5.14.0-9.el9/extra/a.ko", "usr/lib/modules/5.14.0-70.el9/vmlinuz", "usr/lib/modules/6.1.0-1/extra/a.ko",
        "boot/vmlinuz-5.14.0-9.el9", "boot/vmlinuz-5.14.0-70.el9")  # fmt: skip
    (tmp_path / "lib").symlink_to("/usr/lib")
    assert kernels.with_modules(tmp_path) == "5.14.0-70.el9"
    assert kernels.with_modules(tmp_path, "5.14.0-9.el9") == "5.14.0-9.el9"
    with pytest.raises(
        AvsError, match=r"no modules of kernel 5\.15 in lib/modules; there is 5\.14\.0-9\.el9, 5\.14\.0-70\.el9"
    ):
        kernels.with_modules(tmp_path, "5.15")


def test_without_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(AvsError, match="there is none"):
        kernels.with_modules(tmp_path)
    put_all(tmp_path, "lib/modules/5.9/modules.dep", "lib/modules/5.10/modules.dep")
    assert kernels.with_modules(tmp_path) == "5.10"


def test_missing(tmp_path: Path) -> None:
    put_all(
        tmp_path,
        *(
            f"lib/modules/5.10/extra/{name}"
            for name in ("zfs.ko.xz", "osd_ldiskfs.ko", "ib-ipoib.ko.zst", "lustre.ko.bak")
        ),
    )
    put_all(tmp_path, "lib/modules/5.9/extra/lnet.ko")
    names = ["zfs", "osd-ldiskfs", "ib_ipoib", "lustre", "lnet"]
    assert kernels.missing_modules(tmp_path, "5.10", names) == ["lustre", "lnet"]
