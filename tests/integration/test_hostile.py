"""What somebody commits who may write into the store, and what a procedure makes: it never steers root out of its tree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.harness import PROFILE, Installation, output, served_set
from xcat_avs.tree import manifest, scan
from xcat_avs.tree.manifest import Entry, Manifest

pytestmark = pytest.mark.slow

SECRET = "the machine's own\n"
FILE = Entry("", "file", 0o777, 12, 34, 5, len(SECRET), "0" * 64)


@dataclass
class Host:
    """A directory of the machine that no image has anything to do with."""

    top: Path

    @property
    def file(self) -> Path:
        return self.top / "file"

    def state(self) -> Manifest:
        return scan.scan(str(self.top))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path / "host")
    made.top.mkdir()
    made.file.write_text(SECRET)
    made.file.chmod(0o600)
    return made


@dataclass
class Hostile:
    """The tag v1 as it should be, and what another tag, made of it by hand, is to hold in its place."""

    installation: Installation
    host: Host
    words: list[str]

    @property
    def tag(self) -> str:
        return "tags/evil"

    def remove(self, *paths: str) -> None:
        for path in paths:
            self.words += ["rm", f"{self.tag}/{path}"]

    def link(self, path: str, target: Path) -> None:
        text = self.installation.top / f"tmp/link.{len(self.words)}"
        text.write_text(f"link {target}")
        self.words += ["put", str(text), f"{self.tag}/{path}", "propset", "svn:special", "*", f"{self.tag}/{path}"]

    def manifest(self, change: Callable[[Manifest], None]) -> None:
        text = output(["svn", "cat", self.installation.trunk() + "/build_info/manifest"])
        found = dict(manifest.load(text, "it"))
        change(found)
        file = self.installation.top / "tmp/manifest"
        file.write_text(manifest.dump(dict(sorted(found.items()))))
        self.words += ["put", str(file), f"{self.tag}/build_info/manifest"]

    def commit(self) -> None:
        url = self.installation.trunk().rpartition("/")[0]
        for present in self.words[:0] or ["rm", "cp"]:
            words = [f"{self.tag}"] if present == "rm" else ["HEAD", "trunk", self.tag]
            if present == "cp" or "evil/" in output(["svn", "ls", f"{url}/tags"]):
                output(["svnmucc", "-m", "made by hand", "-U", url, present, *words])
        output(["svnmucc", "-m", "made by hand", "-U", url, *self.words])


def up(path: Path) -> str:
    """The name of a path of the machine in a tree that lies somewhere on it."""
    return "../" * 30 + str(path).lstrip("/")


def up_by_manifest(it: Hostile) -> None:
    it.manifest(lambda found: found.update({f"./{up(it.host.file)}": FILE._replace(path=f"./{up(it.host.file)}")}))


def new_by_manifest(it: Hostile) -> None:
    path = f"rootimg/{up(it.host.top)}/new"
    it.manifest(lambda found: found.update({path: FILE._replace(path=path, type="dir", size=0, sha256="")}))


def link_and_below(it: Hostile) -> None:
    link = FILE._replace(path="rootimg/zz", type="link", mode=0o777, link=str(it.host.top), size=0, sha256="")
    it.link("rootimg/zz", it.host.top)
    it.manifest(
        lambda found: found.update({"rootimg/zz": link, "rootimg/zz/file": FILE._replace(path="rootimg/zz/file")})
    )


def link_as_directory(it: Hostile) -> None:
    """The manifest is sane, and what the store holds is a link."""
    directory = FILE._replace(path="rootimg/zz", type="dir", size=0, sha256="")
    it.link("rootimg/zz", it.host.top)
    it.manifest(
        lambda found: found.update({"rootimg/zz": directory, "rootimg/zz/file": FILE._replace(path="rootimg/zz/file")})
    )


def hard_link(it: Hostile) -> None:
    path = "rootimg/etc/hard"
    it.manifest(lambda found: found.update({path: FILE._replace(path=path, hardlink=up(it.host.file))}))


def kernel(it: Hostile) -> None:
    it.remove("kernel")
    it.link("kernel", it.host.file)
    link = FILE._replace(path="kernel", type="link", mode=0o777, link=str(it.host.file), size=0, sha256="")
    it.manifest(lambda found: found.update({"kernel": link}))


def kernel_in_the_store(it: Hostile) -> None:
    it.remove("kernel")
    it.link("kernel", it.host.file)


def kernel_without_manifest(it: Hostile) -> None:
    kernel_in_the_store(it)
    it.remove("build_info/manifest")


def rootimg(it: Hostile) -> None:
    it.remove("rootimg")
    it.link("rootimg", it.host.top)

    def change(found: Manifest) -> None:
        for path in [path for path in found if path.startswith("rootimg/")]:
            del found[path]
        found["rootimg"] = FILE._replace(path="rootimg", type="link", link=str(it.host.top), size=0, sha256="")

    it.manifest(change)


def rootimg_without_manifest(it: Hostile) -> None:
    it.remove("rootimg", "build_info/manifest")
    it.link("rootimg", it.host.top)


def build_info(it: Hostile) -> None:
    it.remove("build_info")
    it.link("build_info", it.host.top)


def addon(it: Hostile) -> None:
    it.link("addons", it.host.top)
    link = FILE._replace(path="addons", type="link", link=str(it.host.top), size=0, sha256="")
    it.manifest(lambda found: found.update({"addons": link}))


def program(it: Hostile) -> None:
    """FSVS runs what this property says, whatever the manifest says of the file; it is not used where there is one."""
    it.words += ["propset", "fsvs:update-pipe", f"touch {it.host.top}/new; cat", f"{it.tag}/kernel"]


def contents_from_elsewhere(it: Hostile) -> None:
    it.words += ["propset", "svn:externals", f"{it.installation.trunk()}/rootimg/etc more", f"{it.tag}/rootimg"]
    it.words += ["propset", "svn:keywords", "Id", f"{it.tag}/kernel"]


def program_of_a_directory(it: Hostile) -> None:
    it.remove("build_info/manifest")
    it.words += ["propset", "fsvs:update-pipe", f"touch {it.host.top}/new; cat", f"{it.tag}/rootimg/etc"]


# What is done -> what is said. diff reads no more than the manifests, and has none to refuse where there is none.
CASES: list[tuple[Callable[[Hostile], None], str, bool]] = [
    (up_by_manifest, "not a path within a tree|lies in no directory", True),
    (new_by_manifest, "lies in no directory", True),
    (link_and_below, "lies in no directory", True),
    (link_as_directory, "'rootimg/zz' is of type link, and dir by its manifest", False),
    (hard_link, "the hard link is one of no file", True),
    (kernel, "'kernel' is a link to", True),
    (kernel_in_the_store, "'kernel' is of type link", False),
    (kernel_without_manifest, "'kernel' is a link to", False),
    (rootimg, "'rootimg' is a link to", True),
    (rootimg_without_manifest, "'rootimg' is a link to", False),
    (build_info, "'build_info' is a link to", False),
    (addon, "'addons' is a link to", True),
    (program_of_a_directory, "by which FSVS runs a program", False),
]


def test_a_tag_made_by_hand(installation: Installation, source: Path, host: Host) -> None:
    """Refused with what is wrong, by verify and pack, and by diff where it reads it; the machine is as it was."""
    installation.recipe("prepare_image_directory", "generate_image")
    (source / "kernel").write_text("kernel $Id$")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "v1")
    installation.run("pack", PROFILE, "-t", "v1")
    served, before = served_set(installation.served()), host.state()
    for make, said, diff in CASES:
        it = Hostile(installation, host, [])
        make(it)
        it.commit()
        for mode in ("pack", "verify"):
            result = installation.run(mode, PROFILE, "-t", "evil", code=1)
            assert output(["grep", "-cE", said], (result.stdout + result.stderr).encode()), f"{make.__name__}: {result}"
            assert "defect" not in result.stderr
            assert host.state() == before, make.__name__
        result = installation.run("diff", PROFILE, "-t", "v1:evil", code=1 if diff else None)
        assert "defect" not in result.stderr
        assert SECRET.strip() not in result.stdout
        assert host.state() == before, make.__name__
    for make in (program, contents_from_elsewhere):
        it = Hostile(installation, host, [])
        make(it)
        it.commit()
        shutil.rmtree(installation.state / "checkouts")
        assert installation.run("verify", PROFILE, "-t", "evil").code == 0  # it is what its manifest says
        assert host.state() == before, make.__name__
    assert served_set(installation.served()) == served
    assert installation.run("verify", PROFILE, "-t", "v1").code == 0
    installation.assert_clean()


MADE = [
    ('ln -sf "$HOST/file" ../kernel', "'kernel' is a link to"),
    ('rm -rf ../initrd-x; mkfifo ../initrd-x', "'initrd-x' is a FIFO"),
    ('mkdir -p ../addons/x; ln -s "$HOST" ../addons/x/rootimg', ""),
    ('ln -s "$HOST" ../addons', ""),
    ('ln -s "$HOST" ../build_info', ""),
    ('cd ..; mv rootimg old; ln -s "$HOST" rootimg', "rootimg"),
]  # fmt: skip


def test_what_a_procedure_makes_beside_the_image(installation: Installation, source: Path, host: Host) -> None:
    """Refused before it is committed, or put right where it is our own directory; nothing goes through it."""
    (source / "kernel").write_text("kernel")
    before = host.state()
    for number, (script, said) in enumerate(MADE):
        installation.site_file("procedures/common/evil.sh", f"#!/bin/sh -e\nHOST={host.top}\n{script}\n", 0o755)
        installation.recipe("prepare_image_directory", "generate_image", "evil")
        result = installation.create(source, "-m", f"{number}", code=1 if said else 0)
        assert said in result.stderr, str(result)
        assert "defect" not in result.stderr
        assert host.state() == before, script
    listed = output(["svn", "ls", "-R", installation.trunk()]).split("\n")
    assert "build_info/manifest" in listed
    assert not [name for name in listed if name.startswith("addons")]


@pytest.mark.parametrize("target", ["{host}", "/{up}"])
def test_packing_writes_nothing_outside(installation: Installation, source: Path, host: Host, target: str) -> None:
    """A link of the image's own in place of a directory that packing writes into."""
    before = host.state()
    shutil.rmtree(source / "rootimg/etc")
    (source / "rootimg/etc").symlink_to(target.format(host=host.top, up=up(host.top)))
    installation.recipe("prepare_image_directory", "generate_image")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "v1")
    assert "/etc of the image leads out of it" in installation.run("pack", PROFILE, "-t", "v1", code=1).error
    assert host.state() == before


# -- depth

DEEP = """import os
\"\"\"Nests directories.\"\"\"
OPTIONS = {}
def run(ctx):
    descriptor = os.open(ctx.root, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=descriptor)
        following = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
"""


def make_deep(installation: Installation, levels: int) -> None:
    text = DEEP.replace("LEVELS", str(levels)).split("\n")
    text = [text[1], text[0], *text[2:]]
    installation.site_file("procedures/common/nest.py", "\n".join(text))
    installation.recipe("prepare_image_directory", "generate_image", "nest", "cleanup")


@pytest.fixture
def _nothing_deep_is_left(tmp_path: Path) -> Iterator[None]:
    """Python's own removal of a tree, which pytest uses, is the one that ends in a RecursionError."""
    yield
    output(["rm", "-rf", str(tmp_path / "site")])


@pytest.mark.usefixtures("_nothing_deep_is_left")
def test_deep_directories(installation: Installation, source: Path) -> None:
    """More than Python calls itself, and more than a path may be long: no way of the image is blocked by it."""
    (source / "kernel").write_text("kernel")
    make_deep(installation, 1300)
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "v1")
    installation.run("pack", PROFILE, "-t", "v1", "--method", "tar")
    names = output(["tar", "tzf", str(installation.served() / "rootimg.tar.gz")])
    assert "\n" + "d/" * 1300 + "end\n" in names
    assert installation.run("verify", PROFILE, "-t", "v1").stdout.count("[ OK ]") == 2
    make_deep(installation, 2100)
    assert "no archive" in installation.create(source).stderr
    installation.run("tag", PROFILE, "-t", "v2")
    assert "is longer than" in installation.run("pack", PROFILE, "-t", "v2", code=1).error
    assert installation.run("verify", PROFILE, "-t", "v2").code == 0
    os.makedirs(installation.top / "lists")
    (installation.top / "lists/exlist").write_text("./d/d*\n")
    installation.define(PROFILE, exlist=str(installation.top / "lists/exlist"))
    installation.run("pack", PROFILE, "-t", "v2")
    # And out again.
    installation.recipe("prepare_image_directory", "generate_image")
    installation.create(source)
    installation.run("diff", PROFILE, "-t", "v1:")
    installation.assert_clean()
