"""What a page has of a version beside what it says itself."""

from __future__ import annotations

from xcat_avs.store import survey
from xcat_avs.tree import packages
from xcat_avs.tree.manifest import Entry
from xcat_avs.tree.packages import Package, PackageList

STATUS = """Package: bash
Status: install ok installed
Installed-Size: 7164
Architecture: amd64
Version: 5.2.15-2+b2

Package: gone
Status: deinstall ok config-files
Installed-Size: 12
Architecture: all
Version: 1

Package: odd
Status: install ok installed
Installed-Size: many
Architecture: all
Version: 1
"""


def manifest(**sizes: int) -> dict[str, Entry]:
    found = {}
    for name, size in sizes.items():
        path = name.replace("__", "/")
        found[path] = Entry(path, "file", 0o644, 0, 0, 1, size)
    return found


def test_sizes_of_directories_are_those_of_all_in_them_and_a_file_counts_once() -> None:
    found = manifest(rootimg__usr__lib__a=5, rootimg__usr__b=2, rootimg__c=1, kernel=100, build_info__report=9)
    found["rootimg/d"] = found["rootimg/usr/b"]._replace(path="rootimg/d", hardlink="rootimg/usr/b")
    assert survey.directories(found) == {"/": 8, "/usr": 7, "/usr/lib": 5}
    assert survey.directories({}) == {}


def test_privileges_are_those_of_files() -> None:
    found = manifest(rootimg__su=1, rootimg__plain=1)
    found["rootimg/su"] = found["rootimg/su"]._replace(mode=0o4755)
    found["rootimg/dir"] = Entry("rootimg/dir", "dir", 0o2755, 0, 0, 1)
    assert survey.privileges(found) == [("/su", "setuid 0")]


def test_changes_of_packages_are_rows() -> None:
    old = PackageList(
        "rpm",
        [Package("a", 0, "1", "1", "noarch"), Package("b", 0, "1", "1", "x86_64"), Package("c", 0, "2", "1", "x86_64")],
    )
    new = PackageList(
        "rpm",
        [Package("a", 0, "2", "1", "noarch"), Package("c", 0, "1", "1", "x86_64"), Package("d", 1, "1", "1", "x86_64")],
    )
    assert survey.changed(old, new) == [
        ("a.noarch", "1-1", "2-1", "upgraded"),
        ("b.x86_64", "1-1", "", "removed"),
        ("c.x86_64", "2-1", "1-1", "downgraded"),
        ("d.x86_64", "", "1:1-1", "added"),
    ]


def test_sizes_of_packages() -> None:
    assert packages.status_sizes(STATUS) == {("bash", "amd64"): 7164 << 10, ("odd", "all"): 0}
