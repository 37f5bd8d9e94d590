"""Bits that flip, runs that are killed in a commit, and a system that lets few files be open."""

from __future__ import annotations

import os
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from harness import Result, wait_until

from integration.conftest import both
from integration.harness import PROFILE, Installation, output, served_set
from xcat_avs.store.protocol import Version
from xcat_avs.system.locks import Holder, locked

pytestmark = pytest.mark.slow

RSYNC = ["rsync", "-aHAXn", "--checksum", "--delete", "-i", "--numeric-ids"]
LINE = "an unmistakable line of text\n"
SEED = 20


def served(installation: Installation) -> dict[str, str]:
    """What nodes get, but for the record that says when."""
    return {name: digest for name, digest in served_set(installation.served()).items() if name != "avs.json"}


def contents(facts: dict[str, str]) -> dict[str, str]:
    """The same but for the name of the set, which is another one when the same tag is packed again."""
    return {name: digest for name, digest in facts.items() if name != "directory"}


def flip(path: Path, position: int, bit: int = 1) -> None:
    """Another bit in a file, as a disk makes it: no time changes."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(status.st_mode & 0o7777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def packed(installation: Installation, source: Path) -> dict[str, str]:
    """An image that is built, tagged t1 and packed, in a repository whose bytes can be found; what is served."""
    installation.store().prepare(installation.image(), "tester")
    if installation.engine == "fsvs":
        conf = installation.repository / "db/fsfs.conf"
        conf.write_text(conf.read_text().replace("compression = lz4", "compression = none"))
    (source / "rootimg/etc/motd").write_text(LINE * 40)
    installation.recipe("prepare_image_directory", "generate_image")
    installation.create(source)
    installation.run("tag", PROFILE, "-t", "t1")
    installation.run("pack", PROFILE, "-t", "t1")
    return served(installation)


# -- flipped bits


@both
@pytest.mark.parametrize("name", ["etc/motd", "kernel of its own"])
def test_flipped_bit_in_a_kept_checkout(installation: Installation, packed: dict[str, str], name: str) -> None:
    """Found, named, and repaired from the store: what is packed is right."""
    path = installation.kept / ("rootimg/etc/motd" if name == "etc/motd" else "kernel")
    wanted = path.read_bytes()
    flip(path, 5)
    result = installation.run("pack", PROFILE, "-t", "t1", "--force")
    assert result.stderr.count("Warning: ") == 1
    assert f"{path.relative_to(installation.kept)}: sha256" in result.stderr
    assert contents(served(installation)) == contents(packed)
    assert path.read_bytes() == wanted
    assert "Warning" not in installation.run("pack", PROFILE, "-t", "t1", "--force").stderr


@both
def test_flipped_bit_in_the_manifest_of_a_kept_checkout(installation: Installation, packed: dict[str, str]) -> None:
    """It proves nothing, for what is compared with is the stored one."""
    text = installation.kept / "build_info/manifest"
    wanted = text.read_bytes()
    position = wanted.index(b"sha256digest=", wanted.index(b"./rootimg/etc/motd ")) + 15
    flip(text, position)
    result = installation.run("pack", PROFILE, "-t", "t1", "--force")
    assert "was changed since, and is made anew: build_info/manifest: not the stored one" in result.stderr
    assert contents(served(installation)) == contents(packed)
    assert text.read_bytes() == wanted


def flip_stored(installation: Installation, wanted: bytes, offset: int = 0) -> None:
    """Flip a bit of what the repository's revision files hold in just one place."""
    found = [
        (path, path.read_bytes().index(wanted))
        for path in sorted((installation.repository / "db/revs").rglob("*"))
        if path.is_file() and wanted in path.read_bytes()
    ]
    assert len(found) == 1, found
    flip(found[0][0], found[0][1] + offset)


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("file", "rootimg/etc/motd"),
        ("manifest", "build_info/manifest"),
        ("directory", "rootimg/etc"),
        ("property", ""),
    ],
)
def test_flipped_bit_in_the_repository(
    installation: Installation, packed: dict[str, str], what: str, named: str
) -> None:
    """Found and named before anything is packed; what is served stays."""
    if what == "file":
        flip_stored(installation, (LINE * 2).encode(), 3)
    elif what == "manifest":
        flip_stored(installation, b"./rootimg/etc/motd type=file", 4)
    elif what == "directory":
        flip_stored(installation, b"K 4\nmotd\nV ", 5)
    else:
        flip_stored(installation, b"K 13\nsvn:unix-mode\nV 5\n04755\n", 23)
    # What is kept needs nothing of it but the manifest.
    result = installation.run("pack", PROFILE, "-t", "t1", "--force", code=None)
    if what != "manifest":
        assert result.code == 0, str(result)
        assert "Warning" not in result.stderr
        assert contents(served(installation)) == contents(packed)
        packed = served(installation)
    with suppress(FileNotFoundError):
        shutil.rmtree(installation.state / "checkouts")
    result = installation.run("pack", PROFILE, "-t", "t1", "--force", code=1)
    assert PROFILE in result.error
    assert named in result.error, result.error
    assert served(installation) == packed
    assert not list((installation.state / "checkouts").rglob("tree*"))
    installation.assert_clean()


# -- several at once


@both
def test_verifies_at_once_and_one_that_is_killed(installation: Installation, packed: dict[str, str]) -> None:
    """While the kept checkout is used, each has one of its own; what a killed one leaves goes with the next run."""
    kept = installation.kept.parent
    with locked(kept / "lock", "used", Holder("a test", 1, "here", "then")):
        runs = [installation.start("verify", PROFILE, "-t", "t1") for _ in range(3)]
        runs.append(installation.start("pack", PROFILE, "-t", "t1", "--force"))
        results = [installation.finish(run) for run in runs]
        assert [str(result) for result in results if result.code] == []
        assert all(result.stdout.count("[ OK ]") == 2 for result in results[:3]), results
        assert sorted(path.name for path in kept.iterdir()) == ["lock", "tree"]
        run = installation.start("verify", PROFILE, "-t", "t1")
        wait_until(lambda: any(kept.glob("own.*/tree*")) or run.poll() is not None, 60)
        run.kill()
        assert installation.finish(run).code != 0
        assert any(kept.glob("own.*"))
    installation.assert_clean()
    installation.run("verify", PROFILE, "-t", "t1")
    assert sorted(path.name for path in kept.iterdir()) == ["lock", "tree"]
    assert contents(served(installation)) == contents(packed)


# -- killed in a commit


def assert_nothing_is_stale(installation: Installation) -> None:
    """Nothing of a commit that was killed is left, once another has gone well."""
    database = installation.repository / "db"
    assert list((database / "transactions").iterdir()) == []
    assert list((database / "txn-protorevs").iterdir()) == []
    # What is in memory goes with the run; where no later commit was by FSVS, its empty directory waits for the next.
    assert [path for path in (installation.state / "fsvs").rglob("*") if not path.is_dir()] == []
    branches = installation.trunk().replace("/trunk", "/branches")
    assert output(["svn", "ls", branches]) == ""
    builds = installation.tree().parent
    assert [path.name for path in builds.iterdir() if path.name.startswith(".")] == []
    installation.assert_clean()


def age_transactions(installation: Installation) -> None:
    """As if what was killed had been killed an hour ago: what is younger may be a commit that goes on."""
    past = time.time() - 3600
    for name in ("transactions", "txn-protorevs"):
        for path in (installation.repository / "db" / name).rglob("*"):
            os.utime(path, (past, past))


def kill_in_commit(installation: Installation, source: Path, seconds: float) -> Result:
    """Kill a create some time after its commit has begun to write."""
    contents = installation.repository / "db/txn-protorevs"
    run = installation.start("create", PROFILE, "--from", str(source))
    wait_until(lambda: any(contents.glob("*.rev")) or run.poll() is not None, 60)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        run.kill()
    return installation.finish(run)


def test_killed_at_any_time_of_a_commit(installation: Installation, source: Path, tmp_path: Path) -> None:
    """First commits, then later ones: whole or not there, and the next one works."""
    chance = random.Random(SEED)
    installation.store().prepare(installation.image(), "tester")
    installation.recipe("prepare_image_directory", "generate_image")
    many = source / "rootimg/usr/share/many"
    many.mkdir()
    for number in range(300):
        (many / f"{number}").write_bytes(chance.randbytes(40_000))
    cut = 0
    for later in (False, True):
        for _ in range(3):
            before = installation.youngest()
            if later:
                for number in range(200):
                    (many / f"{number}").write_bytes(chance.randbytes(40_000))
            result = kill_in_commit(installation, source, chance.uniform(0, 0.4))
            cut += result.code != 0
            installation.assert_clean()
            installation.verify_repository()
            youngest = installation.youngest()
            assert youngest - before in (0, 1)
            if youngest == 1:
                assert output(["svn", "ls", installation.trunk()]) == ""
        age_transactions(installation)
        (source / "rootimg/etc/issue").write_text(f"{later}\n")  # the one before may have been whole
        assert "Stored as revision" in installation.create(source).stdout
        installation.verify_repository()
        assert_nothing_is_stale(installation)
        out = installation.checkout(tmp_path / f"out.{later}")
        assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
    assert cut >= 2, "no run was interrupted"


def test_killed_at_any_time_of_a_commit_to_ostree(tmp_path: Path, source: Path) -> None:
    """The first commit and later ones: whole or not there, and the next one works."""
    chance = random.Random(SEED)
    installation = Installation(tmp_path / "site", engine="ostree")
    installation.recipe("prepare_image_directory", "generate_image")
    many = source / "rootimg/usr/share/many"
    many.mkdir()
    lock, cut = installation.repository / "avs/lock", 0
    for number in range(5):
        for name in range(0, 150, number + 1):
            (many / f"{name}").unlink(missing_ok=True)
            (many / f"{name}").write_bytes(chance.randbytes(40_000))
        before = installation.youngest() if number else 0
        run = installation.start("create", PROFILE, "--from", str(source))
        wait_until(lambda run=run: (lock.exists() and lock.stat().st_size) or run.poll() is not None, 60)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.3))
        with suppress(ProcessLookupError):
            run.kill()
        cut += installation.finish(run).code != 0
        installation.assert_clean()
        installation.verify_repository()
        assert installation.youngest() - before in (0, 1)
    assert cut >= 2, "no run was interrupted"
    (source / "rootimg/etc/issue").write_text("the last\n")
    assert "Stored as revision" in installation.create(source).stdout
    installation.verify_repository()
    assert lock.read_text() == ""
    assert [path.name for path in (installation.repository / "avs").iterdir()] == ["lock"]
    assert not [path.name for path in installation.tree().parent.iterdir() if path.name.startswith(".")]
    out = installation.checkout(tmp_path / "out")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
    assert not installation.close()


# -- few open files


FEW = ["prlimit", "--nofile=300:300"]


def change_many(many: Path, text: str) -> None:
    for number in range(150):
        (many / f"{number}").write_text(f"{number} {text}\n")
    (many / "0").unlink()
    (many / "1").unlink()
    (many / "1").symlink_to(text)
    for number in range(20):
        link = many / f"link.{number}"
        if link.is_symlink():
            link.unlink()
        link.symlink_to(f"{text}.{number}")
    (many / "new@1%20\nline").write_text(text)
    (many / "a b@1%20").write_text(text)


def test_more_contents_than_files_may_be_open(installation: Installation, source: Path, tmp_path: Path) -> None:
    """They go ahead, in several transactions, and nothing of that is left."""
    installation.recipe("prepare_image_directory", "generate_image")
    many = source / "rootimg/usr/share/many"
    many.mkdir()
    change_many(many, "first")
    installation.run("create", PROFILE, "--from", str(source), prefix=FEW)
    assert installation.youngest() == 2
    change_many(many, "second")
    installation.run("create", PROFILE, "--from", str(source), prefix=FEW)
    # 44 at a time: some go ahead, are copied in, and are removed.
    messages = output(["svn", "log", "-r", "3:HEAD", installation.url])
    assert messages.count("Contents that go ahead of a commit") >= 3
    assert messages.count("Image rebuild completed at") == 1
    installation.verify_repository()
    assert_nothing_is_stale(installation)
    out = installation.checkout(tmp_path / "out")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
    assert output(["rsync", "-rlpgoDXn", "--checksum", "--delete", "-i", f"{source}/rootimg/", f"{out}/"]) == ""
    # By FSVS alone too: the properties of what was copied in are there.
    exported = tmp_path / "exported"
    exported.mkdir()
    installation.store().export(installation.image(), Version(), exported)
    argv = ["rsync", "-rlpgoDn", "--checksum", "-i", f"{exported}/rootimg/", f"{out}/"]
    assert output(argv) == ""
    assert "no new revision" in installation.run("create", PROFILE, "--from", str(source), prefix=FEW).stdout

    # What a commit that was killed in between left is removed by the next.
    change_many(many, "third")
    url = installation.trunk().replace("/trunk", "/branches/.avs-incoming")
    output(["svn", "mkdir", "-q", "-m", "m", url])
    output(["svn", "mkdir", "-q", "-m", "m", f"{url}/7"])
    installation.run("create", PROFILE, "--from", str(source), prefix=FEW)
    assert_nothing_is_stale(installation)
    out = installation.checkout(tmp_path / "out.3")
    assert output([*RSYNC, f"{installation.tree()}/rootimg/", f"{out}/"]) == ""
