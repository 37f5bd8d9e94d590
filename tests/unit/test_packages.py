"""Lists of packages: read from real databases, written, loaded, compared as dpkg and rpm compare."""

from __future__ import annotations

import itertools
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import rpmrepo

from xcat_avs.errors import AvsError
from xcat_avs.tree import packages
from xcat_avs.tree.packages import Package, PackageList

STATUS = """Package: libc6
Status: install ok installed
Multi-Arch: same
Architecture: amd64
Version: 2.36-9+deb12u8
Description: a library
 Version: 9 of the text
 .
 Status: install ok installed

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9+deb12u8

Package: base-files
Status: hold ok installed
Architecture: amd64
Version: 12.4+deb12u8

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1-1

Package: half
Status: install ok half-configured
Architecture: amd64
Version: 1-1

Package: vim
Status: install ok installed
Architecture: amd64
Version: 2:9.0-1-2
"""
DEBS = [
    Package("base-files", 0, "12.4+deb12u8", "", "amd64"),
    Package("libc6", 0, "2.36", "9+deb12u8", "amd64"),
    Package("libc6", 0, "2.36", "9+deb12u8", "i386"),
    Package("vim", 2, "9.0-1", "2", "amd64"),
]
# Each is compared with each: numbers, letters, what parts them, tilde, caret, zeros, lengths, nothing.
VERSIONS = (
    "", "0", "00", "1", "01", "1.0", "1.00", "1.", "1..0", "1-0", "1_0", "10", "1.1", "1.10", "1.9", "1a", "1.a", "a", "a1",
    "a01", "A", "aa", "1.0a", "1.0.a", "1.0b", "1.0rc1", "1.0~", "1.0~~", "1.0~rc1", "1.0~rc1^git", "1.0~rc2", "1.0~a.1", "~",
    "~1", "1~", "1~~a", "1^", "1^^", "1^a", "1^1", "1.0^", "1.0^git1", "1.0^git1~pre", "1.0^20210501", "1.0.1", "1.0.1^",
    "1.0+dfsg", "1.0+deb12u1", "1.0+deb12u10", "1.0+deb12u2", "1.0+b1", "2.36", "2.036", "20240101", "5.14.0", "5.14.0-427",
    "427.el9_4", "427.13.1.el9_4", "427.el9", "el9.427", "1:2", "999999999999999999999", "0xff", "1z", "1.z", "z.1", "1+", "1-",
)  # fmt: skip


def sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def test_rpm_order_is_that_of_rpm() -> None:
    # What rpm takes for a whole version: what can be no epoch and no release.
    valid = [text for text in VERSIONS if text and not set(text) & set(":-")]
    pairs = list(itertools.product(valid, repeat=2))
    words = ", ".join(f'"{text}"' for text in valid)
    loops = "for _, a in ipairs(v) do for _, b in ipairs(v) do r[#r + 1] = rpm.vercmp(a, b) end end"
    script = f'%{{lua: v = {{{words}}} r = {{}} {loops} print(table.concat(r, " "))}}'
    answer = subprocess.run(["rpm", "--eval", script], capture_output=True, text=True, check=True).stdout
    wanted = dict(zip(pairs, map(int, answer.split())))
    assert len(wanted) == len(valid) ** 2 > 3000
    assert {-1, 0, 1} == set(wanted.values())
    found = {(one, other): sign(packages.rpm_key(one), packages.rpm_key(other)) for one, other in pairs}
    assert {pair: number for pair, number in found.items() if number != wanted[pair]} == {}


def test_deb_order_is_that_of_dpkg() -> None:
    """Asked for neighbours in our order, and for some that are far apart."""
    # What dpkg takes for an upstream version: a digit first, no caret, colon or underscore.
    valid = [text for text in VERSIONS if text[:1].isdigit() and not set(text) & set("^:_") and not text.endswith("-")]
    assert len(valid) > 40
    ordered = sorted(valid, key=packages.deb_key)
    pairs = list(zip(ordered, ordered[1:])) + list(zip(valid, valid[5:]))
    for one, other in pairs:
        # With the revision -1 a dash of the text is one of the upstream version.
        lower = subprocess.run(["dpkg", "--compare-versions", f"{one}-1", "lt", f"{other}-1"], check=False).returncode
        equal = subprocess.run(["dpkg", "--compare-versions", f"{one}-1", "eq", f"{other}-1"], check=False).returncode
        assert {lower, equal} <= {0, 1}
        wanted = 0 if equal == 0 else -1 if lower == 0 else 1
        assert sign(packages.deb_key(one), packages.deb_key(other)) == wanted, (one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1.0-0"), ("1:1", "2"), ("1-1", "1-1+b1"), ("1-1~bpo1", "1-1"), ("0:1-1", "1-1")]
)
def test_whole_deb_versions(one: str, other: str) -> None:
    def order(text: str) -> tuple[object, ...]:
        (package,) = packages.parse_status(f"Package: p\nStatus: a b installed\nVersion: {text}\nArchitecture: all\n")
        return package.epoch, packages.deb_key(package.version), packages.deb_key(package.release)

    relation = {-1: "lt", 0: "eq", 1: "gt"}[sign(order(one), order(other))]
    assert subprocess.run(["dpkg", "--compare-versions", one, relation, other], check=False).returncode == 0


def test_read_debs(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / packages.DPKG_STATUS).write_text(STATUS)
    found = packages.read(tmp_path)
    assert (found.kind, found) == ("deb", DEBS)
    assert [item.full_version for item in found] == ["12.4+deb12u8", "2.36-9+deb12u8", "2.36-9+deb12u8", "2:9.0-1-2"]


def test_links_of_the_image_lead_to_no_database_of_this_machine(tmp_path: Path) -> None:
    host, root = tmp_path / "host", tmp_path / "root"
    for top in (host, root / "var/lib"):
        top.mkdir(parents=True)
    (host / "status").write_text(STATUS)
    (host / "Packages").write_text("of this machine")
    (root / "var/lib/dpkg").symlink_to(host)
    (root / "var/lib/rpm").symlink_to(host)
    assert packages.read(root) == PackageList("none")
    (root / str(host).lstrip("/")).mkdir(parents=True)
    (root / str(host).lstrip("/") / "status").write_text(STATUS.partition("\n\n")[0])
    assert [package.name for package in packages.read(root)] == ["libc6"]
    subprocess.run(["rm", "-r", str(root / "var")], check=True)
    (root / "var").symlink_to("/var")
    assert packages.read(root).kind == "none", "a circle in the image, and a directory of this machine"


def test_read_the_debs_of_this_machine() -> None:
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    wanted = [tuple(line.split()[1:]) for line in listed.splitlines() if line.startswith("installed ")]
    found = packages.read(Path("/"))
    assert sorted((item.name, item.full_version, item.arch) for item in found) == sorted(wanted)


def test_read_without_a_database(tmp_path: Path) -> None:
    found = packages.read(tmp_path)
    assert (found.kind, found) == ("none", [])


@pytest.mark.slow
@pytest.mark.parametrize("directory", packages.RPM_DATABASES)
def test_read_rpms(tmp_path: Path, directory: str) -> None:
    """Of a root that holds nothing but the database."""
    made = [rpmrepo.Package("one", version="1.0~rc1"), rpmrepo.Package("two", tags="Epoch: 3\nBuildArch: noarch")]
    rpms = sorted(map(str, rpmrepo.build_repo(tmp_path / "made", made).glob("*.rpm")))
    database = tmp_path / "root" / directory
    database.mkdir(parents=True)
    subprocess.run(["rpm", "--dbpath", str(database), "--justdb", "--nodeps", "-i", *rpms], check=True)
    found = packages.read(tmp_path / "root")
    assert found.kind == "rpm"
    assert len(found) == len(rpms) == packages.count_packages(tmp_path / "root")
    assert rpm("one", "1.0~rc1", "1.el9") in found
    assert rpm("two", "1.0", "1.el9", "noarch", 3) in found
    sizes = packages.rpm_sizes(tmp_path / "root")
    assert sizes.keys() == {(item.name, item.arch) for item in found}
    assert packages.rpm_sizes(tmp_path) == {}, "there is no database"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rpmdb.sqlite", b"junk"),
        ("Packages", b"junk"),
        # The first page of a hash of Berkeley DB that ends there; rpm says so and ends with 0.
        ("Packages", bytes(12) + struct.pack("<3I", 0x061561, 9, 4096) + b"\0\x08" + bytes(4070)),
        ("Packages.db", b"junk"),
    ],
)
def test_an_rpm_database_that_cannot_be_read(tmp_path: Path, name: str, data: bytes) -> None:
    database = tmp_path / "var/lib/rpm"
    database.mkdir(parents=True)
    (database / name).write_bytes(data)
    with pytest.raises(AvsError, match="rpm"):
        packages.read(tmp_path)
    found, problem = packages.examine(tmp_path)
    assert (found.kind, found) == ("none", [])
    assert "rpm" in problem


def test_what_is_wrong_with_a_database(tmp_path: Path) -> None:
    assert "no package database (/var/lib/dpkg/status, " in packages.examine(tmp_path)[1]
    (tmp_path / "root/.rpmdb").mkdir(parents=True)
    assert "in /root/.rpmdb" in packages.examine(tmp_path)[1]
    (tmp_path / "root/.rpmdb").rmdir()
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / packages.DPKG_STATUS).write_text("")
    assert "holds no package" in packages.examine(tmp_path)[1]
    (tmp_path / packages.DPKG_STATUS).write_text(STATUS)
    assert packages.examine(tmp_path) == (DEBS, "")


def test_dump_and_load() -> None:
    text = packages.dump(PackageList("deb", reversed(DEBS)))
    assert text.split("\n")[:3] == [
        "#packages deb",
        "base-files\t0\t12.4+deb12u8\t\tamd64",
        "libc6\t0\t2.36\t9+deb12u8\tamd64",
    ]
    loaded = packages.load(text, "x")
    assert (loaded.kind, loaded) == ("deb", DEBS)
    for kind in packages.KINDS:
        assert packages.load(packages.dump(PackageList(kind)), "x").kind == kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "x is no whole list"),
        ("#packages deb", "x is no whole list"),
        ("#packages ipk\n", "x is no whole list"),
        ("packages deb\n", "x is no whole list"),
        ("#packages none\na\t0\t1\t1\tall\n", "x is no whole list"),
        ("#packages deb\na\t0\t1\t1\tall", "x is no whole list"),
        ("#packages deb\na\t0\t1\t1\n", "x, line 2"),
        ("#packages deb\na\t0\t1\t1\tall\tmore\n", "x, line 2"),
        ("#packages deb\na\t\t1\t1\tall\n", "x, line 2"),
        ("#packages deb\na\t-1\t1\t1\tall\n", "x, line 2"),
        ("#packages deb\na\t01\t1\t1\tall\n", "x, line 2"),
        ("#packages deb\n\t0\t1\t1\tall\n", "x, line 2"),
        ("#packages deb\nb\t0\t1\t1\tall\na\t0\t1\t1\tall\n", "x, line 3"),
        ("#packages deb\n\na\t0\t1\t1\tall\n", "x, line 2"),
    ],
)
def test_load_is_strict(text: str, words: str) -> None:
    with pytest.raises(AvsError, match=words):
        packages.load(text, "x")


def rpm(name: str, version: str, release: str = "1", arch: str = "x86_64", epoch: int = 0) -> Package:
    return Package(name, epoch, version, release, arch)


def test_compare() -> None:
    old = [
        rpm("same", "1"), rpm("up", "1.9"), rpm("down", "2"), rpm("gone", "1"), rpm("rebuilt", "1", "9"),
        rpm("epoch", "9"), rpm("pre", "1.0~rc1"), rpm("multi", "1", arch="x86_64"), rpm("multi", "1", arch="i686"),
    ]  # fmt: skip
    new = [
        rpm("same", "1"), rpm("up", "1.10"), rpm("down", "1"), rpm("fresh", "1"), rpm("rebuilt", "1", "10"),
        rpm("epoch", "1", epoch=1), rpm("pre", "1.0"), rpm("multi", "2", arch="x86_64"), rpm("multi", "1", arch="i686"),
    ]  # fmt: skip
    found = packages.compare(old, new, "rpm")
    assert found.added == (rpm("fresh", "1"),)
    assert found.removed == (rpm("gone", "1"),)
    assert [(one.name, one.arch) for one, _ in found.upgraded] == [
        ("epoch", "x86_64"), ("multi", "x86_64"), ("pre", "x86_64"), ("rebuilt", "x86_64"), ("up", "x86_64"),
    ]  # fmt: skip
    assert found.downgraded == ((rpm("down", "2"), rpm("down", "1")),)
    back = packages.compare(new, old, "rpm")
    assert [new.name for _, new in back.upgraded] == ["down"]
    assert packages.compare(old, list(reversed(old)), "rpm") == ((), (), (), ())


def test_several_versions_of_one_package_are_apart() -> None:
    old = [rpm("kernel", "5.14.0", "70"), rpm("kernel", "5.14.0", "284")]
    new = [rpm("kernel", "5.14.0", "284"), rpm("kernel", "5.14.0", "427")]
    found = packages.compare(old, new, "rpm")
    assert (found.added, found.removed) == ((new[1],), (old[0],))
    assert (found.upgraded, found.downgraded) == ((), ())
    assert packages.compare(old[:1], new, "rpm").added == tuple(new)


def test_another_way_to_write_the_same_version_is_no_upgrade() -> None:
    found = packages.compare([rpm("p", "1.0")], [rpm("p", "1.00")], "rpm")
    assert found == ((rpm("p", "1.00"),), (rpm("p", "1.0"),), (), ())


def test_kinds_compare_differently() -> None:
    """For dpkg letters come before all other signs; rpm takes the dot for no sign at all, and a number for newer than a letter."""
    old, new = [Package("p", 0, "1.0", "1", "all")], [Package("p", 0, "1a", "1", "all")]
    assert packages.compare(old, new, "deb").downgraded
    assert packages.compare(old, new, "rpm").downgraded
    old, new = [Package("p", 0, "1.0", "1", "all")], [Package("p", 0, "1.0.0", "1", "all")]
    assert packages.compare(old, new, "deb").upgraded
    old, new = [Package("p", 0, "1", "", "all")], [Package("p", 0, "1^x", "", "all")]
    assert packages.compare(old, new, "rpm").upgraded
    assert packages.compare([Package("p", 0, "1", "b", "all")], [Package("p", 0, "1", "1", "all")], "rpm").upgraded
    assert packages.compare([Package("p", 0, "1", "b", "all")], [Package("p", 0, "1", "1", "all")], "deb").downgraded
