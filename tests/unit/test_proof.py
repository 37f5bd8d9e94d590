"""An archive is read back and compared with what it was to hold; what a form cannot hold is said."""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.pack import archive, members, packimage, proof
from xcat_avs.pack.archive import Form
from xcat_avs.system import mounts
from xcat_avs.system.runner import Runner
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import Entry

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Every kind of path, and what archives have trouble with."""
    top = tmp_path / "rootimg"
    for name in ("etc", "dev", "usr/bin"):
        (top / name).mkdir(parents=True)
    for name in ("etc/a", "etc/b", "usr/bin/ping", "etc/old", "etc/late"):
        (top / name).write_text(f"content of {name}\n")
    for name in ("a", "b"):
        os.link(top / f"etc/{name}", top / f"etc/{name}.2")
    os.symlink("a", top / "etc/link")
    os.mknod(top / "dev/sda", 0o60600, os.makedev(8, 1))
    os.link(top / "dev/sda", top / "dev/disk")
    os.mkfifo(top / "dev/fifo")
    os.chown(top / "etc/late", 2**32 - 2, 2**32 - 2)
    os.utime(top / "etc/old", ns=(0, -304_800_895 * 10**9))
    os.utime(top / "etc/late", ns=(0, 5_680_281_600 * 10**9))
    with open(top / "usr/sparse", "wb") as stream:
        stream.seek(4 << 20)
        stream.write(b"end")
    return top


def write(root: Path, target: Path, form: Form) -> Path:
    archive.write(root, target, form, Runner(target.with_name("log")))
    return target


def prove(target: Path, form: Form, wanted: manifest.Manifest) -> None:
    proof.prove(target, form, wanted, Runner(target.with_name("log")))


# What is done to the tree before it is packed, by the shell, and what the proof says.
CHANGES = {
    "mode": ("chmod 600 etc/a", "etc/a: mode"),
    "owner": ("chown 7:8 etc/a", "etc/a: uid, gid"),
    "content": ("echo Content of etc/old >etc/old", "etc/old: sha256, mtime"),
    "size": ("echo cut >etc/b", "etc/b: size, sha256"),
    "link": ("ln -sfn b etc/link", "etc/link: link"),
    "device": ("rm dev/sda; mknod -m 600 dev/sda b 8 2", "dev/sda: device"),
    "type": ("rm dev/fifo; touch dev/fifo", "dev/fifo: type"),
    "hard link": ("rm etc/a.2; echo content of etc/a >etc/a.2", "etc/a.2: hardlink"),
    "the top": ("chmod 700 .", r"\.: mode"),
    "a path more": ("touch etc/more", "holds 1 paths that the tag does not hold:\n  etc/more"),
    "a path less": ("rm etc/link", r"lacks 1 of \d+ paths:\n  etc/link"),
}


@pytest.mark.parametrize("method", ["cpio", "tar"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_found_and_named(root: Path, tmp_path: Path, method: str, change: str) -> None:
    wanted = scan.scan_with_top(str(root))
    form = Form(method, "gzip")
    script, said = CHANGES[change]
    subprocess.run(script, shell=True, cwd=root, check=True)
    write(root, tmp_path / "archive", form)
    with pytest.raises(AvsError, match=said):
        prove(tmp_path / "archive", form, wanted)


def test_what_no_form_may_lose(root: Path, tmp_path: Path) -> None:
    """Odd times and owners, holes, hard links; each form proves what it holds and says what it does not."""
    wanted = scan.scan_with_top(str(root))
    said = {}
    for method in ("cpio", "tar"):
        form = Form(method, "gzip")
        prove(write(root, tmp_path / method, form), form, wanted)
        said[method] = list(proof.losses(wanted, form, True))
    assert said["cpio"] == [
        "cpio holds times from 1970 to 2106, and gives another one to 2 paths, etc/late among them; --method tar keeps them"
    ]
    assert said["tar"] == [
        "tar makes devices and FIFOs of their own of the hard links dev/sda; --method cpio keeps them"
    ]
    assert said["tar"] == list(proof.losses(wanted, Form("tar", "gzip"), False))
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", str(tmp_path / "out"), "-xpf", str(tmp_path / "tar")], check=True)
    status = (tmp_path / "out/usr/sparse").stat()
    assert status.st_blocks * 512 < status.st_size // 10
    assert (tmp_path / "out/etc/old").stat().st_mtime == -304_800_895


def test_an_exlist_that_leaves_out_everything(root: Path, tmp_path: Path) -> None:
    wanted = {".": scan.scan_with_top(str(root))["."]}
    subprocess.run("rm -r ./*", shell=True, cwd=root, check=True)
    form = Form("cpio", "gzip")
    with pytest.raises(AvsError, match="leaves out the whole image"):
        prove(write(root, tmp_path / "archive", form), form, wanted)


def with_attributes(root: Path) -> manifest.Manifest:
    os.setxattr(root / "usr/bin/ping", "security.capability", CAPABILITY)
    os.setxattr(root / "usr/bin/ping", "user.a=b\n", bytes(range(256)))
    os.setxattr(root / "etc", "trusted.overlay.opaque", b"y")
    subprocess.run(["setfacl", "-m", "u:1234:rw", str(root / "etc/b")], check=True)
    return scan.scan_with_top(str(root))


def test_attributes(root: Path, tmp_path: Path) -> None:
    wanted = with_attributes(root)
    form = Form("tar", "gzip")
    prove(write(root, tmp_path / "archive", form), form, wanted)
    text = "cpio loses the capabilities, ACLs and other xattrs of 4 paths, etc among them; --method tar keeps them"
    assert text in list(proof.losses(wanted, Form("cpio", "gzip"), True))
    os.removexattr(root / "usr/bin/ping", "security.capability")
    write(root, tmp_path / "archive", form)
    with pytest.raises(AvsError, match="usr/bin/ping: xattrs"):
        prove(tmp_path / "archive", form, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("mountable", [True, False])
def test_squashfs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mountable: bool) -> None:
    """Mounted where that can be done, else unpacked; ACLs are lost, and it is said."""
    os.link(root / "etc/link", root / "etc/link.2", follow_symlinks=False)
    wanted = with_attributes(root)
    form = Form("squashfs", "gzip")
    if not mountable:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/mount").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin/mount").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert list(proof.losses(wanted, form, True)) == [
        "squashfs loses the ACLs of 2 paths, etc/b among them; --method tar keeps them",
        "squashfs holds times from 1970 to 2106, and gives another one to 2 paths, etc/late among them; --method tar keeps them",
        "squashfs makes symbolic links of their own of the hard links etc/link.2; --method cpio keeps them",
    ]
    prove(write(root, tmp_path / "archive", form), form, wanted)
    os.removexattr(root / "usr/bin/ping", "security.capability")
    write(root, tmp_path / "archive", form)
    with pytest.raises(AvsError, match="usr/bin/ping: xattrs"):
        prove(tmp_path / "archive", form, wanted)
    assert not mounts.mounts_below(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("proof.")] == []


def newc(ino: int, name: str, data: bytes, links: int = 2) -> bytes:
    """One member as GNU cpio writes it without --reproducible."""
    fields = (ino, stat.S_IFREG | 0o644, 0, 0, links, 0, len(data), 8, 1, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def test_unrelated_files_that_became_one(tmp_path: Path) -> None:
    """The number of an inode has 64 bits, and newc keeps 32: GNU cpio unpacks all four as one file."""
    pairs = {"etc/motd": b"motd", "etc/sudoers": b"sudoers"}
    made = b"".join(newc(7, name, b"") + newc(7, f"{name}.2", data) for name, data in pairs.items())
    (tmp_path / "plain").write_bytes(made + newc(0, "TRAILER!!!", b"", 1))
    with open(tmp_path / "archive", "wb") as stream:
        subprocess.run(["gzip", "-c", str(tmp_path / "plain")], stdout=stream, check=True)
    found = members.read(tmp_path / "archive", Form("cpio", "gzip"), Runner(tmp_path / "log"))
    wanted = {path: entry._replace(hardlink="") for path, entry in found.items()}
    for name, data in pairs.items():
        wanted[f"{name}.2"] = wanted[f"{name}.2"]._replace(hardlink=name, size=len(data))
    with pytest.raises(
        AvsError,
        match=r"unrelated files became hard links .* packer = own, or take --method tar:\n  etc/sudoers became etc/motd",
    ):
        proof.compare(found, wanted, times=False)


@pytest.mark.slow
def test_packimages_cpio_gets_numbers_that_fit(tmp_path: Path) -> None:
    """On an overlay of two file systems, whose numbers differ in the high half alone."""
    with ExitStack() as stack:
        for number, name in enumerate(("a", "b")):
            lower = tmp_path / name
            lower.mkdir()
            stack.enter_context(mounts.mounted("tmpfs", lower, "tmpfs"))
            (lower / name).write_text(f"content {number}")
            os.link(lower / name, lower / f"{name}.2")
        tree = tmp_path / "tree"
        tree.mkdir()
        stack.enter_context(
            mounts.mounted("overlay", tree, "overlay", 0, f"lowerdir={tmp_path}/a:{tmp_path}/b,xino=on")
        )
        wanted = scan.scan_with_top(str(tree))
        numbers = {os.lstat(tree / name).st_ino for name in ("a", "b")}
        if len(numbers) == 1 or len({number % 2**32 for number in numbers}) == 2:
            pytest.skip("this kernel numbers them otherwise")
        packimage._lend(tmp_path / "bin", {})
        form = Form("cpio", "gzip")
        for cpio in ("cpio", f"{tmp_path}/bin/cpio"):
            line = f"cd {tree} && find . -xdev | {cpio} --quiet -H newc -o | gzip -c - > {tmp_path}/archive"
            subprocess.run(line, shell=True, check=True)
            if cpio == "cpio":
                with pytest.raises(AvsError, match="unrelated files became hard links"):
                    prove(tmp_path / "archive", form, wanted)
        prove(tmp_path / "archive", form, wanted)


def entry(path: str, hardlink: str = "") -> Entry:
    return Entry(path, "file", 0o644, 0, 0, 0, hardlink=hardlink)


def test_a_part_of_a_manifest_has_its_own_first_names() -> None:
    """kernel may be a hard link of what lies in the image, and an exlist may leave out the first name of a file."""
    entries = [
        entry("kernel"),
        entry("rootimg"),
        entry("rootimg/boot/a", "kernel"),
        entry("rootimg/boot/b", "kernel"),
        entry("rootimgs"),
    ]
    found = proof.below({item.path: item for item in entries}, "rootimg")
    assert {path: item.hardlink for path, item in found.items()} == {".": "", "boot/a": "", "boot/b": "boot/a"}
    assert proof.chosen(found, ["boot/b"]) == {"boot/b": entry("boot/b")}


def test_what_was_changed_on_purpose_is_looked_at_again(root: Path) -> None:
    wanted = scan.scan_with_top(str(root))
    (root / "etc/a").unlink()
    (root / "etc/new").mkdir()
    (root / "etc/new/file").touch()
    os.chown(root / "etc/old", 1, 1)
    found, others = proof.look_again(wanted, root, ["etc/a", "etc/new", "etc/b", "etc/none"])
    assert others == ["etc/a", "etc/new", "etc/new/file"]
    assert found["etc/a.2"].hardlink == ""
    assert found["etc/old"] == wanted["etc/old"], "which was not on the list"


@pytest.mark.parametrize("text", [b"", b"070701", b"not an archive" * 20, newc(1, "a", b"x")[:-8]])
@pytest.mark.parametrize("method", ["cpio", "tar"])
def test_what_is_no_archive(tmp_path: Path, method: str, text: bytes) -> None:
    (tmp_path / "plain").write_bytes(text)
    with open(tmp_path / "archive", "wb") as stream:
        subprocess.run(["gzip", "-c", str(tmp_path / "plain")], stdout=stream, check=True)
    with pytest.raises(AvsError, match="archive cannot be read back"):
        members.read(tmp_path / "archive", Form(method, "gzip"), Runner(tmp_path / "log"))
