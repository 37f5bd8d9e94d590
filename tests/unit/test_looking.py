"""Look into a version without a checkout: its paths, links, damage, and what the store cannot hold."""

from __future__ import annotations

import hashlib
from typing import Any, Optional, cast

import pytest

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, DamageError, NotFoundError
from xcat_avs.store.carried import CARRIED
from xcat_avs.store.looking import Sight
from xcat_avs.store.protocol import MANIFEST, Store, Version
from xcat_avs.tree.inside import followed, missing, stored
from xcat_avs.tree.manifest import Entry, Manifest

IMAGE = OsImage("debian12-x86_64-netboot-example.prod", {})
TEXT = b"root:x:0:0\n\0\xff\x1b[31m"


def entry(path: str, kind: str = "dir", **facts: Any) -> Entry:
    if kind == "file":
        facts = {"size": len(TEXT), "sha256": hashlib.sha256(TEXT).hexdigest(), **facts}
    return Entry(path, kind, 0o755, 0, 0, 0, **facts)


def manifest(*entries: Entry) -> Manifest:
    return {item.path: item for item in (entry("rootimg"), *entries)}


IMAGE_FILES = manifest(
    entry("rootimg/bin", "link", link="usr/bin"), entry("rootimg/dev"), entry("rootimg/dev/null", "char", device=(1, 3)),
    entry("rootimg/etc"), entry("rootimg/etc/passwd", "file"), entry("rootimg/etc/up", "link", link="../../../../etc/passwd"),
    entry("rootimg/etc/whole", "link", link="/usr/bin/sh"), entry("rootimg/loop", "link", link="loop"),
    entry("rootimg/usr"), entry("rootimg/usr/bin"), entry("rootimg/usr/bin/sh", "file"), entry("rootimg/pipe", "fifo"),
    entry("rootimg/lost", "link", link="/etc/nothing"),
    entry("addons"), entry("addons/x"), entry("addons/x/rootimg"), entry("addons/x/rootimg/f", "file"),
    entry("addons/x/rootimg/l", "link", link="/f"),
)  # fmt: skip


class Files:
    """What a store has of a version, by path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def read(self, image: OsImage, version: Version, path: str) -> bytes:
        if path not in self.files:
            raise NotFoundError("not in the store")
        if self.files[path] == b"corrupt":
            raise DamageError("the store cannot be used:", ["E200014: Checksum mismatch"])
        return self.files[path]


def sight(files: Optional[dict[str, bytes]] = None, found: Optional[Manifest] = IMAGE_FILES) -> Sight:
    return Sight(cast(Store, Files(files or {})), IMAGE, Version(tag="v1"), 7, found)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/etc/passwd", "/etc/passwd"), ("/etc/up", "/etc/passwd"), ("/bin/sh", "/usr/bin/sh"), ("/bin/../bin/sh", "/bin/sh"),
        ("/etc/whole", "/usr/bin/sh"), ("addons/x/rootimg/l", "addons/x/rootimg/f"), ("/no/such", "/no/such"), ("/", "/"),
        ("kernel", "kernel"), ("addons/x", "addons/x"),
    ],
)  # fmt: skip
def test_links_are_followed_within_the_image(asked: str, path: str) -> None:
    assert followed(IMAGE_FILES, stored(asked)) == followed(IMAGE_FILES, stored(path))
    if path in ("/etc/passwd", "/usr/bin/sh"):
        assert followed(IMAGE_FILES, stored(asked)) == stored(path)


def test_a_circle_of_links_ends() -> None:
    with pytest.raises(AvsError, match="/loop: too many symbolic links"):
        followed(IMAGE_FILES, "rootimg/loop")


def test_a_file_comes_as_it_is() -> None:
    found = sight({"rootimg/etc/passwd": TEXT})
    assert found.content("rootimg/etc/up") == ("rootimg/etc/passwd", TEXT)
    assert found.content("rootimg/etc/passwd")[1] == TEXT


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "the store has lost '/etc/passwd'"),
        ({"rootimg/etc/passwd": TEXT + b"!"}, "'/etc/passwd' is damaged in the store"),
        ({"rootimg/etc/passwd": b"corrupt"}, "'/etc/passwd' cannot be read: the store cannot be used"),
    ],
)
def test_a_damaged_store_is_said(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(DamageError, match=words) as caught:
        sight(files).content("rootimg/etc/passwd")
    assert f"`avsimage -c verify {IMAGE.name} -t v1`" in caught.value.text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc/paswd", r"has no '/etc/paswd': there is no 'paswd' in '/etc' \(did you mean passwd\?\)"),
        ("/ect/passwd", r"there is no 'ect' in '/' \(did you mean etc\?\)"),
        ("etc/passwd", r"did you mean /etc/passwd\? What is in the image begins with /"),
        ("/lost", "has no '/etc/nothing', where '/lost' leads"),
        ("kernell", "has no 'kernell'"),
        ("/etc", "'/etc' is a directory; `avsimage -c files debian12-x86_64-netboot-example.prod -t v1 '/etc/[*]'`"),
        ("/", "'/' is a directory; `avsimage -c files debian12-x86_64-netboot-example.prod -t v1 '/[*]'`"),
        ("/dev/null", "'/dev/null' is a device, and has no contents"),
        ("/pipe", "'/pipe' is a FIFO"),
    ],
)
def test_what_is_no_file(path: str, words: str) -> None:
    with pytest.raises(AvsError, match=words):
        sight().content(stored(path))


def test_nothing_is_near() -> None:
    assert missing(IMAGE_FILES, "rootimg/zzzzzz") == ": there is no 'zzzzzz' in '/'"
    assert missing({}, "x") == ""


def test_a_name_that_no_store_can_hold() -> None:
    name, digest = "rootimg/etc/a\nb", hashlib.sha256(TEXT).hexdigest()
    found = {**IMAGE_FILES, name: entry(name, "file")}
    assert sight({f"{CARRIED}/{digest}": TEXT}, found).content(name) == (name, TEXT)
    second = {**found, name: entry(name, "file", hardlink="rootimg/etc/passwd")}
    assert sight({"rootimg/etc/passwd": TEXT}, second).content(name)[1] == TEXT


def test_the_manifest_itself() -> None:
    assert sight({MANIFEST: b"#mtree\n"}).content(MANIFEST) == (MANIFEST, b"#mtree\n")


def test_a_version_without_a_manifest() -> None:
    """Of avs_image_mgr: a file can be read, but not proven, and its paths are not known."""
    old = sight({"kernel": b"a kernel"}, None)
    assert old.content("kernel") == ("kernel", b"a kernel")
    with pytest.raises(NotFoundError, match="tag v1 has no '/etc/x'; what is in the image begins with /"):
        old.content("rootimg/etc/x")
    with pytest.raises(NotFoundError, match=f"`avsimage -c checkout {IMAGE.name} -t v1 DIR`") as caught:
        old.listed()
    assert caught.value.next == f"avsimage -c checkout {IMAGE.name} -t v1 DIR"
