"""create --from: an existing tree is taken as it is, and left as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from integration.harness import ADDED, PROFILE, Installation, copy, difference, look, output, served_set, unpack_cpio

pytestmark = pytest.mark.slow

# Runs the rest of its arguments where $SOURCE is mounted at $POINT, in a mount namespace of its own.
WITH_MOUNT = 'mount --bind "$SOURCE" "$POINT" && exec "$@"'


def with_mount(what: Path, point: Path) -> list[str]:
    return ["unshare", "--mount", "env", f"SOURCE={what}", f"POINT={point}", "sh", "-c", WITH_MOUNT, "sh"]


def plain_recipe(installation: Installation) -> None:
    installation.recipe("prepare_image_directory", "generate_image")


def test_directory_is_left_as_it_was(installation: Installation, source: Path) -> None:
    for name in ("log/messages", "cache/dnf/x/y", "tmp/left"):
        path = source / "rootimg/var" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("to be cleaned up\n")
    (source / "rootimg/etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    installation.site_file("files/hosts", "127.0.0.1 localhost\n")
    before = look(source)
    installation.create(source, "-f")
    installation.create(source, "-b")
    assert difference(before, look(source)) == {}
    # The steps did work, on the copy.
    assert (installation.tree() / "rootimg/var/log/messages").read_bytes() == b""
    assert (installation.tree() / "rootimg/etc/hosts").read_text() == "127.0.0.1 localhost\n"


def test_tree_to_tag_to_checkout(installation: Installation, source: Path, tmp_path: Path) -> None:
    plain_recipe(installation)
    installation.create(source)
    assert difference(look(source / "rootimg"), look(installation.tree() / "rootimg")) == {}
    installation.run("tag", PROFILE, "-t", "t1")
    installation.checkout(tmp_path / "out", "t1")
    assert difference(look(source, skip=["build_info"]), look(tmp_path / "out", skip=["build_info"])).keys() <= {"."}


@pytest.mark.parametrize(("method", "compress"), [("cpio", "gzip"), ("tar", "zstd"), ("squashfs", "gzip")])
def test_node_gets_the_tree(
    installation: Installation, source: Path, tmp_path: Path, method: str, compress: str
) -> None:
    """What a node unpacks is what was built, in every form; the same tag gives the same bytes again."""
    programs = {"squashfs": "unsquashfs", "tar": "tar", "cpio": "cpio"}
    for program in (programs[method], "zstd" if compress == "zstd" else "gzip"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    form = ["--method", method, "--compress", compress]
    installation.run("pack", PROFILE, "-t", "t1", *form)
    served = served_set(installation.served())
    target = tmp_path / "node"
    archive = next(installation.served().glob("rootimg.*"))
    if method == "squashfs":
        output(["unsquashfs", "-q", "-n", "-d", str(target), str(archive)])
    elif method == "tar":
        target.mkdir()
        output(["tar", "--zstd", "-xf", str(archive), "-C", str(target), "--numeric-owner", "-p"])
    else:
        unpack_cpio(archive, target)
    tree = look(installation.tree() / "rootimg", times=False)
    assert difference(tree, look(target, times=False)).keys() <= ADDED

    installation.run("pack", PROFILE, "-t", "t1", "--force", *form)
    again = served_set(installation.served())
    for facts in (served, again):
        del facts["avs.json"], facts["directory"]  # says when; a set of its own
    assert served == again
    assert sorted(again) == ["initrd-stateless.gz", "kernel", archive.name]


def test_xattrs_acls_and_hard_links_are_in_the_build(installation: Installation, source: Path) -> None:
    root = source / "rootimg"
    for program in ("setfattr", "getfattr", "setfacl", "getfacl", "setcap"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    output(["setfattr", "-n", "user.note", "-v", "kept", str(root / "etc/passwd")])
    output(["setfacl", "-m", "u:61234:r", str(root / "etc/os-release")])
    output(["setfacl", "-d", "-m", "g:61235:rwx", str(root / "empty")])
    output(["setcap", "cap_net_raw+ep", str(root / "usr/bin/wall")])
    os.link(root / "usr/bin/su", root / "usr/bin/su.hard")
    with open(root / "usr/share/sparse", "wb") as stream:
        stream.truncate(64_000_000)
    installation.create(source)

    built = installation.tree() / "rootimg"

    def attributes(top: Path) -> str:
        found = subprocess.run(
            ["getfattr", "-R", "-h", "-d", "-m", "-", "."], cwd=top, check=True, capture_output=True, timeout=60
        )
        return "\n\n".join(sorted(found.stdout.decode("utf-8", "surrogateescape").split("\n\n")))

    assert attributes(built) == attributes(root)
    assert "user.note" in attributes(built)
    assert "security.capability" in attributes(built)
    assert (built / "usr/bin/su").stat().st_ino == (built / "usr/bin/su.hard").stat().st_ino
    assert (built / "usr/share/sparse").stat().st_blocks < 1000, "a sparse file was blown up"


def test_archives_and_old_build_info_stay_behind(installation: Installation, source: Path) -> None:
    for name in ("rootimg.gz", "rootimg.cpio.gz", "rootimg.sfs"):
        (source / name).write_bytes(b"an old archive")
    (source / "build_info").mkdir()
    (source / "build_info/manifest").write_text("of another image\n")
    (source / "initrd-statelite.gz").write_bytes(b"another initrd\n")
    plain_recipe(installation)
    installation.create(source)
    names = sorted(path.name for path in installation.tree().iterdir())
    assert names == ["build_info", "initrd-stateless.gz", "initrd-statelite.gz", "kernel", "rootimg"]


def test_without_rootimg(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    result = installation.create(tmp_path / "plain", code=1)
    assert f"there is no directory {tmp_path}/plain/rootimg" in result.error
    assert "rootimgdir" in result.error
    assert "no directory" in installation.create(tmp_path / "missing", code=1).error
    assert not installation.repository.exists()


def test_relative_directory(installation: Installation, source: Path) -> None:
    shutil.move(str(source), installation.top / "below")
    installation.run("create", PROFILE, "--from", "below")
    assert (installation.tree() / "kernel").read_bytes() == b"kernel of the source\n"


@pytest.mark.parametrize("name", ["rootimg/home", "rootimg/usr/share/with space", "rootimg/Łódź 日本", "extra"])
def test_mount_below_it_is_named(installation: Installation, source: Path, tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "not of the image").write_text("x")
    point = source / name
    point.mkdir(parents=True, exist_ok=True)
    result = installation.run("create", PROFILE, "--from", str(source), code=1, prefix=with_mount(other, point))
    assert str(point) in result.error
    assert "mount" in result.error
    assert not (installation.tree() / name / "not of the image").exists()
    assert "Stored as revision" in installation.create(source).stdout


def test_mount_of_another_name_elsewhere_does_no_harm(installation: Installation, source: Path, tmp_path: Path) -> None:
    """A memory stick with any label may be plugged into the machine."""
    other = tmp_path / "other"
    (tmp_path / "Łódź 日本").mkdir()
    other.mkdir()
    prefix = with_mount(other, tmp_path / "Łódź 日本")
    installation.run("create", PROFILE, "--from", str(source), prefix=prefix)
    installation.run("create", PROFILE, "--from", str(source), prefix=prefix)


def test_directory_that_is_itself_a_mount(installation: Installation, source: Path, tmp_path: Path) -> None:
    point = tmp_path / "mounted"
    point.mkdir()
    plain_recipe(installation)
    installation.run("create", PROFILE, "--from", str(point), prefix=with_mount(source, point))
    assert difference(look(source / "rootimg"), look(installation.tree() / "rootimg")) == {}


# -- never out of DIR


def test_rootimg_that_is_a_link_is_not_worked_on(installation: Installation, source: Path, tmp_path: Path) -> None:
    """What the link leads to is not ours: no step may write through it."""
    elsewhere = tmp_path / "elsewhere"
    shutil.move(str(source / "rootimg"), elsewhere)
    (elsewhere / "var/log/messages").write_text("a day's work\n")
    (source / "rootimg").symlink_to(elsewhere)
    installation.site_file("files/hosts", "127.0.0.1 localhost\n")
    before = look(elsewhere)
    result = installation.create(source, code=None)
    assert difference(before, look(elsewhere)) == {}
    if result.code == 0:
        assert not (installation.tree() / "rootimg").is_symlink()
    else:
        assert "rootimg" in result.error


def test_kernel_that_is_a_link_leads_nowhere_else(installation: Installation, source: Path, tmp_path: Path) -> None:
    """A file of the machine never becomes a served file because a link in DIR names it."""
    secret = tmp_path / "secret"
    secret.write_text("of the machine\n")
    (source / "kernel").unlink()
    (source / "kernel").symlink_to(secret)
    result = installation.create(source, "-f", code=None)
    assert "secret" in result.stderr or "kernel" in result.stderr, "no word about a kernel that is none"
    served = installation.served() / "kernel"
    assert not served.exists() or served.read_text() != "of the machine\n"


def test_links_out_of_the_tree_are_not_followed_by_steps(
    installation: Installation, source: Path, tmp_path: Path
) -> None:
    """A captured node may have its logs and caches on another file system, behind absolute links."""
    root = source / "rootimg"
    host = tmp_path / "host"
    for name in ("log", "cache/dnf", "cache/apt/archives", "ssh", "repos", "dbus", "tmp", "lib/systemd"):
        (host / name).mkdir(parents=True)
    for name in (
        "log/messages",
        "cache/dnf/solv",
        "cache/apt/archives/a.deb",
        "ssh/ssh_host_rsa_key",
        "repos/host.repo",
    ):
        (host / name).write_text("of the machine\n")
    for name in ("dbus/machine-id", "tmp/file", "lib/systemd/random-seed", "machine-id", "hosts"):
        (host / name).write_text("of the machine\n")
    shutil.rmtree(root / "var/log")
    shutil.rmtree(root / "etc/ssh")
    shutil.rmtree(root / "var/tmp")
    (root / "var/log").symlink_to(host / "log")
    (root / "var/cache").symlink_to(host / "cache")
    (root / "var/tmp").symlink_to(host / "tmp")
    (root / "var/lib").mkdir()
    (root / "var/lib/dbus").symlink_to(host / "dbus")
    (root / "var/lib/systemd").symlink_to(host / "lib/systemd")
    (root / "etc/ssh").symlink_to(host / "ssh")
    (root / "etc/yum.repos.d").symlink_to(host / "repos")
    (root / "etc/machine-id").symlink_to(host / "machine-id")
    (root / "etc/hosts").symlink_to(host / "hosts")
    installation.site_file("files/yum.repos.d/site.repo", "[site]\nname=site\n")
    installation.site_file("files/hosts", "127.0.0.1 localhost\n")
    before = look(host)
    installation.create(source, code=None)
    assert difference(before, look(host)) == {}


def test_home_that_is_a_link_is_not_followed(installation: Installation, source: Path, tmp_path: Path) -> None:
    (source / "rootimg/home/unknown").unlink()
    (source / "rootimg/home").rmdir()
    (source / "rootimg/home").symlink_to(tmp_path / "data")
    installation.create(source)
    assert not (tmp_path / "data").exists()


def test_build_tree_itself_is_refused_and_kept(installation: Installation, source: Path) -> None:
    """`env` names the build tree; to build from it must not begin with removing it."""
    installation.create(source)
    tree = installation.tree()
    before = look(tree)
    result = installation.create(tree, code=None)
    assert (tree / "rootimg/etc/passwd").exists(), f"the source is gone: {result}"
    assert difference(before, look(tree, skip=["build_info"])).keys() <= {"."} | {
        path for path in before if path.split("/")[0] == "build_info"
    }
    if result.code:
        assert str(tree) in result.error


def test_directory_with_the_state_in_it_is_refused(installation: Installation, source: Path) -> None:
    """A tree that holds its own copy would never end."""
    installation.configure("paths", state=str(source / "rootimg/var/lib/xcat-avs"))
    installation.state = source / "rootimg/var/lib/xcat-avs"
    result = installation.create(source, code=1)
    assert str(source) in result.error


def test_image_without_kernel_is_said(installation: Installation, source: Path) -> None:
    (source / "kernel").unlink()
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    result = installation.run("pack", PROFILE, "-t", "t1")
    assert "Warning: " in result.stderr
    assert "holds no kernel" in result.stderr


def test_copies_do_not_share(installation: Installation, source: Path, tmp_path: Path) -> None:
    """A step that writes into a file of the build writes into no other file."""
    installation.site_file("procedures/common/scribble.sh", '#!/bin/sh\necho more >>"$AVS_ROOT/etc/passwd"\n', 0o755)
    installation.recipe("prepare_image_directory", "generate_image", "scribble")
    kept = copy(source, tmp_path / "kept")
    installation.create(source)
    assert difference(look(kept), look(source)) == {}
    assert (installation.tree() / "rootimg/etc/passwd").read_text().endswith("more\n")
