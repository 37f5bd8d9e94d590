"""The procedures that remove and tidy stay in the image, wherever its links lead, and do nothing where there is nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xcat_avs.build.context import BuildContext
from xcat_avs.definitions.osimage import OsImage

from .test_procedures import shipped

FILES = ("x", "doc/x", "man1/x.1", "de/x", "locale/de/x", "Europe/Berlin", "UTC", "Etc/UTC", "zone.tab", "charmaps/x", "pw_dict.pwd",
         "cracklib_dict.pwd", "status", "status-old", "rpmdb.sqlite", "info/x.list", "python3", "python3.11/os.py", "passwd-",
         "issue.rpmnew", "cron.daily", "random-seed", "libsoftokn3.chk", "machine-id", "a.service", "pwquality.conf")  # fmt: skip
TOPS = ("usr", "usr/share", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/i18n",
        "usr/share/zoneinfo", "usr/share/cracklib", "usr/lib", "usr/lib/locale", "usr/lib/modules", "usr/bin", "var", "var/lib",
        "var/lib/dpkg", "var/lib/rpm", "var/spool/anacron", "var/cache", "etc", "etc/dpkg", "etc/rpm", "etc/security", "lib")  # fmt: skip
PROCEDURES: dict[str, dict[str, Any]] = {
    "remove_doc": {"keep": ()},
    "remove_man_pages": {"keep": ()},
    "remove_info": {},
    "remove_i18n": {"keep": ()},
    "remove_locales": {},
    "remove_zoneinfo": {"keep": ()},
    "remove_cracklib": {},
    "remove_python": {"how": "files"},
    "remove_package_database": {},
    "report_setuid": {},
    "cleanup": {"leftovers": True, "nss_checks": True},
}


@pytest.mark.parametrize("osvers", ["rocky9.4", "debian12"])
@pytest.mark.parametrize("link", TOPS)
def test_links_of_the_image_do_not_lead_to_the_host(ctx: BuildContext, host: Path, osvers: str, link: str) -> None:
    for file in FILES:
        (host / file).parent.mkdir(parents=True, exist_ok=True)
        (host / file).write_text("precious")
    before = {path: path.read_text() for path in host.rglob("*") if path.is_file()}
    if link == "etc":
        (ctx.root / "etc").rmdir()
    (ctx.root / link).parent.mkdir(parents=True, exist_ok=True)
    (ctx.root / link).symlink_to(host)
    ctx.paths.logs.mkdir()
    ctx.log.touch()
    for name, options in PROCEDURES.items():
        shipped(replace(ctx, image=OsImage(f"{osvers}-x86_64-netboot-p", {})), name, **options)
        assert {path: path.read_text() for path in host.rglob("*") if path.is_file()} == before, name


@pytest.mark.parametrize("name", [*PROCEDURES, "check_kernel_symbols", "disable_services", "enable_services"])
@pytest.mark.parametrize("osvers", ["rocky9.4", "sles15.5", "ubuntu22.04"])
def test_an_image_with_nothing_to_do(ctx: BuildContext, osvers: str, name: str) -> None:
    ctx.paths.logs.mkdir()
    ctx.log.touch()
    shipped(replace(ctx, image=OsImage(f"{osvers}-x86_64-netboot-p", {})), name, **PROCEDURES.get(name, {}))
    found = {str(path.relative_to(ctx.root)) for path in ctx.root.rglob("*") if path.is_file()}
    assert found <= {
        "etc/rpm/macros.avs-excludedocs",
        "etc/rpm/macros.image-language-conf",
        f"etc/dpkg/dpkg.cfg.d/avs-{name}",
    }


def test_database_that_rpm_cannot_read_is_not_removed(ctx: BuildContext) -> None:
    database = ctx.root / "var/lib/rpm/Packages"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"not a database")
    ctx.log.touch()
    with pytest.raises(Exception, match="rpm"):
        shipped(replace(ctx, image=OsImage("centos6.10-x86_64-netboot-p", {})), "remove_package_database")
    assert database.read_bytes() == b"not a database"


def test_times_and_empty_files_are_left_as_they_are(ctx: BuildContext) -> None:
    """Nothing is written to a file that is empty already."""
    for name in ("var/log/x", "var/spool/anacron/cron.daily", "etc/machine-id"):
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).touch()
        os.utime(ctx.root / name, (1000, 1000))
    shipped(ctx, "cleanup")
    assert {path.stat().st_mtime for path in ctx.root.rglob("*") if path.is_file()} == {1000}
