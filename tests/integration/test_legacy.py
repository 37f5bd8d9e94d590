"""Repositories that avs_image_mgr made: read as they are, gone on with exactly, and the other way round."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import SECONDS

from integration.conftest import make_source
from integration.harness import (
    ADDED,
    ARCH,
    OSVERS,
    PROFILE,
    Installation,
    copy,
    difference,
    look,
    output,
    unpack_cpio,
)

pytestmark = pytest.mark.slow

REPORT = """Image rebuild completed at {date}

{message}

 PROCEDURE NAME TIME +/- RPMS +/- SIZE RPMS SIZE
 generate_image 12m 410 1203M 410 1203M
"""
RSYNC = ["rsync", "-rlpgoDXn", "--checksum", "--delete", "-i", "--numeric-ids"]


@dataclass(frozen=True)
class Classic:
    """What avs_image_mgr runs, with a working copy and FSVS's data of its own."""

    installation: Installation
    work: Path

    @property
    def base(self) -> str:
        return f"{self.installation.url}/netboot/{OSVERS}/{ARCH}/{PROFILE}"

    def run(self, *argv: str, cwd: Path | None = None, stdin: str = "") -> str:
        env = {**os.environ, "LC_ALL": "C.UTF-8", "FSVS_CONF": f"{self.work}/conf", "FSVS_WAA": f"{self.work}/waa"}
        done = subprocess.run(
            argv, cwd=cwd, input=stdin, env=env, capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == 0, f"{argv}: {done.stdout} {done.stderr}"
        return done.stdout

    def create_repository(self) -> None:
        for name in ("conf", "waa"):
            (self.work / name).mkdir(parents=True)
        self.installation.repository.parent.mkdir(parents=True)
        self.run("svnadmin", "create", str(self.installation.repository))
        directories = [f"{self.base}/{name}" for name in ("trunk", "tags", "branches")]
        self.run("svn", "mkdir", "-q", "--parents", "-m", "initial layout", *directories)

    def commit(self, source: Path, user: str, date: str, message: str) -> None:
        """One rebuild: check out, copy the image over it, commit."""
        copied = self.work / "copy"
        shutil.rmtree(copied, ignore_errors=True)
        copied.mkdir()
        self.run("fsvs", "urls", "load", cwd=copied, stdin=f"{self.base}/trunk\n")
        self.run("fsvs", "checkout", f"{self.base}/trunk", cwd=copied)
        self.run("rsync", "-crlpgoDS", "--delete", f"{source}/", f"{copied}/")
        text = f"{user}; Image rebuild completed at {date}\n{message}"
        self.run("fsvs", "-C", "-o", "empty_commit=no", "-o", f"author={user}", "ci", "-m", text, cwd=copied)

    def tag(self, name: str, user: str) -> None:
        words = ["svn", "cp", "-q", "--username", user, "-m", f"{user}; tag {name}"]
        self.run(*words, f"{self.base}/trunk", f"{self.base}/tags/{name}")


def build_info(source: Path, date: str, message: str) -> None:
    info = source / "build_info"
    (info / "logs").mkdir(parents=True, exist_ok=True)
    (info / "report").write_text(REPORT.format(date=date, message=message))
    (info / "logs/generate_image.log").write_text("installing\n" * 20)
    (info / "pkglist").write_text("bash\n")


DATES = ("Mon Mar  4 10:00:00 CET 2013", "Tue Mar  5 11:00:00 CET 2013", "Fri May 17 09:00:00 CEST 2013")


@pytest.fixture
def classic(installation: Installation, tmp_path: Path) -> Classic:
    made = Classic(installation, tmp_path / "classic")
    made.create_repository()
    return made


@pytest.fixture
def image(classic: Classic, tmp_path: Path) -> Path:
    """Three rebuilds, two of them tagged; the tree as it was at the last."""
    source = make_source(tmp_path / "source")
    root = source / "rootimg"
    for number, date in enumerate(DATES):
        (root / f"etc/release.{number}").write_text(f"{number}\n")
        (root / "etc/issue").write_text(
            f"rebuild {number}\n" * (20 + number)
        )  # FSVS misses one of the same size and second
        if number == 1:
            os.unlink(root / "etc/dangling")
            (root / "etc/dangling").write_text("a file now\n")
            shutil.rmtree(root / "usr/share/dir with space@5")
        build_info(source, date, f"reason {number}")
        classic.commit(source, ("ann", "bob", "ann")[number], date, f"reason {number}")
        copy(source, tmp_path / f"source.{number}")
        if number != 1:
            classic.tag(f"v{number}", "carl")
    return source


def plain_recipe(installation: Installation) -> None:
    installation.recipe("prepare_image_directory", "generate_image")


def test_what_is_there_is_listed_shown_and_packed(installation: Installation, image: Path, tmp_path: Path) -> None:
    listed = installation.run("list-tags", PROFILE, "--json").document["tags"]
    assert [(tag["name"], tag["author"]) for tag in listed] == [("v0", "carl"), ("v2", "carl")]
    assert [tag["source"] for tag in listed] == sorted(tag["source"] for tag in listed)
    assert listed[0]["source"] < listed[1]["source"]
    shown = installation.run("show", PROFILE, "-t", "v0").stdout
    assert "reason 0" in shown
    assert "ann" in shown
    newest = installation.run("show", PROFILE).stdout
    assert "reason 2" in newest
    for number, tag in ((0, "v0"), (2, "v2")):
        result = installation.run("pack", PROFILE, "-t", tag)
        assert f"tag {tag} has no manifest, so the checkout cannot be proven" in result.stderr
        unpack_cpio(installation.served() / "rootimg.cpio.gz", tmp_path / tag)
        wanted = look(tmp_path / f"source.{number}/rootimg", times=False)
        assert difference(wanted, look(tmp_path / tag, times=False)).keys() <= ADDED
        assert (installation.served() / "kernel").read_bytes() == (image / "kernel").read_bytes()


def test_create_goes_on_exactly(installation: Installation, image: Path, tmp_path: Path) -> None:
    before = installation.youngest()
    root = image / "rootimg"
    (root / "etc/issue").write_text("made by the new one\n")
    os.chown(root / "etc/passwd", 61234, 0)
    shutil.rmtree(root / "usr/share")
    (root / "usr/share").symlink_to("bin")
    (root / "new\nline").write_text("carried\n")
    os.link(root / "etc/issue", root / "etc/issue.net")
    os.setxattr(root / "etc/issue", "user.x", b"1")
    plain_recipe(installation)
    assert f"Stored as revision {before + 1}" in installation.create(image, "-u", "dora").stdout
    installation.run("tag", PROFILE, "-t", "new")
    installation.run("pack", PROFILE, "-t", "new")
    argv = [*RSYNC, "-tH"]
    assert output([*argv, f"{installation.tree()}/rootimg/", f"{installation.kept}/rootimg/"]) == ""
    assert output([*RSYNC, f"{root}/", f"{installation.kept}/rootimg/"]) == ""
    # Just what changed was stored.
    changed = output(["svn", "log", "-q", "-v", "-r", str(before + 1), installation.url]).splitlines()
    paths = {line[3:].split("/trunk/", 1)[1] for line in changed if "/trunk/rootimg" in line}
    assert paths <= {"rootimg/etc", "rootimg/etc/issue", "rootimg/etc/issue.net", "rootimg/etc/passwd", "rootimg/usr",
                     "rootimg/usr/share", "rootimg"}  # fmt: skip
    assert "no new revision" in installation.create(image).stdout
    assert installation.youngest() == before + 2  # the tag

    # The old ones are still served, and the history is one.
    installation.run("pack", PROFILE, "-t", "v0")
    wanted = look(tmp_path / "source.0/rootimg", times=False)
    assert difference(wanted, look(installation.kept / "rootimg", times=False)) == {}
    installation.verify_repository()


def test_unchanged_tree_is_stored_once(installation: Installation, image: Path) -> None:
    """The first create has a manifest to add; after that, nothing."""
    plain_recipe(installation)
    before = installation.youngest()
    assert f"Stored as revision {before + 1}" in installation.create(image).stdout
    changed = output(["svn", "log", "-q", "-v", "-r", str(before + 1), installation.url]).splitlines()
    paths = [line for line in changed if "/trunk/" in line]
    assert paths
    assert all("/trunk/build_info" in line for line in paths), "times of the image alone are no change"
    assert "no new revision" in installation.create(image).stdout
    assert installation.youngest() == before + 1


def test_classic_commit_on_top_of_ours(
    installation: Installation, classic: Classic, image: Path, tmp_path: Path
) -> None:
    """Somebody goes back to the old program for a day."""
    plain_recipe(installation)
    (image / "rootimg/new\nline").write_text("carried\n")
    installation.create(image)
    installation.run("tag", PROFILE, "-t", "ours")
    os.unlink(image / "rootimg/new\nline")
    (image / "rootimg/etc/issue").write_text("by the old one again\n")
    build_info(image, DATES[0], "back for a day")
    classic.commit(image, "eve", DATES[0], "back for a day")
    listing = output(["svn", "ls", f"{installation.trunk()}/build_info"])
    assert "manifest" not in listing
    assert "back for a day" in installation.run("show", PROFILE).stdout
    installation.run("tag", PROFILE, "-t", "theirs")
    result = installation.run("pack", PROFILE, "-t", "theirs")
    assert "has no manifest" in result.stderr
    assert (installation.kept / "rootimg/etc/issue").read_text() == "by the old one again\n"

    head = installation.youngest()
    (image / "rootimg/etc/issue").write_text("and by the new one\n")
    assert f"Stored as revision {head + 1}" in installation.create(image).stdout
    installation.run("tag", PROFILE, "-t", "again")
    result = installation.run("pack", PROFILE, "-t", "again")
    assert "manifest" not in result.stderr
    assert output([*RSYNC, "-tH", f"{installation.tree()}/rootimg/", f"{installation.kept}/rootimg/"]) == ""
    assert output([*RSYNC, f"{image}/rootimg/", f"{installation.kept}/rootimg/"]) == ""
    assert "no new revision" in installation.create(image).stdout
    installation.run("pack", PROFILE, "-t", "ours")
    assert (installation.kept / "rootimg/new\nline").read_text() == "carried\n"
    installation.verify_repository()


def test_classic_program_reads_ours(installation: Installation, classic: Classic, image: Path, tmp_path: Path) -> None:
    """Its checkout of a revision of ours is the tree, in all that FSVS keeps."""
    plain_recipe(installation)
    (image / "rootimg/etc/issue").write_text("made by the new one\n")
    os.mknod(image / "rootimg/dev/sdz", 0o60660, os.makedev(65, 300))
    installation.create(image)
    out = tmp_path / "out"
    out.mkdir()
    classic.run("fsvs", "export", f"{classic.base}/trunk", cwd=out)
    assert difference(look(installation.tree() / "rootimg"), look(out / "rootimg")) == {}
