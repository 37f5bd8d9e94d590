"""The shipped procedures, on images whose links lead out of them as well."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xcat_avs.build.context import BuildContext, perform
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.recipes.procedure import Layer, load

from .conftest import untouched

SHIPPED = Path(__file__).resolve().parents[2] / "xcat_avs/procedures/common"


def shipped(ctx: BuildContext, name: str, **options: Any) -> None:
    found = load(SHIPPED / f"{name}.py", Layer("shipped", SHIPPED, trusted=True))
    defaults = {option.name: option.default for option in found.options.values()}
    perform(replace(ctx, procedure=found, options={**defaults, **options}))


@pytest.mark.parametrize(
    "link",
    [
        "var/log",
        "var/cache",
        "var/cache/apt",
        "var/lib",
        "tmp",
        "var/tmp",
        "etc/ssh",
        "var/lib/dbus",
        "var/lib/apt/lists",
    ],
)
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_cleanup_stays_in_the_image(ctx: BuildContext, host: Path, tmp_path: Path, link: str, absolute: bool) -> None:
    """A node's /var/log may be a link to another disk; on the host that is some other directory."""
    for name in (
        "apt/lists/x",
        "apt/x",
        "tmp/x",
        "log/x",
        "lists/x",
        "dbus/machine-id",
        "systemd/random-seed",
        "ssh_host_rsa_key",
        "x",
    ):
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text("precious")
    before = {path: path.read_text() for path in host.rglob("*") if path.is_file()}
    path = ctx.root / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(host if absolute else os.path.relpath(host, path.parent))
    shipped(ctx, "cleanup")
    assert {path: path.read_text() for path in host.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("link", ["var", "etc", "var/lib"])
def test_cleanup_stays_in_the_image_where_a_whole_directory_is_a_link(ctx: BuildContext, host: Path, link: str) -> None:
    for name in ("log/x", "tmp/x", "cache/apt/x", "lib/apt/lists/x", "lib/systemd/random-seed", "machine-id", "ssh/ssh_host_rsa_key",
                 "apt/lists/x", "systemd/random-seed"):  # fmt: skip
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text("precious")
    before = {path: path.read_text() for path in host.rglob("*") if path.is_file()}
    if link == "etc":
        (ctx.root / "etc").rmdir()
    (ctx.root / link).parent.mkdir(parents=True, exist_ok=True)
    (ctx.root / link).symlink_to(host)
    shipped(ctx, "cleanup")
    assert {path: path.read_text() for path in host.rglob("*") if path.is_file()} == before


def test_cleanup(ctx: BuildContext) -> None:
    gone = ("var/cache/apt/pkgcache.bin", "var/lib/apt/lists/x_Packages", "tmp/a/b", "var/tmp/x", "etc/ssh/ssh_host_rsa_key",
            "etc/ssh/ssh_host_rsa_key.pub", "var/lib/systemd/random-seed", "var/cache/debconf/config.dat-old")  # fmt: skip
    emptied = ("var/log/dpkg.log", "var/log/apt/term.log", "etc/machine-id")
    kept = ("etc/ssh/sshd_config", "var/cache/debconf/config.dat", "etc/passwd")
    for name in (*gone, *emptied, *kept):
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).write_text("x")
    os.chown(ctx.root / "var/log/dpkg.log", 1, 2)
    (ctx.root / "tmp").chmod(0o1777)
    shipped(ctx, "cleanup")
    assert [name for name in gone if os.path.lexists(ctx.root / name)] == []
    assert [(ctx.root / name).read_text() for name in emptied] == ["", "", ""]
    assert [(ctx.root / name).read_text() for name in kept] == ["x", "x", "x"]
    assert (ctx.root / "var/log/dpkg.log").stat().st_uid == 1
    assert stat.S_IMODE((ctx.root / "tmp").stat().st_mode) == 0o1777


def test_cleanup_can_be_told_to_keep(ctx: BuildContext) -> None:
    for name in ("var/cache/apt/x", "tmp/x", "var/log/x", "etc/machine-id", "etc/ssh/ssh_host_rsa_key"):
        (ctx.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ctx.root / name).write_text("x")
    shipped(ctx, "cleanup", caches=(), temporary=(), logs=False, identity=False)
    assert all(path.read_text() == "x" for path in ctx.root.rglob("*") if path.is_file())


@pytest.mark.parametrize("target", ["/export/home", "var/home", "HOST/new", "/does/not/exist"])
def test_build_prep_with_a_home_elsewhere(ctx: BuildContext, host: Path, target: str) -> None:
    """Many sites have /home as a link to where it is mounted; that is a /home."""
    (ctx.root / "home").symlink_to(target.replace("HOST", str(host)))
    shipped(ctx, "build_prep")
    assert (ctx.root / "home").is_symlink()
    assert untouched(host)
    assert not (host / "new").exists()


def test_build_prep(ctx: BuildContext) -> None:
    files = ctx.installdir / "custom/avs/files"
    files.mkdir(parents=True)
    (files / "hosts").write_text("127.0.0.1 localhost\n")
    (files / "other").write_text("x")
    shipped(ctx, "build_prep")
    assert (ctx.root / "etc/hosts").read_text() == "127.0.0.1 localhost\n"
    assert not (ctx.root / "etc/other").exists()
    assert (ctx.root / "home").is_dir()


@pytest.mark.parametrize("target", ["HOST", "../../../../HOST"])
def test_setup_yum_repos_stays_in_the_image(ctx: BuildContext, host: Path, target: str) -> None:
    """Newer distributions have /etc/yum.repos.d as a link; the repositories of the host are its own."""
    (host / "host.repo").write_text("precious")
    (ctx.root / "etc/yum.repos.d").symlink_to(target.replace("HOST", str(host)))
    repos = ctx.installdir / "custom/avs/files/yum.repos.d"
    repos.mkdir(parents=True)
    (repos / "site.repo").write_text("[site]\n")
    shipped(replace(ctx, image=OsImage("rocky9.4-x86_64-netboot-p", {})), "setup_yum_repos")
    assert (host / "host.repo").exists()
    assert sorted(os.listdir(host)) == ["host.repo", "precious", "sub"]


@pytest.mark.parametrize("keep", [True, False])
def test_setup_yum_repos(ctx: BuildContext, keep: bool) -> None:
    directory = ctx.root / "etc/yum.repos.d"
    directory.mkdir()
    (directory / "rocky.repo").touch()
    (directory / "README").touch()
    ctx = replace(ctx, image=OsImage("rocky9.4-x86_64-netboot-p", {}))
    shipped(ctx, "setup_yum_repos", keep=keep)
    assert sorted(os.listdir(directory)) == ["README", "rocky.repo"], "the site has none: nothing is removed"
    repos = ctx.installdir / "custom/avs/files/yum.repos.d"
    repos.mkdir(parents=True)
    (repos / "site.repo").write_text("[site]\n")
    shipped(ctx, "setup_yum_repos", keep=keep)
    assert sorted(os.listdir(directory)) == ["README", *(["rocky.repo"] if keep else []), "site.repo"]


def test_setup_yum_repos_of_an_image_of_debs(ctx: BuildContext) -> None:
    shipped(ctx, "setup_yum_repos")
    assert "debian12 has no yum repositories" in ctx.log.read_text()
