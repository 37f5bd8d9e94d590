"""What differs between two versions, computed from manifests and from what Subversion says."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from xcat_avs.diff import differences
from xcat_avs.diff.differences import AttributeChange, FileChange, InputChange, PrivilegeChange
from xcat_avs.tree import inside, rights
from xcat_avs.tree.manifest import Entry, Manifest

CAP_NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


def entry(path: str, type: str = "file", mode: int = 0o644, **more: object) -> Entry:
    made = Entry(path, type, mode, 0, 0, 10**18, size=1 if type == "file" else 0, sha256="a" if type == "file" else "")
    return made._replace(**more)  # type: ignore[arg-type]


def manifest(*entries: Entry) -> Manifest:
    return {item.path: item for item in entries}


def facts(old: Entry, new: Entry) -> tuple[str, ...]:
    found = differences.of_manifests(manifest(old), manifest(new)).files
    return found[0].facts if found else ()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, ()),
        ({"mtime": 5}, ()),
        ({"size": 2, "sha256": "b"}, ("content",)),
        ({"sha256": "b"}, ("content",)),
        ({"mode": 0o600}, ("mode",)),
        ({"uid": 5}, ("owner",)),
        ({"uid": 5, "gid": 5}, ("owner",)),
        ({"mode": 0o600, "gid": 5, "sha256": "b", "mtime": 5}, ("mode", "owner", "content")),
        ({"type": "link", "link": "x", "mode": 0o777, "size": 0, "sha256": ""}, ("type",)),
        ({"hardlink": "rootimg/first"}, ("hard link",)),
        ({"xattrs": (("user.x", b"1"),)}, ("xattrs",)),
        ({"xattrs": (("security.capability", CAP_NET_RAW),)}, ("capabilities",)),
        ({"xattrs": (("security.capability", CAP_NET_RAW), ("user.x", b""))}, ("capabilities", "xattrs")),
    ],
)
def test_facts_of_a_changed_file(change: dict[str, object], wanted: tuple[str, ...]) -> None:
    old = entry("rootimg/etc/x")
    assert facts(old, old._replace(**change)) == wanted  # type: ignore[arg-type]
    assert facts(old._replace(**change), old) == wanted  # type: ignore[arg-type]


def test_links_and_devices() -> None:
    assert facts(entry("a", "link", link="x"), entry("a", "link", link="y")) == ("link",)
    assert facts(entry("a", "char", device=(1, 3)), entry("a", "char", device=(1, 5))) == ("device",)


def test_files_are_called_as_the_image_calls_them() -> None:
    old = manifest(entry("kernel"), entry("rootimg", "dir"), entry("rootimg/etc", "dir"), entry("rootimg/etc/gone"))
    new = manifest(
        entry("addons/x/f"), entry("kernel", sha256="b"), entry("rootimg", "dir", 0o755), entry("rootimg/etc", "dir"),
        entry("rootimg/etc/fresh"),
    )  # fmt: skip
    found = differences.of_manifests(old, new)
    assert [(item.change, item.path) for item in found.files] == [
        ("added", "addons/x/f"), ("changed", "kernel"), ("changed", "/"), ("added", "/etc/fresh"), ("removed", "/etc/gone"),
    ]  # fmt: skip
    assert (found.files[0].old, found.files[0].new) == (None, new["addons/x/f"])
    assert not found.identical
    assert differences.of_manifests(new, new).identical


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/passwd", "kernel", "build_info/inputs/recipe.conf", "addons/a/b", "/etc/b @ü x"]
)
def test_names_go_both_ways(path: str) -> None:
    assert inside.shown(inside.stored(path)) == path


def test_a_path_cannot_leave_the_image() -> None:
    assert inside.stored("/../../kernel") == "rootimg/kernel"
    assert inside.stored("../v2/kernel") == "v2/kernel"
    assert inside.stored("//etc//passwd/") == "rootimg/etc/passwd"


def test_privileges() -> None:
    old = manifest(
        entry("rootimg/both", mode=0o4755), entry("rootimg/cap"), entry("rootimg/dir", "dir", 0o2755), entry("rootimg/gone", mode=0o4755),
        entry("rootimg/handed", mode=0o4755), entry("rootimg/same", mode=0o6755), entry("rootimg/tmp", "dir", 0o1777),
    )  # fmt: skip
    new = manifest(
        entry("rootimg/both", mode=0o2755, gid=42), entry("rootimg/cap", xattrs=(("security.capability", CAP_NET_RAW),)),
        entry("rootimg/dir", "dir", 0o755), entry("rootimg/fresh", mode=0o4755), entry("rootimg/handed", mode=0o4755, uid=7),
        entry("rootimg/same", mode=0o6755, sha256="b"), entry("rootimg/tmp", "dir", 0o777),
    )  # fmt: skip
    assert differences.of_manifests(old, new).privileges == [
        PrivilegeChange("/both", "setuid 0", "setgid 42"),
        PrivilegeChange("/cap", "", "cap_net_raw=ep"),
        PrivilegeChange("/fresh", "", "setuid 0"),
        PrivilegeChange("/gone", "setuid 0", ""),
        PrivilegeChange("/handed", "setuid 0", "setuid 7"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "cap_net_raw=ep",
        "cap_chown,cap_checkpoint_restore=ep",
        "cap_net_admin,cap_net_raw=p",
        "cap_sys_admin=ip",
        "cap_kill=eip",
    ],
)
def test_capabilities_are_named_as_by_getcap(tmp_path: Path, text: str) -> None:
    """What setcap writes."""
    path = tmp_path / "program"
    path.write_bytes(b"#!")
    try:
        subprocess.run(["setcap", text, str(path)], check=True, capture_output=True)
        said = subprocess.run(["getcap", str(path)], check=True, capture_output=True, text=True).stdout
        value = os.getxattr(path, "security.capability")
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"no file capabilities here: {err}")
    found = rights.capabilities(value)
    assert found == said.removeprefix(str(path)).strip()


def test_capabilities_of_a_user_namespace_and_of_nonsense() -> None:
    assert rights.capabilities(struct.pack("<6I", 0x03000000, 1 << 13, 0, 0, 0, 1000)) == "cap_net_raw=p [rootid=1000]"
    assert rights.capabilities(struct.pack("<5I", 0x02000001, 0, 0, 1 << 30, 0)) == "62=ep"
    for value in (
        b"",
        b"x",
        b"\1\2\3\4\5",
        struct.pack("<3I", 0x02000001, 1, 1),
        struct.pack("<5I", 9 << 24, 1, 1, 1, 1),
    ):
        assert rights.capabilities(value) == f"capabilities {value.hex()}"


def test_kernels() -> None:
    old = manifest(
        entry("rootimg/lib/modules", "dir"), entry("rootimg/lib/modules/6.1.0-25-amd64", "dir"),
        entry("rootimg/lib/modules/6.1.0-25-amd64/x.ko"), entry("rootimg/boot/vmlinuz-6.1.0-25-amd64"),
        entry("rootimg/boot/vmlinuz-0-rescue-0123456789abcdef"),
    )  # fmt: skip
    new = manifest(entry("rootimg/usr/lib/modules/6.1.0-26-amd64", "dir"), entry("rootimg/boot/vmlinuz-6.5"))
    assert differences.of_manifests(old, new).kernels == (["6.1.0-25-amd64"], ["6.1.0-26-amd64", "6.5"])


def test_sizes_count_a_hard_linked_file_once_and_no_build_info() -> None:
    old = manifest(
        entry("build_info/inputs/recipe.conf", size=99), entry("kernel", size=10), entry("rootimg/boot/x", size=5),
        entry("rootimg/init", size=3), entry("rootimg/usr/a", size=7),
    )  # fmt: skip
    new = manifest(
        entry("kernel", size=11), entry("rootimg/usr/a", size=7), entry("rootimg/usr/b", size=7, hardlink="rootimg/usr/a"),
        entry("rootimg/usr/lib", "dir"),
    )  # fmt: skip
    assert differences.of_manifests(old, new).sizes == {
        "/": (3, 0),
        "/boot": (5, 0),
        "/usr": (7, 7),
        "kernel": (10, 11),
    }


def test_inputs_are_no_files_of_the_image() -> None:
    old = manifest(
        entry("build_info/inputs", "dir"), entry("build_info/inputs/files", "dir"),
        entry("build_info/inputs/files/install/a.pkglist"), entry("build_info/inputs/osimage.stanza"),
        entry("build_info/inputs/procedures/common/cleanup.py"), entry("build_info/inputs/recipe.conf"), entry("build_info/report"),
    )  # fmt: skip
    new = manifest(
        entry("build_info/inputs", "dir"), entry("build_info/inputs/files", "dir"), entry("build_info/inputs/files/install", "dir"),
        entry("build_info/inputs/files/install/a.exlist"), entry("build_info/inputs/osimage.stanza", sha256="b"),
        entry("build_info/inputs/procedures/common/cleanup.py", sha256="b"),
        entry("build_info/inputs/recipe.conf", sha256="b"), entry("build_info/report", sha256="b"), entry("build_info/more"),
    )  # fmt: skip
    found = differences.of_manifests(old, new)
    assert found.files == []
    assert found.inputs == [
        InputChange("file", "/install/a.exlist", "added"),
        InputChange("file", "/install/a.pkglist", "removed"),
        InputChange("procedure", "common/cleanup.py", "changed"),
        InputChange("recipe", "recipe.conf", "changed"),
    ]


def test_attributes() -> None:
    old, new = {"a": "1", "b": "2", "gone": ""}, {"a": "1", "b": "3", "fresh": "x"}
    assert differences.attributes(old, new) == [
        AttributeChange("b", "2", "3"), AttributeChange("fresh", None, "x"), AttributeChange("gone", "", None),
    ]  # fmt: skip


def test_matching() -> None:
    old = manifest(
        entry("kernel"), entry("rootimg/etc/a/b", mode=0o4755), entry("rootimg/etc/x"), entry("rootimg/usr/x")
    )
    found = differences.of_manifests(old, {})
    for pattern, wanted in {
        "*": ["kernel", "/etc/a/b", "/etc/x", "/usr/x"], "/etc/*": ["/etc/a/b", "/etc/x"], "*/x": ["/etc/x", "/usr/x"],
        "k?rnel": ["kernel"], "/etc": [], "/ETC/*": [],
    }.items():  # fmt: skip
        assert [item.path for item in differences.matching(found, pattern).files] == wanted
    assert len(differences.matching(found, "/etc/*").privileges) == 1
    assert differences.matching(found, "/usr/*").privileges == []


def test_of_a_summary() -> None:
    """Without manifests there are paths and words only, directories among them."""
    listed = [
        ("build_info", "properties"), ("build_info/inputs", "added"), ("build_info/inputs/files", "added"),
        ("build_info/inputs/files/a", "added"), ("build_info/manifest", "added"), ("kernel", "changed"), ("rootimg", "properties"),
        ("rootimg/boot/vmlinuz-5", "removed"), ("rootimg/boot/vmlinuz-6", "added"), ("rootimg/lib/modules/5", "removed"),
    ]  # fmt: skip
    found = differences.of_summary(listed)
    assert found.files == [
        FileChange("kernel", "changed", ("content",)), FileChange("/", "changed", ("properties",)),
        FileChange("/boot/vmlinuz-5", "removed"), FileChange("/boot/vmlinuz-6", "added"), FileChange("/lib/modules/5", "removed"),
    ]  # fmt: skip
    assert found.inputs == [InputChange("file", "/a", "added")]
    assert found.kernels == (["5"], ["6"])
    assert found.sizes is None
    assert found.privileges == ()
