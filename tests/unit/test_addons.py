"""Add-ons: what is said of their packages; the parts that need no mounts. See integration/test_addons.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xcat_avs import report
from xcat_avs.build import addons, tables
from xcat_avs.build.markers import AddonResult
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import lent
from xcat_avs.tree.packages import Package, PackageList


def test_package_changes() -> None:
    before = PackageList(
        "rpm",
        [
            Package("kept", 0, "1", "1", "x86_64"),
            Package("old", 0, "1", "1", "noarch"),
            Package("up", 1, "1", "1", "x86_64"),
        ],
    )
    after = PackageList(
        "rpm",
        [
            Package("kept", 0, "1", "1", "x86_64"),
            Package("new", 0, "3", "1", "noarch"),
            Package("up", 1, "2", "1", "x86_64"),
        ],
    )
    assert addons.package_changes(before, after) == (
        "#packages rpm\n+\tnew\t0\t3\t1\tnoarch\n-\told\t0\t1\t1\tnoarch\n-\tup\t1\t1\t1\tx86_64\n+\tup\t1\t2\t1\tx86_64\n"
    )
    assert addons.package_changes(after, after) == "#packages rpm\n"


def test_table() -> None:
    results = [AddonResult("kvm", "x", 12.4, 30, 1, 150 * 2**20, 4321, 7, "", "", "")]
    lines = report.render(tables.addon_table(results, "deb")).splitlines()
    assert lines[1].split() == ["ADD-ON", "NAME", "TIME", "+/-", "PKGS", "SIZE", "PATHS", "REMOVED"]
    assert lines[2].split() == ["kvm", "12s", "+30", "-1", "150M", "4321", "7"]
    steps = report.render(tables.step_table([], "deb")).splitlines()
    assert lines[1].index("TIME") == steps[1].index("TIME"), "it stands below the table of the steps"


def image(osvers: str, **attributes: str) -> OsImage:
    return OsImage(f"{osvers}-x86_64-netboot-compute", attributes, "a test")


def test_a_lent_repository_of_rpms(tmp_path: Path) -> None:
    plain = image("rocky9.4", otherpkgdir="/one")
    with lent.repository(plain, tmp_path, "") as same:
        assert same is plain
    with lent.repository(plain, tmp_path, "https://example.com/el9") as found:
        assert found.attributes["otherpkgdir"] == "/one,https://example.com/el9"
    with pytest.raises(AvsError, match="run createrepo_c"), lent.repository(plain, tmp_path, str(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("https://example.com/apt stable main", "deb https://example.com/apt stable main"),
        ("https://example.com/apt", "deb https://example.com/apt bookworm main"),
        ("https://example.com/flat ./", "deb https://example.com/flat ./"),
        (
            "deb [signed-by=/usr/share/keyrings/k.gpg] https://example.com x y",
            "deb [signed-by=/usr/share/keyrings/k.gpg] https://example.com x y",
        ),
    ],
)
def test_a_lent_repository_of_debs(tmp_path: Path, where: str, line: str) -> None:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    debian = image("debian12")
    with lent.repository(debian, tmp_path, where) as found:
        assert found is debian
        assert (tmp_path / lent.LIST).read_text() == line + "\n"
    assert os.listdir(tmp_path / "etc/apt/sources.list.d") == []
    with pytest.raises(KeyError), lent.repository(debian, tmp_path, where):
        raise KeyError
    assert os.listdir(tmp_path / "etc/apt/sources.list.d") == []
