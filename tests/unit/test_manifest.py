"""Manifests: what a tree is, written, read, compared, restored."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.system import descent
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import Entry

ODD_NAMES = [
    b"plain", b"with space", b" lead", b"trail ", b"back\\slash", b"\\040", b"new\nline", b"tab\t", b"quote'\"", b"latin-\xfc",
    b"\xff\xfe", "ünïcode-✓".encode(), b"#mtree", b"a=b", b"-dash", b".hidden", b"star*", b"e\x01\x7f", b"x" * 255,
]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with every type, and odd names of each."""
    top = tmp_path / "tree"
    top.mkdir()
    for number, name in enumerate(ODD_NAMES):
        path = os.path.join(os.fsencode(top), name)
        with open(path, "wb") as stream:
            stream.write(b"%d" % number * number)
        os.utime(path, ns=(10**18, 10**18 + number))
    sub = top / "dir"
    sub.mkdir()
    (sub / "suid").write_bytes(b"#!")
    os.chown(sub / "suid", 12345, 54321)
    os.chmod(sub / "suid", 0o4755)  # chown takes setuid away
    (sub / "dangling").symlink_to("no where\\else\n✓")
    os.symlink(b"\xff", os.fsencode(sub) + b"/bytes")
    os.mknod(sub / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(sub / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    os.mkfifo(sub / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(sub)  # the name of a socket is at most 107 bytes long
        listener.bind("socket")
        os.chdir(here)
    os.link(sub / "suid", sub / "again")
    (sub / "empty").mkdir()
    os.chmod(sub, 0o2755)
    (top / "old").write_text("old")
    os.utime(top / "old", ns=(0, -1))
    (top / "older").write_text("older")
    os.utime(top / "older", ns=(0, -(10**18) - 123456789))
    return top


def test_scan_sees_everything(tree: Path) -> None:
    found = scan.scan(str(tree))
    expected = set()
    for directory, directories, files in os.walk(tree):
        expected |= {os.path.relpath(os.path.join(directory, name), tree) for name in directories + files}
    assert set(found) == expected
    assert list(found) == sorted(found)
    kinds = {
        name: found[f"dir/{name}"].type for name in ("null", "disk", "fifo", "socket", "dangling", "empty", "suid")
    }
    assert kinds == {
        "null": "char", "disk": "block", "fifo": "fifo", "socket": "socket", "dangling": "link", "empty": "dir", "suid": "file",
    }  # fmt: skip
    suid = found["dir/suid"]
    assert (suid.mode, suid.uid, suid.gid, suid.size) == (0o4755, 12345, 54321, 2)
    assert suid.sha256 == hashlib.sha256(b"#!").hexdigest()
    assert found["dir/null"].device == (1, 3)
    assert found["dir/disk"].device == (259, 70000)
    assert found["dir/dangling"].link == "no where\\else\n✓"
    assert found["old"].mtime == -1
    assert found["older"].mtime == -(10**18) - 123456789
    assert found["dir"].mode == 0o2755


def test_scan_sees_hard_links(tmp_path: Path) -> None:
    """The first name by the order of the manifest is the file, wherever the walk met it."""
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    for name in ("b/file", "z"):
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "b/file", tmp_path / "a/one")
    os.link(tmp_path / "b/file", tmp_path / "two")
    os.symlink("nowhere", tmp_path / "b/link")
    os.link(tmp_path / "b/link", tmp_path / "c", follow_symlinks=False)
    os.mkfifo(tmp_path / "fifo")
    os.link(tmp_path / "fifo", tmp_path / "b/fifo")
    found = scan.scan(str(tmp_path))
    assert {path: entry.hardlink for path, entry in found.items() if entry.hardlink} == {
        "b/file": "a/one", "two": "a/one", "c": "b/link", "fifo": "b/fifo",
    }  # fmt: skip
    assert {found[name].sha256 for name in ("a/one", "b/file", "two")} == {hashlib.sha256(b"b/file").hexdigest()}
    # A second name outside of what is scanned, or left out, is none.
    found = scan.scan(str(tmp_path), ["a", "two"])
    assert found["b/file"].hardlink == ""


MODE_ONLY = bytes.fromhex("02000000 01000600ffffffff 04000400ffffffff 20000400ffffffff")
GROUP_ACL = bytes.fromhex(
    "02000000 01000600ffffffff 04000400ffffffff 08000400e8030000 10000400ffffffff 20000400ffffffff"
)


def test_an_acl_that_says_the_mode_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSE file systems hand out what cp -a has set; ext4 makes the mode of it. An image is the same on both."""
    path = tmp_path / "file"
    path.touch()
    for acl, kept in ((MODE_ONLY, ()), (GROUP_ACL, (("system.posix_acl_access", GROUP_ACL),))):
        monkeypatch.setattr(os, "listxattr", lambda *_, **__: ["system.posix_acl_access"])
        monkeypatch.setattr(os, "getxattr", lambda *_, acl=acl, **__: acl)
        assert scan.read_xattrs(str(path)) == kept
    monkeypatch.undo()
    stored = sealed(f"{GOOD} xattr.system.posix_acl_access={b64encode(MODE_ONLY).decode()}")
    assert manifest.load(stored, "origin")["a"].xattrs == ()


def test_scan_sees_xattrs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.setxattr(tmp_path / "file", "user.z", bytes(range(256)))
    os.setxattr(tmp_path / "file", "user.a=b c\n", b"")
    os.setxattr(tmp_path / "directory", "user.d", b"1")
    os.setxattr(tmp_path / "link", "trusted.l", b"2", follow_symlinks=False)
    found = scan.scan(str(tmp_path))
    assert found["file"].xattrs == (("user.a=b c\n", b""), ("user.z", bytes(range(256))))
    assert found["directory"].xattrs == (("user.d", b"1"),)
    assert found["link"].xattrs == (("trusted.l", b"2"),)
    text = manifest.dump(found)
    assert " xattr.user.a\\075b\\040c\\012=" in text
    assert manifest.load(text, "it") == found


def test_scan_sees_holes(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as stream:
        stream.truncate(1 << 20)
        stream.write(b"x" * 5000)
    (tmp_path / "dense").write_bytes(b"x" * (1 << 20))
    (tmp_path / "zero").write_bytes(b"")
    found = scan.scan(str(tmp_path))
    assert {path for path, entry in found.items() if entry.sparse} == {"sparse"}
    assert manifest.load(manifest.dump(found), "it") == found


def test_scan_names_what_is_flagged(tree: Path) -> None:
    flags = {"plain": "+i", "dir": "+a"}
    flagged: list[str] = []
    try:
        for name, flag in flags.items():
            done = subprocess.run(["chattr", flag, str(tree / name)], check=False, capture_output=True)
            if done.returncode:
                pytest.skip("no such flags here")
        with_flags = scan.scan(str(tree), flagged=flagged)
    finally:
        for name, flag in flags.items():
            subprocess.run(["chattr", flag.replace("+", "-"), str(tree / name)], check=False, capture_output=True)
    assert sorted(flagged) == ["dir", "plain"]
    assert with_flags == scan.scan(str(tree))


def deep(top: Path, name: bytes, length: int) -> bytes:
    """Nested directories below top, of that name, made until their relative path has some length; the path."""
    descriptor = os.open(top, os.O_RDONLY)
    path = name
    while True:
        os.mkdir(name, dir_fd=descriptor)
        following = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
        if len(path) + 1 + len(name) > length:
            break
        path += b"/" + name
    for inner, data in ((b"file", b"deep"), (b"other", b"deeper")):
        with open(os.open(inner, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor), "wb") as stream:
            stream.write(data)
    os.symlink("target", "link", dir_fd=descriptor)
    os.close(descriptor)
    return path


@pytest.mark.parametrize("name", [b"d" * 200, b"e" * 9, b"\xff" * 99], ids=["long", "short", "bytes"])
def test_scan_of_paths_longer_than_the_kernel_takes(tmp_path: Path, name: bytes) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    path = os.fsdecode(deep(top, name, 4600))
    try:
        found = scan.scan(str(top))
        assert found[f"{path}/file"].sha256 == hashlib.sha256(b"deep").hexdigest()
        assert found[f"{path}/link"].link == "target"
        assert max(map(len, found)) > 4400
        assert manifest.load(manifest.dump(found), "it") == found
        with descent.reach(str(top), f"{path}/file") as full:
            os.utime(full, ns=(5, 6))
        assert scan.scan(str(top))[f"{path}/file"].mtime == 6
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True)


def test_round_trip(tree: Path) -> None:
    found = scan.scan(str(tree))
    text = manifest.dump(found)
    assert text.isascii()
    lines = text.split("\n")
    assert len(lines) == len(found) + 3, "one line a path"
    whole = "\n".join(lines[:-2]) + "\n"
    assert lines[-2] == f"#end {len(found)} {hashlib.sha256(whole.encode()).hexdigest()}"
    assert manifest.load(text, "it") == found
    assert manifest.dump(manifest.load(text, "it")) == text


def test_dump_is_what_mtree_reads(tree: Path) -> None:
    lines = manifest.dump(scan.scan(str(tree))).split("\n")
    assert lines[0] == "#mtree"
    assert lines[-1] == ""
    old = next(line for line in lines if line.startswith("./old "))
    digest = hashlib.sha256(b"old").hexdigest()
    assert old == f"./old type=file mode=0644 uid=0 gid=0 time=-1.999999999 size=3 sha256digest={digest}"
    assert any(line.startswith("./new\\012line type=file ") for line in lines)
    assert any(line.startswith("./\\377\\376 type=file ") for line in lines)
    assert any(line.startswith("./dir/suid type=file ") and line.endswith(" hardlink=./dir/again") for line in lines)
    assert any(
        line.startswith("./dir/disk type=block ") and line.endswith(" device=native,259,70000") for line in lines
    )


def test_skip_leaves_out_a_path_and_all_below_it(tree: Path) -> None:
    found = scan.scan(str(tree), ["dir", "plain"])
    assert not [path for path in found if path.startswith("dir")]
    assert "plain" not in found
    assert "old" in found


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        scan.scan(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert scan.scan(str(tmp_path / "empty")) == {}
    assert manifest.load(manifest.dump({}), "it") == {}


GOOD = "./a type=file mode=0644 uid=0 gid=0 time=1.000000000 size=3 sha256digest=" + "0" * 64
OTHER = GOOD.replace("./a", "./b")


def sealed(*lines: str, count: int | None = None) -> str:
    """A manifest of these lines with the last one that proves them."""
    text = "".join(f"{line}\n" for line in ("#mtree", *lines))
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{text}#end {len(lines) if count is None else count} {digest}\n"


@pytest.mark.parametrize(
    "line",
    [
        "", "a type=file mode=0644 uid=0 gid=0 time=1.000000000", "./a", GOOD.replace("file", "sock"), GOOD.replace("0644", "0999"),
        GOOD.replace("uid=0", "uid=root"), GOOD.replace("1.000000000", "1.5"), GOOD.replace("1.000000000", "1"),
        GOOD.replace("size=3", "size=big"), GOOD.replace("gid=0 ", ""), GOOD.replace("type=file", "type"),
        GOOD.replace("./a", "./\\777"), "./a type=char mode=0644 uid=0 gid=0 time=1.000000000 device=native,1",
        GOOD.replace("./a", "./ü\\303"), GOOD + " trailing", GOOD + " xattr.user.x=!", GOOD + " xattr.user.x=YQ",
    ],
)  # fmt: skip
def test_load_refuses_with_the_line(line: str) -> None:
    assert manifest.load(sealed(GOOD), "it")
    with pytest.raises(AvsError, match=r"^it, line 3: not a manifest record"):
        manifest.load(sealed(GOOD, line), "it")


DIRECTORY = "./d type=dir mode=0755 uid=0 gid=0 time=1.000000000"
LINK = "./d/l type=link mode=0777 uid=0 gid=0 time=1.000000000 link=/etc"
DEVICE = "./d/n type=char mode=0600 uid=0 gid=0 time=1.000000000 device=native,1,3"


@pytest.mark.parametrize(
    "path",
    [
        "./../../etc/shadow", "./d/../../etc/x", "./..", "./.", "./", ".//etc/x", "./d//x", "./d/.", "./d/./x", "./d/", "./d/\\000x",
        "./d/\\056\\056", "./d/\\056\\056/x", "./d\\057\\056\\056\\057x", "./none/x", "./d/file/x", "./d/l/x", "./\\057etc",
    ],
)  # fmt: skip
def test_load_refuses_a_path_that_is_in_no_tree(path: str) -> None:
    """Whoever may commit does not say by it where root writes: no way up, no way through a link, none without its directory."""
    above = [DIRECTORY, GOOD.replace("./a", "./d/file"), LINK]
    assert len(manifest.load(sealed(*above), "it")) == 3
    with pytest.raises(AvsError, match=r"^it, line 5: (not a path within a tree|the path lies in no directory)"):
        manifest.load(sealed(*above, GOOD.replace("./a", path)), "it")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (GOOD + " hardlink=./none", "the hard link"), (GOOD + " hardlink=./d", "the hard link"), (GOOD + " hardlink=./d/l", "the hard link"),
        (GOOD + " hardlink=./../../etc/shadow", "the hard link"), (GOOD + " hardlink=./a", "the hard link"),
        (GOOD + " hardlink=./d/again", "the hard link"), (DIRECTORY.replace("./d", "./e") + " hardlink=./d", "the hard link"),
        (GOOD + " hardlink=/etc/shadow", "not a manifest record"), (GOOD.replace("0" * 64, "../../../x"), "not a file's size"),
        (GOOD.replace("0" * 64, "0" * 63), "not a file's size"), (GOOD.replace("0" * 64, "0" * 65), "not a file's size"),
        (GOOD.replace("size=3", "size=-3"), "not a file's size"), (LINK.replace("link=/etc", "link="), "not a link's"),
        (LINK.replace("link=/etc", "link=/e\\000"), "not a link's"), (LINK.replace(" link=/etc", ""), "not a link's"),
        (DEVICE.replace("native,1,3", "native,5,1048576"), "not an owner"), (DEVICE.replace("native,1,3", "native,-1,3"), "not an owner"),
        (DEVICE.replace(" device=native,1,3", ""), "not a manifest record"), (GOOD + " device=native,1,3", "not a manifest record"),
        (GOOD.replace("uid=0", "uid=-1"), "not an owner"), (GOOD.replace("gid=0", "gid=4294967295"), "not an owner"),
        (GOOD.replace("0644", "10644"), "not an owner"), (GOOD.replace("0644", "-644"), "not an owner"),
        (GOOD.replace("time=1.", f"time={1 << 63}."), "not an owner"), (GOOD.replace("time=1.", f"time={-(1 << 63) - 1}."), "not an owner"),
        (GOOD.replace(".000000000", ".-00000001"), "not a manifest record"), (GOOD + " xattr.user.\\000=YQ==", "not the name"),
        (DEVICE + " sparse=yes", "what only a file has"), (DIRECTORY.replace("./d", "./e") + " sparse=yes", "what only a file has"),
        (DEVICE + " size=3", "what only a file has"), (LINK + " sha256digest=" + "0" * 64, "what only a file has"),
        (GOOD + " link=/etc", "what only a link has"), (OTHER, "the path is there twice"), (DIRECTORY, "the path is there twice"),
        (LINK.replace("./d/l", "./d"), "the path is there twice"),
    ],
)  # fmt: skip
def test_load_refuses_what_no_path_can_be(line: str, reason: str) -> None:
    """What is read, made or opened on this machine is just what its type has: no device of the machine is, to dig holes into it."""
    line = line.replace("./a ", "./z ").replace("./d/l ", "./d/other ").replace("./d/n ", "./d/null ")
    above = [OTHER, DIRECTORY, GOOD.replace("./a", "./d/again") + " hardlink=./b", LINK]
    assert len(manifest.load(sealed(*above), "it")) == 4
    with pytest.raises(AvsError, match=rf"^it, line 6: {reason}"):
        manifest.load(sealed(*above, line), "it")


@pytest.mark.parametrize("seconds", [(1 << 63) - 1, -(1 << 63), 253402300800])
def test_load_takes_every_time_that_a_file_system_may_give(tmp_path: Path, seconds: int) -> None:
    found = manifest.load(sealed(GOOD.replace("time=1.", f"time={seconds}.")), "it")
    (tmp_path / "a").touch()
    os.utime(tmp_path / "a", ns=(0, found["a"].mtime))


@pytest.mark.parametrize("text", ["", "#mtree", f"#mtree\n{GOOD}", f"{GOOD}\n", "mtree\n", sealed(GOOD)[:-1]])
def test_load_refuses_what_is_cut_off(text: str) -> None:
    with pytest.raises(AvsError, match="it is no whole manifest"):
        manifest.load(text, "it")


DAMAGED = {
    "no last line": f"#mtree\n{GOOD}\n",
    "only the last line gone": sealed(GOOD, OTHER).rsplit("#end", 1)[0],
    "a line gone": sealed(GOOD, OTHER).replace(OTHER + "\n", ""),
    "a line more": sealed(GOOD).replace("#end", OTHER + "\n#end"),
    "lines in another order": sealed(GOOD, OTHER).replace(f"{GOOD}\n{OTHER}", f"{OTHER}\n{GOOD}"),
    "another mode": sealed(GOOD, OTHER).replace("0644", "0645", 1),
    "another count": sealed(GOOD, count=2),
    "something after the end": sealed(GOOD) + OTHER + "\n",
    "two ends": sealed(GOOD) + "#end 1 00\n",
    "the end of another": sealed(GOOD).rsplit("#end", 1)[0] + "#end" + sealed(OTHER).rsplit("#end", 1)[1],
    "an empty end": sealed(GOOD).rsplit("#end", 1)[0] + "#end\n",
    "the first of two glued together": sealed(GOOD) + sealed(OTHER),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_load_refuses_what_the_last_line_does_not_prove(text: str) -> None:
    with pytest.raises(AvsError, match=r"^it is damaged or not whole"):
        manifest.load(text, "it")


def test_load_refuses_every_flipped_bit() -> None:
    """No single bit, wherever it is, goes unseen."""
    text = sealed(GOOD, OTHER)
    for position in range(len(text)):
        for bit in range(7):
            flipped = chr(ord(text[position]) ^ 1 << bit)
            with pytest.raises(AvsError, match=r"^it"):
                manifest.load(text[:position] + flipped + text[position + 1 :], "it")


ENTRY = Entry("a", "file", 0o644, 0, 0, 1_000_000, 3, "0" * 64)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": 0o755}, "mode"), ({"uid": 1}, "uid"), ({"gid": 1}, "gid"), ({"size": 4}, "size"), ({"sha256": "01"}, "sha256"),
        ({"type": "link"}, "type"), ({"link": "x"}, "link"), ({"device": (1, 3)}, "device"), ({"hardlink": "0"}, "hardlink"),
        ({"xattrs": (("user.x", b"1"),)}, "xattrs"),
    ],
)  # fmt: skip
def test_compare_names_what_differs(change: dict[str, object], field: str) -> None:
    other = ENTRY._replace(**change)  # type: ignore[arg-type]
    assert manifest.compare({"a": ENTRY}, {"a": other}) == [f"a: {field}"]


def test_compare() -> None:
    both = ENTRY._replace(mode=0o600, size=5)
    assert manifest.compare({"a": ENTRY, "c": ENTRY}, {"a": both, "b": ENTRY}) == ["a: mode, size", "+b", "-c"]
    assert manifest.compare({}, {}) == []
    later = ENTRY._replace(mtime=2_000_000)
    assert manifest.compare({"a": ENTRY}, {"a": later}) == []
    assert manifest.compare({"a": ENTRY}, {"a": later}, times=True) == ["a: mtime"]
    same_microsecond = ENTRY._replace(mtime=1_000_001)
    assert manifest.compare({"a": ENTRY}, {"a": same_microsecond}, times=True) == ["a: mtime"]
    assert manifest.compare({"a": ENTRY}, {"a": ENTRY._replace(sparse=True)}, times=True) == [], "holes are no content"


def test_tree_size_counts_a_hard_linked_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "d").mkdir()
    os.link(tmp_path / "a", tmp_path / "d/b")
    (tmp_path / "d/c").write_bytes(b"y" * 10)
    (tmp_path / "l").symlink_to("12345")
    os.mkfifo(tmp_path / "f")
    with open(tmp_path / "sparse", "wb") as stream:
        stream.truncate(1 << 40)
    assert scan.tree_size(str(tmp_path)) == 1000 + 10 + 5 + (1 << 40)


def test_other_file_systems_are_not_entered(tmp_path: Path) -> None:
    """/proc is seen as the directory that it is mounted on, with nothing of what is in it."""
    script = (
        f"mkdir -p {tmp_path}/t/m && mount -t tmpfs none {tmp_path}/t/m && head -c 5000 /dev/zero > {tmp_path}/t/m/x && "
        f"$0 -c 'import sys; from xcat_avs.tree import scan; print(scan.tree_size(sys.argv[1]), *scan.scan(sys.argv[1]))' "
        f"{tmp_path}/t"
    )
    top = Path(__file__).resolve().parents[2]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, sys.executable]
    output = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=top).stdout
    assert output.split() == ["0", "m"]


def test_digest(tmp_path: Path) -> None:
    data = os.urandom(3 * scan.CHUNK + 17)
    (tmp_path / "a").write_bytes(data)
    assert scan.digest(str(tmp_path / "a")) == hashlib.sha256(data).hexdigest()
