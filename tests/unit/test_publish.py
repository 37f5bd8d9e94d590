"""Publishing: from one moment to the next, and never less than a whole set."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from xcat_avs.errors import AvsError
from xcat_avs.serve import publish, sets
from xcat_avs.serve.sets import PackedSet
from xcat_avs.system import mounts

RECORD = PackedSet("img.prod", "img.prod", "v1", 3, "2026-01-02T03:04:05Z", "alice", "rootimg.cpio.gz")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Where an image is served; nothing is there yet."""
    return tmp_path / "netboot/debian12/x86_64/prod"


def before(served: Path) -> str:
    """What the hidden link says was served before."""
    link = served.with_name(f".{served.name}.avs-previous")
    return os.readlink(link) if link.is_symlink() else ""


def pack(served: Path, tag: str, text: str = "", record: PackedSet = RECORD) -> tuple[str, str]:
    """What packing does: fill a new set and publish it. Returns what was served before, and what was moved."""
    with publish.new_set(served) as staging:
        publish.finish_interrupted(served)
        for name in ("rootimg.cpio.gz", "kernel", "initrd-stateless.gz"):
            (staging / name).write_text(f"{name} {text or tag}")
            (staging / name).chmod(0o600)
        files = sets.describe_files(staging)
        _, moved = publish.publish(staging, served, replace(record, tag=tag, files=files))
    return before(served), moved


def names(served: Path) -> list[str]:
    """What lies beside it, but for the sets themselves: see its_sets()."""
    return sorted(name for name in os.listdir(served.parent) if not name.endswith(".avs-previous") and "@" not in name)


def its_sets(served: Path) -> list[str]:
    return sorted(name for name in os.listdir(served.parent) if "@" in name)


def test_the_first_time(served: Path) -> None:
    previous, moved = pack(served, "v1")
    assert (previous, moved) == ("", "")
    assert names(served) == ["prod", "prod.v1"]
    assert os.readlink(served) == "prod.v1"
    assert (os.readlink(served.with_name("prod.v1")), its_sets(served)) == ("prod@v1", ["prod@v1"])
    assert (served / "kernel").read_text() == "kernel v1"
    record = sets.read_record(served)
    assert record is not None
    assert (record.tag, record.osimage) == ("v1", "img.prod")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [served, *served.iterdir()]}
    assert modes == {
        "prod": 0o755,
        "kernel": 0o644,
        "initrd-stateless.gz": 0o644,
        "rootimg.cpio.gz": 0o644,
        "avs.json": 0o644,
    }


def test_the_record(served: Path) -> None:
    pack(served, "v1")
    document = json.loads((served / "avs.json").read_text())
    assert document["osimage"] == "img.prod"
    assert document["tag"] == "v1"
    data = (served / "kernel").read_bytes()
    assert document["files"]["kernel"] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert set(document["files"]) == {"kernel", "initrd-stateless.gz", "rootimg.cpio.gz"}


def test_the_next_one_takes_its_place_and_the_previous_is_kept(served: Path) -> None:
    pack(served, "v1")
    previous, moved = pack(served, "v2")
    assert (previous, moved) == ("prod.v1", "")
    assert names(served) == ["prod", "prod.v1", "prod.v2"]
    assert (served / "kernel").read_text() == "kernel v2"
    assert (served.with_name("prod.v1") / "kernel").read_text() == "kernel v1"
    previous, _ = pack(served, "v1", "again")
    assert previous == "prod.v2"
    assert (served / "kernel").read_text() == "kernel again"


def test_the_same_tag_again_leaves_the_older_set(served: Path) -> None:
    pack(served, "v1")
    for text in ("again", "and again", "the last"):
        previous, moved = pack(served, "v1", text)
        assert (served / "kernel").read_text() == f"kernel {text}"
        assert moved == ""
    assert (served.with_name(previous) / "kernel").read_text() == "kernel and again"
    assert len(its_sets(served)) == 2, "of each tag the newest stays, and what was served before"
    assert set(names(served)) == {"prod", previous, os.readlink(served)}
    publish.switch(served, previous)
    assert (served / "kernel").read_text() == "kernel and again"


def test_a_superseded_set_that_somebody_has_changed_stays(served: Path) -> None:
    pack(served, "v1")
    (served / "rootimg").mkdir()
    (served / "rootimg/mine").write_text("precious")
    pack(served, "v1", "again")
    edited = Path(os.path.realpath(served))
    (edited / "kernel").write_text("kernel mine!")  # of the same size, and by its time from before
    os.utime(edited / "kernel", (1, 1))
    for text in ("and again", "the last", "the very last"):
        pack(served, "v1", text)
    assert (served.with_name("prod@v1") / "rootimg/mine").read_text() == "precious"
    assert (edited / "kernel").read_text() == "kernel mine!"
    assert "rootimg was not packed" in sets.altered(served, "prod@v1")
    assert sets.altered(served) == ""


@pytest.mark.parametrize("name", ["prod@v1.backup", "prod@v1-old", "prod.v1.bak", "prod@v1@old", "prod@v10"])
def test_a_copy_of_a_set_that_somebody_has_made_stays(served: Path, name: str) -> None:
    pack(served, "v1")
    copy = served.with_name(name)
    subprocess.run(["cp", "-a", f"{served}/", copy], check=True)
    for text in ("again", "and again", "the last"):
        pack(served, "v1", text)
    assert (copy / "kernel").read_text() == "kernel v1"
    assert len([path for path in its_sets(served) if path != name]) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "kernel is gone"),
        (lambda path: path.write_text("short"), "kernel has 5 bytes, and 9 were packed"),
        (lambda path: path.write_text("other v1!"), "kernel has other content"),
        (lambda path: (path.unlink(), path.mkdir()), "kernel is not a regular file"),
        (
            lambda path: subprocess.run(["ln", "-sf", "rootimg.cpio.gz", path], check=True),
            "kernel is not a regular file",
        ),
        (lambda path: path.with_name("rootimg.gz").touch(), "rootimg.gz was not packed"),
        (lambda path: path.with_name(".nfs000123").touch(), ""),
    ],
    ids=["gone", "another size", "written later", "directory", "link", "one more", "NFS"],
)
def test_what_somebody_has_changed_in_a_set(served: Path, change: Callable[[Path], object], said: str) -> None:
    pack(served, "v1")
    change(served / "kernel")
    assert said in sets.altered(served)
    assert bool(sets.altered(served)) == bool(said)
    assert bool(sets.altered(served, sums=True)) == bool(said)


def test_content_with_an_old_time_is_found_by_its_sum(served: Path) -> None:
    """A damaged disk, or a copy that keeps times."""
    pack(served, "v1")
    (served / "kernel").write_text("other v1!")
    os.utime(served / "kernel", (1, 1))
    assert sets.altered(served) == ""
    assert "kernel has other content" in sets.altered(served, sums=True)


def test_a_real_directory_is_kept_whole(served: Path) -> None:
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    (served / "rootimg").mkdir()
    inode = served.stat().st_ino
    previous, moved = pack(served, "v1")
    assert moved.startswith("prod.moved.aside.on.20")
    assert previous == moved
    aside = served.with_name(moved)
    assert aside.stat().st_ino == inode
    assert sorted(path.name for path in aside.iterdir()) == ["rootimg", "rootimg.gz"]
    assert names(served) == ["prod", moved, "prod.v1"]
    assert os.readlink(served) == "prod.v1"


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot exchange two names: NFS, FUSE."""
    monkeypatch.setattr(publish, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("no_exchange")
def test_without_exchange_a_real_directory_is_replaced_in_two_steps(served: Path) -> None:
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    said: list[str] = []
    with publish.new_set(served) as staging:
        (staging / "kernel").write_text("new")
        _, moved = publish.publish(staging, served, RECORD, warn=said.append)
    assert (served / "kernel").read_text() == "new"
    assert (served.with_name(moved) / "rootimg.gz").read_text() == "old"
    assert len(said) == 1
    assert re.search(r"for \d+\.\d ms there was nothing", said[0])
    pack(served, "v2")
    pack(served, "v2", "again")
    publish.switch(served, moved)
    assert (served / "rootimg.gz").read_text() == "old"


@pytest.mark.usefixtures("no_exchange")
def test_killed_between_the_two_steps_the_next_run_serves_the_new_set(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    real = os.rename

    def killed(source: Path, target: Path) -> None:
        if target in (served, staging):  # nor is anything taken back
            raise KeyboardInterrupt
        real(source, target)

    with publish.new_set(served) as staging, monkeypatch.context() as patched:
        (staging / "kernel").write_text("new")
        patched.setattr(os, "rename", killed)
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(staging, served, RECORD)
    assert not os.path.lexists(served)
    moved = publish.finish_interrupted(served)
    assert (served / "kernel").read_text() == "new"
    assert (served.with_name(moved) / "rootimg.gz").read_text() == "old"
    assert publish.finish_interrupted(served) == ""


@pytest.mark.usefixtures("no_exchange")
def test_a_signal_between_the_two_steps_puts_the_directory_back(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    real = os.rename

    def interrupted(source: Path, target: Path) -> None:
        if source.name.endswith(".avs-link"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(served, "v1")
    assert (served / "rootimg.gz").read_text() == "old"
    assert (names(served), its_sets(served)) == (["prod"], [])


def test_a_second_real_directory_on_the_same_day(served: Path) -> None:
    kept = []
    for number in (1, 2, 3):
        if served.is_symlink():
            served.unlink()
        served.mkdir(parents=True)
        (served / "n").write_text(str(number))
        previous, moved = pack(served, f"v{number}")
        assert previous == moved
        kept.append(moved)
    assert len(set(kept)) == 3
    assert [(served.with_name(name) / "n").read_text() for name in kept] == ["1", "2", "3"]


@pytest.mark.parametrize("target", ["/absolute/elsewhere", "../other/dir", "missing"])
def test_a_link_of_the_site(served: Path, target: str) -> None:
    """A site may have put rootimgdir on another disk; its link is replaced, its directory left alone."""
    served.parent.mkdir(parents=True)
    served.symlink_to(target)
    previous, moved = pack(served, "v1")
    assert (previous, moved) == (target, "")
    assert os.readlink(served) == "prod.v1"


def test_an_interrupted_exchange_is_finished(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two renames, the directory that was served lies under the name of the link."""
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    real = os.rename

    def killed(source: Path, target: Path) -> None:
        if "moved.aside" in str(target):
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(served, "v1")
    assert (served / "kernel").read_text() == "kernel v1", "what nodes get is whole"
    moved = publish.finish_interrupted(served)
    assert moved.startswith("prod.moved.aside.on.")
    assert (served.with_name(moved) / "rootimg.gz").read_text() == "old"
    assert publish.finish_interrupted(served) == ""
    previous, _ = pack(served, "v2")
    assert previous == "prod.v1"
    assert names(served) == ["prod", moved, "prod.v1", "prod.v2"]


def test_a_left_over_link_is_removed(served: Path) -> None:
    served.parent.mkdir(parents=True)
    served.with_name(".prod.avs-link").symlink_to("prod.v9")
    assert publish.finish_interrupted(served) == ""
    assert names(served) == []


def test_what_a_killed_run_left_is_removed(served: Path) -> None:
    staging = served.with_name(".prod.avs-new")
    (staging / "sub").mkdir(parents=True)
    with publish.new_set(served) as new:
        assert new == staging
        assert list(new.iterdir()) == []
        assert stat.S_IMODE(new.stat().st_mode) == 0o700
    assert names(served) == []


def test_a_failure_while_packing_leaves_nothing_behind(served: Path) -> None:
    pack(served, "v1")

    def fail() -> None:
        with publish.new_set(served) as staging:
            (staging / "kernel").write_text("x")
            raise AvsError("cpio failed")

    with pytest.raises(AvsError, match="cpio failed"):
        fail()
    assert names(served) == ["prod", "prod.v1"]
    assert (served / "kernel").read_text() == "kernel v1"


Patch = Callable[[pytest.MonkeyPatch], None]


def _fail_replace(patched: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    patched.setattr(os, "replace", full)


def _fail_symlink(patched: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: str, target_is_directory: bool = False) -> None:
        raise OSError(28, "No space left on device", str(self))

    patched.setattr(Path, "symlink_to", full)


def _fail_sync(patched: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    patched.setattr(publish, "sync", broken)


def _fail_exchange(patched: pytest.MonkeyPatch) -> None:
    def refused(one: Path, other: Path) -> None:
        raise AvsError(f"cannot exchange {one} and {other}: Invalid argument")

    patched.setattr(publish, "_exchange", refused)


@pytest.mark.parametrize("fail", [_fail_replace, _fail_symlink, _fail_sync], ids=lambda fail: fail.__name__)
def test_a_failure_while_publishing_leaves_the_old_set_served_and_nothing_behind(
    served: Path, monkeypatch: pytest.MonkeyPatch, fail: Patch
) -> None:
    pack(served, "v1")
    with monkeypatch.context() as patched:
        fail(patched)
        with pytest.raises((OSError, AvsError)):
            pack(served, "v2")
    assert (served / "kernel").read_text() == "kernel v1"
    assert names(served) == ["prod", "prod.v1"]
    pack(served, "v2")
    assert (served / "kernel").read_text() == "kernel v2"


@pytest.mark.parametrize("fail", [_fail_symlink, _fail_exchange], ids=lambda fail: fail.__name__)
def test_a_failure_at_the_first_publishing_leaves_the_real_directory(
    served: Path, monkeypatch: pytest.MonkeyPatch, fail: Patch
) -> None:
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    with monkeypatch.context() as patched:
        fail(patched)
        with pytest.raises((OSError, AvsError)):
            pack(served, "v1")
    assert (served / "rootimg.gz").read_text() == "old"
    assert names(served) == ["prod"]


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AvsError, match=f"cannot make {tmp_path}/file"), publish.new_set(tmp_path / "file/a/prod"):
        pytest.fail("made below a file")


def test_a_mount_in_the_old_staging_is_not_removed_through(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = served.with_name(".prod.avs-new")
    staging.mkdir(parents=True)
    monkeypatch.setattr(mounts, "mounts_below", lambda directory: [str(directory / "m")])
    with pytest.raises(AvsError, match="mounted below it"), publish.new_set(served):
        pytest.fail("removed through a mount")
    assert staging.is_dir()


def test_no_profile_is_served_from_the_name_of_a_set(tmp_path: Path) -> None:
    """Tag `prod` of the profile `img` was once kept in `img.prod`, which is where the profile `img.prod` is served."""
    one, other = tmp_path / "netboot/img", tmp_path / "netboot/img.prod"
    for first, second in ((one, other), (other, one)):
        for place in (first, second):
            tag = "prod" if place == one else "v1"
            pack(place, tag, place.name, replace(RECORD, osimage=place.name, source=place.name))
        assert ((one / "kernel").read_text(), (other / "kernel").read_text()) == ("kernel img", "kernel img.prod")
        assert (os.readlink(one), os.readlink(other)) == ("img@prod", "img.prod.v1")
        for path in tmp_path.glob("netboot/*"):
            mounts.remove_tree(path)
        for path in tmp_path.glob("netboot/.*"):
            path.unlink()


def test_a_profile_that_is_called_as_a_set_is_known(tmp_path: Path) -> None:
    """PROFILE.TAG is but a link to a set: whoever goes through it goes on to the set."""
    one, other = tmp_path / "netboot/img", tmp_path / "netboot/img.v1"
    for tag in ("v1", "v2"):
        pack(one, tag, record=replace(RECORD, osimage="img"))
    publish.switch(one, "img.v1")
    pack(one, "v2", "again", record=replace(RECORD, osimage="img"))
    assert before(one) == "img.v1"
    previous, _ = pack(other, "v7", "of img.v1", replace(RECORD, osimage="img.v1"))
    assert previous == ""
    assert (other / "kernel").read_text() == "kernel of img.v1"
    publish.switch(one, before(one))
    assert (one / "kernel").read_text() == "kernel v1"
    assert "img@v1" in sets.kept(one, "img")


def test_a_name_that_is_the_rootimgdir_of_another_osimage_is_not_taken(served: Path) -> None:
    with publish.new_set(served) as staging:
        name, _ = publish.publish(staging, served, RECORD, {served.with_name("prod.v1")})
    assert name == "prod.v1.2"
    assert not os.path.lexists(served.with_name("prod.v1"))


def test_sets_of_old_names_go_on_working(served: Path) -> None:
    """Before, a set was PROFILE.TAG itself."""
    pack(served, "v1")
    served.with_name("prod.v1").unlink()
    served.with_name("prod@v1").rename(served.with_name("prod.v1"))
    assert list(sets.kept(served, "img.prod")) == ["prod.v1"]
    previous, _ = pack(served, "v1", "again")
    assert (previous, os.readlink(served)) == ("prod.v1", "prod.v1.2")
    publish.switch(served, previous)
    assert (served / "kernel").read_text() == "kernel v1"


def test_a_tag_that_is_named_as_a_kept_directory(served: Path) -> None:
    served.mkdir(parents=True)
    (served / "rootimg.gz").write_text("old")
    _, moved = pack(served, "v1")
    pack(served, moved.removeprefix("prod."))
    assert os.readlink(served) == f"{moved}.2"
    assert (served.with_name(moved) / "rootimg.gz").read_text() == "old"


def test_a_tag_of_another_source_with_the_same_name(served: Path) -> None:
    """Two images may have tags of one name; trying the second as this image must keep the first for rollback."""
    pack(served, "v1", "of prod")
    previous, _ = pack(served, "v1", "of other", replace(RECORD, source="img.other"))
    assert (served / "kernel").read_text() == "kernel of other"
    assert previous
    assert (served.parent / previous / "kernel").read_text() == "kernel of prod"


def of_types(**changes: object) -> str:
    return json.dumps({**asdict(RECORD), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"osimage": "x"}', '{"unknown": 1}', "[" * 100_000, "\xff", of_types(tag=1), of_types(revision="1"),
        of_types(revision=True), of_types(files=[]), of_types(files={"kernel": None}), of_types(files={"kernel": {"size": 1}}),
    ],
)  # fmt: skip
def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    assert sets.read_record(tmp_path) is None
    (tmp_path / "avs.json").write_text(text)
    assert sets.read_record(tmp_path) is None


@pytest.mark.slow
def test_a_reader_always_sees_a_whole_set(served: Path) -> None:
    """200 publishings; each file that is opened is there and whole."""
    body = "x" * 20000
    wrong: list[str] = []
    reads = 0
    done = threading.Event()

    def read() -> None:
        nonlocal reads
        while not done.is_set() or not reads:
            try:
                # As a node does: each file by its path, one after the other.
                for name in ("rootimg.cpio.gz", "kernel", "initrd-stateless.gz", "avs.json"):
                    text = (served / name).read_text()
                    if name == "avs.json":
                        assert set(json.loads(text)["files"]) == {"rootimg.cpio.gz", "kernel", "initrd-stateless.gz"}
                    else:
                        word, rest = text.split(" ", 1)
                        assert word == name
                        assert len(rest) == len(body) + 1
                # And as one that holds the directory: all of one set.
                directory = os.open(served, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    marks = set()
                    for name in ("rootimg.cpio.gz", "kernel"):
                        descriptor = os.open(name, os.O_RDONLY, dir_fd=directory)
                        marks.add(os.read(descriptor, 100000)[-1:])
                        os.close(descriptor)
                    assert len(marks) == 1
                finally:
                    os.close(directory)
                reads += 1
            except (OSError, AssertionError, ValueError) as err:
                wrong.append(repr(err))

    pack(served, "v0", body + "0")
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    try:
        for number in range(1, 201):
            pack(served, f"v{number}", body + str(number % 10))
    finally:
        done.set()
        for thread in readers:
            thread.join()
    assert wrong[:5] == []
    assert reads > 20
    assert names(served) == sorted(["prod", *(f"prod.v{number}" for number in range(201))])


@pytest.mark.usefixtures("deep_is_removed")
def test_describe_files_takes_what_is_there(tmp_path: Path) -> None:
    """Whoever put something beside the files of a set is told so: nothing is followed, waited for, or too deep."""
    (tmp_path / "set/addons").mkdir(parents=True)
    (tmp_path / "set/addons/x.cpio.gz").write_text("x")
    (tmp_path / "set/kernel").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "set/fifo")
    descriptor = os.open(tmp_path / "set", os.O_RDONLY)
    for _ in range(1300):
        os.mkdir("d", dir_fd=descriptor)
        following = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = following
    os.close(descriptor)
    (tmp_path / "served").symlink_to("set")
    found = sets.describe_files(tmp_path / "served")
    assert found == sets.describe_files(tmp_path / "set")
    digest = hashlib.sha256(b"x").hexdigest()
    assert found == {
        "addons/x.cpio.gz": {"size": 1, "sha256": digest}, "kernel": {"type": "link"}, "fifo": {"type": "fifo"},
    }  # fmt: skip
    assert sets.describe_files(tmp_path / "none") == {}
