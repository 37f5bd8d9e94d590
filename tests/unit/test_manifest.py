"""Manifests: what a tree is, written, read, compared, restored."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from xcat_avs import manifest
from xcat_avs.errors import AvsError
from xcat_avs.manifest import Entry

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
    found = manifest.scan(str(tree))
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


def test_round_trip(tree: Path) -> None:
    found = manifest.scan(str(tree))
    text = manifest.dump(found)
    assert text.isascii()
    assert len(text.split("\n")) == len(found) + 2, "one line a path"
    assert manifest.load(text, "it") == found
    assert manifest.dump(manifest.load(text, "it")) == text


def test_dump_is_what_mtree_reads(tree: Path) -> None:
    lines = manifest.dump(manifest.scan(str(tree))).split("\n")
    assert lines[0] == "#mtree"
    assert lines[-1] == ""
    old = next(line for line in lines if line.startswith("./old "))
    digest = hashlib.sha256(b"old").hexdigest()
    assert old == f"./old type=file mode=0644 uid=0 gid=0 time=-1.999999999 size=3 sha256digest={digest}"
    assert any(line.startswith("./new\\012line type=file ") for line in lines)
    assert any(line.startswith("./\\377\\376 type=file ") for line in lines)
    assert any(
        line.startswith("./dir/disk type=block ") and line.endswith(" device=native,259,70000") for line in lines
    )


def test_skip_leaves_out_a_path_and_all_below_it(tree: Path) -> None:
    found = manifest.scan(str(tree), ["dir", "plain"])
    assert not [path for path in found if path.startswith("dir")]
    assert "plain" not in found
    assert "old" in found


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        manifest.scan(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert manifest.scan(str(tmp_path / "empty")) == {}
    assert manifest.load(manifest.dump({}), "it") == {}


GOOD = "./a type=file mode=0644 uid=0 gid=0 time=1.000000000 size=3 sha256digest=00"


@pytest.mark.parametrize(
    "line",
    [
        "", "a type=file mode=0644 uid=0 gid=0 time=1.000000000", "./a", GOOD.replace("file", "sock"), GOOD.replace("0644", "0999"),
        GOOD.replace("uid=0", "uid=root"), GOOD.replace("1.000000000", "1.5"), GOOD.replace("1.000000000", "1"),
        GOOD.replace("size=3", "size=big"), GOOD.replace("gid=0 ", ""), GOOD.replace("type=file", "type"),
        GOOD.replace("./a", "./\\777"), "./a type=char mode=0644 uid=0 gid=0 time=1.000000000 device=native,1",
        GOOD.replace("./a", "./ü\\303"), GOOD + " trailing",
    ],
)  # fmt: skip
def test_load_refuses_with_the_line(line: str) -> None:
    assert manifest.load(f"#mtree\n{GOOD}\n", "it")
    with pytest.raises(AvsError, match=r"^it, line 3: not a manifest record"):
        manifest.load(f"#mtree\n{GOOD}\n{line}\n", "it")


@pytest.mark.parametrize("text", ["", "#mtree", f"#mtree\n{GOOD}", f"{GOOD}\n", "mtree\n"])
def test_load_refuses_what_is_cut_off(text: str) -> None:
    with pytest.raises(AvsError, match="it is no whole manifest"):
        manifest.load(text, "it")


ENTRY = Entry("a", "file", 0o644, 0, 0, 1_000_000, 3, "00")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mode": 0o755}, "mode"), ({"uid": 1}, "uid"), ({"gid": 1}, "gid"), ({"size": 4}, "size"), ({"sha256": "01"}, "sha256"),
        ({"type": "link"}, "type"), ({"link": "x"}, "link"), ({"device": (1, 3)}, "device"),
    ],
)  # fmt: skip
def test_compare_names_what_differs(change: dict[str, object], field: str) -> None:
    other = replace(ENTRY, **change)  # type: ignore[arg-type]
    assert manifest.compare({"a": ENTRY}, {"a": other}) == [f"a: {field}"]


def test_compare() -> None:
    both = replace(ENTRY, mode=0o600, size=5)
    assert manifest.compare({"a": ENTRY, "c": ENTRY}, {"a": both, "b": ENTRY}) == ["a: mode, size", "+b", "-c"]
    assert manifest.compare({}, {}) == []
    later = replace(ENTRY, mtime=2_000_000)
    assert manifest.compare({"a": ENTRY}, {"a": later}) == []
    assert manifest.compare({"a": ENTRY}, {"a": later}, times=True) == ["a: mtime"]
    same_microsecond = replace(ENTRY, mtime=1_000_999)
    assert manifest.compare({"a": ENTRY}, {"a": same_microsecond}, times=True) == []


def test_restore_times(tree: Path) -> None:
    before = manifest.scan(str(tree))
    subprocess.run(["find", str(tree), "-exec", "touch", "-h", "{}", "+"], check=True)
    (tree / "plain").write_bytes(b"changed")
    os.utime(tree / "plain", ns=(5, 5))
    present = manifest.scan(str(tree))
    assert all(present[path].mtime != before[path].mtime for path in before)
    manifest.restore_times(str(tree), before, present)
    after = manifest.scan(str(tree))
    assert after["plain"].mtime == 5, "its content is another: the time is its own"
    assert {path for path in before if after[path].mtime != before[path].mtime} == {"plain"}
    assert {path: replace(entry, mtime=0) for path, entry in after.items()} == {
        path: replace(entry, mtime=0) for path, entry in present.items()
    }


def test_restore_times_of_links_and_directories_does_not_follow(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("x")
    os.utime(outside, ns=(7, 7))
    top = tmp_path / "top"
    (top / "d").mkdir(parents=True)
    (top / "d/link").symlink_to(outside)
    before = manifest.scan(str(top))
    wanted = {path: replace(entry, mtime=42) for path, entry in before.items()}
    manifest.restore_times(str(top), wanted)
    assert outside.stat().st_mtime_ns == 7
    assert {path: entry.mtime for path, entry in manifest.scan(str(top)).items()} == {"d": 42, "d/link": 42}


def test_tree_size_counts_a_hard_linked_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    (tmp_path / "d").mkdir()
    os.link(tmp_path / "a", tmp_path / "d/b")
    (tmp_path / "d/c").write_bytes(b"y" * 10)
    (tmp_path / "l").symlink_to("12345")
    os.mkfifo(tmp_path / "f")
    with open(tmp_path / "sparse", "wb") as stream:
        stream.truncate(1 << 40)
    assert manifest.tree_size(str(tmp_path)) == 1000 + 10 + 5 + (1 << 40)


def test_other_file_systems_are_not_entered(tmp_path: Path) -> None:
    """/proc is seen as the directory that it is mounted on, with nothing of what is in it."""
    script = (
        f"mkdir -p {tmp_path}/t/m && mount -t tmpfs none {tmp_path}/t/m && head -c 5000 /dev/zero > {tmp_path}/t/m/x && "
        f"$0 -c 'import sys; from xcat_avs import manifest; print(manifest.tree_size(sys.argv[1]), *manifest.scan(sys.argv[1]))' "
        f"{tmp_path}/t"
    )
    top = Path(__file__).resolve().parents[2]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, sys.executable]
    output = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=top).stdout
    assert output.split() == ["0", "m"]


def test_digest(tmp_path: Path) -> None:
    data = os.urandom(3 * manifest.CHUNK + 17)
    (tmp_path / "a").write_bytes(data)
    assert manifest.digest(str(tmp_path / "a")) == hashlib.sha256(data).hexdigest()
