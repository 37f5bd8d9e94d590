"""The node's postscript avsaddons, under the shells that nodes have, on sets as packing makes them."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.pack import addon_archives
from xcat_avs.system.runner import Runner
from xcat_avs.tree import delta

SCRIPT = Path(__file__).resolve().parents[2] / "share/xcat/avs/avsaddons"
FACTS = {"AVS_OSIMAGE": "test", "AVS_SOURCE": "prod", "AVS_TAG": "t1", "AVS_REVISION": "3"}
BASE_PASSWD = "root:x:0:0:root:/root:/bin/bash\nbin:x:1:1::/:/sbin/nologin\n"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="not root"),
    pytest.mark.skipif(shutil.which("cpio") is None, reason="not installed: cpio"),
]


@pytest.fixture(params=["dash", "busybox sh"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = str(request.param).split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"not installed: {words[0]}")
    return words


class Node:
    """A root with what an image has, a tag's tree with add-ons, and the set that is packed of it."""

    def __init__(self, top: Path, shell: list[str]) -> None:
        self.shell, self.top = shell, top
        self.root, self.tree, self.set = top / "node root", top / "tree", top / "set"
        for top_of in (self.root, self.tree / "rootimg"):
            (top_of / "etc").mkdir(parents=True)
            (top_of / "etc/passwd").write_text(BASE_PASSWD)
            (top_of / "etc/group").write_text("root:x:0:\nwheel:x:10:anna\n")
        (self.root / "etc/avs-release").write_text("AVS_OSIMAGE='test'\nAVS_SOURCE='prod'\nAVS_TAG='t1'\n")
        (top / "tmp").mkdir()

    def addon(self, name: str, files: Mapping[str, str], *removed: str) -> Path:
        """Give the tag an add-on; returns its tree."""
        root = self.tree / "addons" / name / "rootimg"
        root.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root.parent / "removed").write_text(delta.dump(removed))
        return root

    def pack(self) -> Path:
        shutil.rmtree(self.set, ignore_errors=True)
        self.set.mkdir()
        copy = self.top / "disposable"
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.tree), str(copy)], check=True)
        addon_archives.write(copy, self.tree / "rootimg", self.set, FACTS, Runner(self.top / "log"))
        return self.set / "addons"

    def run(
        self, *names: str, code: int = 0, path: str = "", site: Mapping[str, str] | None = None, **environment: str
    ) -> str:
        env = {"PATH": path or os.environ["PATH"], "AVS_ADDONS_ROOT": str(self.root), "TMPDIR": str(self.top / "tmp"),
               "AVS_ADDONS_URL": f"file://{self.set}/addons", **environment, **(site or {})}  # fmt: skip
        done = subprocess.run(
            [*self.shell, str(SCRIPT), *names], env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert os.listdir(self.top / "tmp") == [], "it left something behind"
        assert not (self.root / addon_archives.LISTS).exists()
        return done.stdout + done.stderr

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def look(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(self.root)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in self.root.rglob("*")
        }


@pytest.fixture
def node(tmp_path: Path, shell: list[str]) -> Node:
    return Node(tmp_path, shell)


def test_files_modes_links_and_removals(node: Node) -> None:
    root = node.addon(
        "one",
        {"usr/bin/tool": "#!/bin/sh\n", "usr/share/with space/ż": "x", "etc/motd": "new\n"},
        "opt/gone",
        "a b\nc",
        "x/*",
    )
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/tool2")
    (root / "usr/bin/link").symlink_to("tool")
    os.chown(root / "etc/motd", 1234, 4321)
    os.utime(root / "etc/motd", (1000, 1000))
    for name in ("opt/gone/deep", "opt/kept", "a b\nc", "x/y"):
        (node.root / name).parent.mkdir(parents=True, exist_ok=True)
        (node.root / name).write_text("x")
    (node.root / "etc/motd").write_text("old\n")
    node.pack()
    assert "one is put in place" in node.run("one")
    assert stat.S_IMODE((node.root / "usr/bin/tool").stat().st_mode) == 0o4755
    assert (node.root / "usr/bin/tool").stat().st_ino == (node.root / "usr/bin/tool2").stat().st_ino
    assert os.readlink(node.root / "usr/bin/link") == "tool"
    status = (node.root / "etc/motd").stat()
    assert (status.st_uid, status.st_gid, status.st_mtime) == (1234, 4321, 1000)
    assert not (node.root / "opt/gone").exists()
    assert not (node.root / "a b\nc").exists()
    assert (node.root / "opt/kept").exists()
    assert (node.root / "x/y").exists(), "a star in a name is no pattern"


def test_a_list_that_is_damaged(node: Node) -> None:
    (node.addon("one", {"etc/motd": "new"}).parent / "removed").write_bytes(b"opt/\xff\n")
    with pytest.raises(AvsError, match="add-on one: its list of removed paths is damaged"):
        node.pack()


def test_twice_is_once(node: Node) -> None:
    node.addon("one", {"etc/motd": "new\n"})
    node.pack()
    node.run("one")
    (node.root / "etc/motd").write_text("changed on the node\n")
    assert "one is there already" in node.run("one")
    assert node.read("etc/motd") == "changed on the node\n"
    node.addon("one", {"etc/motd": "newer\n"})
    node.pack()
    assert "one is put in place" in node.run("one")
    assert node.read("etc/motd") == "newer\n"


def test_several(node: Node) -> None:
    for name in ("one", "two", "three-3"):
        node.addon(name, {f"etc/{name}": name})
    node.pack()
    node.run("one,two", "three-3")
    assert sorted(os.listdir(node.root / "var/lib/avs-addons")) == ["one", "three-3", "two"]
    assert node.read("etc/two") == "two"


def test_a_wrong_checksum_changes_nothing(node: Node) -> None:
    node.addon("one", {"etc/motd": "new\n"}, "etc/passwd")
    archive = node.pack() / "one.cpio.gz"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    before = node.look()
    said = node.run("one", code=1)
    assert "does not have the checksum" in said
    assert node.look() == before


@pytest.mark.parametrize("name", ["../one", "a/b", "", ".", ".one", "one.cpio", "*", "o ne", "-x"])
def test_no_name(node: Node, name: str) -> None:
    node.addon("one", {"etc/motd": "new\n"})
    node.pack()
    before = node.look()
    said = node.run(name, code=0 if name == "" else 1)
    assert "Error" in said or name == ""
    assert node.look() == before


def test_an_unknown_one(node: Node) -> None:
    node.addon("one", {"etc/motd": "new\n"})
    node.pack()
    assert "no add-on two" in (said := node.run("two", code=1))
    assert "there is: one" in said


def test_no_set(node: Node) -> None:
    assert "SHA256SUMS" in node.run("one", code=1)
    assert "AVS_ADDONS_URL" in node.run("one", code=1, AVS_ADDONS_URL="", AVS_CMDLINE="/dev/null")
    assert "which add-ons" in node.run(code=1)


def test_another_tag(node: Node) -> None:
    node.addon("one", {"etc/motd": "new\n"})
    node.pack()
    (node.root / "etc/avs-release").write_text("AVS_SOURCE='prod'\nAVS_TAG='t0'\n")
    before = node.look()
    assert "is for AVS_TAG t1, and this node runs t0" in node.run("one", code=1)
    assert node.look() == before
    (node.root / "etc/avs-release").unlink()
    node.run("one")


def test_accounts_of_the_node_stay(node: Node) -> None:
    added = {
        "etc/passwd": BASE_PASSWD + "mongod:x:998:998::/:/sbin/nologin\n",
        "etc/group": "root:x:0:\nwheel:x:10:anna,mongod\nmongod:x:998:\n",
    }
    node.addon("one", added)
    node.addon(
        "two",
        {
            "etc/passwd": BASE_PASSWD + "qemu:x:107:107::/:/sbin/nologin\n",
            "etc/group": "root:x:0:\nwheel:x:10:anna\nqemu:x:107:mongod\n",
        },
    )
    node.pack()
    (node.root / "etc/passwd").write_text(BASE_PASSWD.replace("root:x", "root:changed"))
    (node.root / "etc/passwd").chmod(0o600)
    node.run("one,two")
    assert node.read("etc/passwd").splitlines() == [
        "root:changed:0:0:root:/root:/bin/bash", "bin:x:1:1::/:/sbin/nologin", "mongod:x:998:998::/:/sbin/nologin",
        "qemu:x:107:107::/:/sbin/nologin",
    ]  # fmt: skip
    assert node.read("etc/group") == "root:x:0:\nwheel:x:10:anna,mongod\nmongod:x:998:\nqemu:x:107:mongod\n"


def test_accounts_as_in_the_base_are_taken_whole(node: Node) -> None:
    node.addon("one", {"etc/passwd": "root:x:0:0:other:/root:/bin/zsh\n"})
    node.pack()
    node.run("one")
    assert node.read("etc/passwd") == "root:x:0:0:other:/root:/bin/zsh\n"


def test_extended_attributes(node: Node) -> None:
    if shutil.which("setfattr") is None or shutil.which("setcap") is None:
        pytest.skip("not installed: setfattr or setcap")
    root = node.addon("one", {"usr/bin/ping": "x", "usr/bin/note me": "y", "usr/bin/empty": "z"})
    subprocess.run(["setcap", "cap_net_raw,cap_checkpoint_restore=ep", str(root / "usr/bin/ping")], check=True)
    os.setxattr(root / "usr/bin/note me", "user.a note", b"\0\xff'\n")
    os.setxattr(root / "usr/bin/empty", "user.nothing", b"")
    os.setxattr(root / "usr", "user.dir", b"d")
    node.pack()
    node.run("one")
    for path in ("usr/bin/ping", "usr/bin/note me", "usr/bin/empty", "usr"):
        names = os.listxattr(root / path)
        assert names == os.listxattr(node.root / path) != []
        assert [os.getxattr(root / path, name) for name in names] == [
            os.getxattr(node.root / path, name) for name in names
        ]


NEEDED = ("awk", "bash", "busybox", "cat", "cmp", "cp", "cpio", "curl", "dash", "depmod", "grep", "gzip", "mkdir", "mktemp",
          "rm", "sed", "setcap", "setfattr", "sha256sum", "sh", "tr", "wget")  # fmt: skip


def programs(directory: Path, *without: str) -> str:
    """A PATH with what it needs, but for some."""
    directory.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        if name not in without and found is not None:
            (directory / name).symlink_to(found)
    return str(directory)


def test_capabilities_without_setfattr(node: Node) -> None:
    if shutil.which("setcap") is None:
        pytest.skip("not installed: setcap")
    root = node.addon("one", {"usr/bin/ping": "x", "usr/bin/noted": "y"})
    subprocess.run(["setcap", "cap_net_raw=ep cap_sys_admin=ei", str(root / "usr/bin/ping")], check=True)
    os.setxattr(root / "usr/bin/noted", "user.a", b"b")
    node.pack()
    said = node.run("one", path=programs(node.top / "bin", "setfattr"))
    assert os.getxattr(node.root / "usr/bin/ping", "security.capability") == os.getxattr(
        root / "usr/bin/ping", "security.capability"
    )
    assert "1 extended attributes" in said


def test_missing_programs(node: Node) -> None:
    if node.shell[0] == "busybox":
        pytest.skip("it has them all")
    node.addon("one", {"etc/motd": "new\n"})
    node.pack()
    assert "cpio is not in the image" in node.run("one", code=1, path=programs(node.top / "bin", "cpio"))
    said = node.run(
        "one", code=1, path=programs(node.top / "bin2", "curl", "wget"), AVS_ADDONS_URL="http://127.0.0.1:1/x"
    )
    assert "neither curl nor wget" in said


def test_modules(node: Node) -> None:
    if shutil.which("depmod") is None or node.shell[0] == "busybox":
        pytest.skip("needs the depmod of kmod")
    node.addon(
        "one",
        {"lib/modules/5.14.0-1.el9.x86_64/extra/x.ko": "", "etc/systemd/system/multi-user.target.wants/x.service": ""},
    )
    node.pack()
    node.run("one")
    assert list(node.root.glob("lib/modules/5.14.0-1.el9.x86_64/modules.dep")) != []


def test_mounts_are_not_reached_into(node: Node) -> None:
    """Runs where something is mounted below what is to be removed, in a mount namespace of its own."""
    node.addon("one", {"etc/motd": "new\n"}, "opt/app")
    node.addon("two", {"etc/motd": "new\n"}, "opt/app/sub/x")
    node.pack()
    (node.root / "opt/app/sub").mkdir(parents=True)
    (node.root / "opt/app/sub/x").write_text("x")
    shared = node.top / "shared"
    shared.mkdir()
    (shared / "x").write_text("of everybody\n")
    before = node.look()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    node.shell = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        str(shared),
        str(node.root / "opt/app/sub"),
        *node.shell,
    ]
    assert "something is mounted at /opt/app/sub" in node.run("one", code=1)
    assert "lies in what is mounted at /opt/app/sub" in node.run("two", code=1)
    assert (shared / "x").exists()
    assert node.look() == before


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    (tmp_path / "www").mkdir()
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize("program", ["curl", "wget"])
def test_as_a_postscript_over_http(node: Node, server: http.server.ThreadingHTTPServer, program: str) -> None:
    if shutil.which(program) is None and node.shell[0] != "busybox":
        pytest.skip(f"not installed: {program}")
    node.addon("one", {"etc/motd": "new\n"})
    served = node.top / "www/install/netboot/rocky9.4/x86_64/compute"
    served.parent.mkdir(parents=True)
    shutil.move(str(node.pack().parent), str(served))
    port = str(server.server_address[1])
    site = {"AVS_ADDONS_URL": "", "AVS_CMDLINE": "/dev/null", "MASTER": "127.0.0.1", "HTTPPORT": port, "INSTALLDIR": "/install",
            "OSVER": "rocky9.4", "ARCH": "x86_64", "PROFILE": "compute"}  # fmt: skip
    path = programs(node.top / "bin", "wget" if program == "curl" else "curl")
    assert "Error" in node.run("one", code=1, path=path, site={**site, "PROFILE": "other"})
    assert "one is put in place" in node.run("one", path=path, site=site)
    # What is served by now is of another tag; the set of the tag that runs here is still beside it.
    os.rename(served, served.with_name("compute.t1"))
    shutil.rmtree(node.root / "var")
    assert "one is put in place" in node.run("one", path=path, site=site)
    # The image came from somewhere else than from its usual place.
    (served.parents[3] / "own").mkdir()
    os.rename(served.with_name("compute.t1"), served.parents[3] / "own/place")
    (node.top / "cmdline").write_text(
        f"quiet imgurl=http://127.0.0.1:{port}//install/own/place/rootimg.cpio.gz XCAT=127.0.0.1:3001\n"
    )
    shutil.rmtree(node.root / "var")
    assert "one is put in place" in node.run("one", path=path, site={**site, "AVS_CMDLINE": str(node.top / "cmdline")})


def test_the_same_tag_gives_the_same_bytes(tmp_path: Path) -> None:
    node = Node(tmp_path, ["dash"])
    node.addon("one", {f"etc/{number}": "x" * number for number in range(50)}, "gone")
    first = (node.pack() / "one.cpio.gz").read_bytes()
    assert (node.pack() / "one.cpio.gz").read_bytes() == first
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=node.set / "addons", capture_output=True, text=True, check=False
    )
    assert done.stdout == "one.cpio.gz: OK\n"


def test_capability_texts() -> None:
    ping = bytes.fromhex("0100000200200000000000000000000000000000")
    assert addon_archives.capabilities(ping) == "13=ep"
    both = bytes.fromhex("0000000200000000000020000100000000000000")
    assert addon_archives.capabilities(both) == "21=i 32=p"
