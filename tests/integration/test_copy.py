"""All that a store has of an image, copied into another one: both ways, killed, gone on with, and refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SECONDS, wait_until
from signers import Signers, signers

from integration.conftest import both, make_source
from integration.harness import PROFILE, Installation, copy, difference, look, output, refuse_warning, remove
from integration.test_remote import Server
from xcat_avs.errors import AvsError, NotFoundError
from xcat_avs.store import engines, signatures
from xcat_avs.store.copying import Copying, Pair, Plan, plan
from xcat_avs.store.protocol import MANIFEST, PROVENANCE, NewTag, Store, Version
from xcat_avs.store.signatures import Signing
from xcat_avs.store.trees import checkout_tree, commit_tree, stored_manifest
from xcat_avs.system.runner import Runner

pytestmark = pytest.mark.slow
OTHER = {"fsvs": "ostree", "ostree": "fsvs"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signers]:
    with signers(tmp_path_factory.mktemp("keys")) as made:
        made.ssh("alice")
        made.allow("alice")
        yield made


def signing(people: Signers, work: Path) -> Signing:
    work.mkdir(exist_ok=True, mode=0o700)
    return Signing(str(people.ssh("alice")), str(people.allow("alice")), "", work=work, runner=Runner())


def build(installation: Installation, tree: Path, number: int, profile: str = PROFILE) -> int:
    """One more revision, with a report and provenance; the number that it got."""
    info = tree / "build_info"
    info.mkdir(exist_ok=True)
    (info / "report").write_text(f"report {number}\n")
    (info / "provenance.json").write_text(f'{{"packages": {number}, "bytes": 5, "user": "ann"}}\n')
    (tree / "rootimg/etc/value").write_text(f"{number}\n")
    store, image = installation.store(), installation.image(profile)
    store.prepare(image, "ann")
    message = f"ann; Image rebuild completed at {number}\nreason {number} żółć"
    return commit_tree(store, image, tree, "ann", message, refuse_warning)[0].number


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, people: Signers) -> Installation:
    """Three revisions, with another image's between them, and two tags, one signed. Not to be changed."""
    top = tmp_path_factory.mktemp("history")
    installation = Installation(top / "site")
    tree = make_source(top / "source")
    os.link(tree / "rootimg/usr/share/zero", tree / "rootimg/usr/share/also")
    os.mkfifo(tree / "rootimg/run/fifo")
    (tree / "rootimg/usr/share/new\nline").write_text("carried\n")
    os.setxattr(tree / "rootimg/etc/passwd", "user.avs", b"kept")
    numbers = []
    for number in (1, 2):
        numbers.append(build(installation, tree, number))
        if number == 1:
            build(installation, tree, number, "example.test")
            remove(tree / "rootimg/usr/share/dir with space@5")
    # Somebody else's commit: the manifest that is there is older, and still true.
    numbers.append(
        int(output(["svnmucc", "-m", "by hand", "propset", "note", "x", installation.trunk()]).split()[0][1:])
    )
    store, image = installation.store(), installation.image()
    new = NewTag("v1", numbers[0], "bob", f"bob; Tag of revision {numbers[0]}\nfirst", real="uid 0 on there")
    store.tag(image, new)
    new = dataclasses.replace(new, name="v2", source=numbers[1], author="alice", message="alice; Tag of revision 2")
    store.tag(image, signing(people, top / "work").sign(store, image, new, "2026-01-02T03:04:05Z"))
    return installation


def opened(url: str, state: Path) -> Store:
    state.mkdir(exist_ok=True, mode=0o700)
    return engines.store(url, state, Runner(timeout=SECONDS), str)


def place(engine: str, top: Path) -> str:
    return f"{'ostree:' if engine == 'ostree' else 'file://'}{top}"


def run(source: Store, target: Store, installation: Installation, work: Path) -> tuple[Plan, list[Pair]]:
    image = installation.image()
    todo = plan(source, target, image)
    with_work = Copying(source, target, image, work, refuse_warning, lambda text: None)
    work.mkdir(exist_ok=True)
    return todo, list(with_work.copy(todo))


def facts(store: Store, installation: Installation) -> list[object]:
    """All that a store says of an image but the numbers: of its revisions, and of its tags with the place of theirs."""
    image = installation.image()
    log, tags = store.log(image), store.tags(image)
    places = {revision.number: place for place, revision in enumerate(log)}
    found: list[object] = [
        (item.first, item.date, item.author, item.message, item.real,
         *(store.read(image, Version(revision=item.number), path) for path in (MANIFEST, PROVENANCE))) for item in log
    ]  # fmt: skip
    found += [(tag.name, places[tag.source], tag.date, tag.author, tag.message, tag.real, tag.signature,
               store.read(image, Version(tag=tag.name), MANIFEST)) for tag in tags]  # fmt: skip
    summary = store.summaries([image])[image.name]
    return [*found, summary.date, summary.packages, summary.newest, store.newest_tags([image])]


def test_there_and_back(history: Installation, people: Signers, tmp_path: Path) -> None:
    """From FSVS to OSTree, with a run that ends in between, and back."""
    installation = history
    image, source = installation.image(), installation.store()
    target = opened(place("ostree", tmp_path / "store"), tmp_path / "state")
    wanted = facts(source, installation)

    # A run that ends after the first revision, as a kill would end it; its trees are gone, and the next goes on.
    begun = Copying(source, target, image, tmp_path / "one", refuse_warning, lambda text: None)
    (tmp_path / "one").mkdir()
    assert [revision.number for revision in plan(source, target, image).revisions] == [
        revision.number for revision in source.log(image)[::-1]
    ]
    steps = begun.copy(plan(source, target, image))
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    todo, done = run(source, target, installation, tmp_path / "two")
    assert (len(todo.pairs), len(done), [tag.name for tag, _ in todo.tags]) == (1, 2, ["v1", "v2"])
    assert facts(target, installation) == wanted
    numbers = [revision.number for revision in target.log(image)]
    assert numbers == [revision.number for revision in source.log(image)], "gaps and all"
    assert {revision.original for revision in target.log(image)} == {0}

    again = plan(source, target, image)
    assert (again.revisions, again.tags, again.further) == ([], [], 0)
    assert run(source, target, installation, tmp_path / "three")[1] == []

    # Back, by what stands in the copy alone: all of it is as it was, the signature too.
    back = opened(place("fsvs", tmp_path / "back"), tmp_path / "state")
    run(target, back, installation, tmp_path / "four")
    assert facts(back, installation) == wanted
    for store, name in ((target, "target"), (back, "back")):
        tag = store.tags(image)[1]
        signed = signing(people, tmp_path / "work").check(
            image, tag, signatures.digest(store, image, Version(tag="v2"))
        )
        assert (signed.result, signed.signer) == ("good", "alice@example.com"), signed
        for version in ("v1", "v2"):
            out = [tmp_path / f"{name}.{version}", tmp_path / f"{name}.{version}.was"]
            for given, path in ((store, out[0]), (source, out[1])):
                checkout_tree(given, image, Version(tag=version), path, refuse_warning)
            assert difference(look(out[0] / "rootimg"), look(out[1] / "rootimg")) == {}
            assert os.getxattr(out[0] / "rootimg/etc/passwd", "user.avs") == b"kept"

    # The image goes on there, and what was not copied yet is by the same call.
    tree = copy(tmp_path / "back.v2", tmp_path / "tree")
    (tree / "rootimg/etc/more").write_text("more\n")
    newest = commit_tree(back, image, tree, "ann", "ann; Image rebuild completed at 4", refuse_warning)[0]
    assert newest.number > back.log(image)[1].number
    later = plan(source, back, image)
    assert (later.revisions, later.tags, later.further) == ([], [], 1), "it has all of here, and more"
    assert [pair.old.number for pair in run(back, target, installation, tmp_path / "five")[1]] == [newest.number]
    for store in (back, target):
        store.tag(image, NewTag("v3", store.log(image)[0].number, "eve", "eve; Tag", real="uid 0"))
    with pytest.raises(AvsError, match=r"nothing was copied, .* its tag v3 is another one"):
        plan(back, target, image)
    # But not where the two have gone on by themselves.
    (tree / "rootimg/etc/more").write_text("other\n")
    commit_tree(target, image, tree, "ann", "ann; Image rebuild completed at 5", refuse_warning)
    (tree / "rootimg/etc/more").write_text("third\n")
    commit_tree(back, image, tree, "ann", "ann; Image rebuild completed at 6", refuse_warning)
    with pytest.raises(AvsError, match=r"nothing was copied, for .* has another history of it: after revision"):
        plan(back, target, image)


def test_to_a_server(history: Installation, tmp_path: Path, server: Server) -> None:
    """Where dates cannot be set, for no hook allows it, and the author is who logs in."""
    installation = history
    target = opened(server.url, tmp_path / "state")
    run(installation.store(), target, installation, tmp_path / "work")
    assert facts(target, installation) == facts(installation.store(), installation)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("svnserve") is None:
        pytest.skip("not installed: svnserve")
    made = Server(tmp_path / "server", "anon-access = write\n")
    made.create()
    made.start()
    try:
        yield made
    finally:
        made.kill()


@both
def test_the_command(installation: Installation, source: Path, tmp_path: Path) -> None:
    """Killed as soon as something is there; again; once more; and then used in place of the old one."""
    installation.recipe("prepare_image_directory", "generate_image")
    for number in range(1, 4):
        (source / "rootimg/etc/value").write_text(f"{number}\n" * 10)
        installation.create(source, "-m", f"reason {number}", "-u", "ann")
    installation.run("tag", PROFILE, "-t", "v1", "-u", "bob")
    installation.run("pack", PROFILE, "-t", "v1")
    url, image = place(OTHER[installation.engine], tmp_path / "copied"), installation.image()
    before, old = look(installation.top / "store"), installation.store()
    planned = installation.run("copy", PROFILE, "--to", url, "--dry-run", "--json").document
    assert not (tmp_path / "copied").exists()
    assert (planned["tags"], [item["there"] for item in planned["revisions"]]) == (["v1"], [None] * 3)

    process = installation.start("copy", PROFILE, "--to", url)
    target = opened(url, tmp_path / "state")
    wait_until(lambda: target.identity() and target.log(image))
    os.killpg(process.pid, signal.SIGKILL)
    installation.finish(process)
    wait_until(lambda: not installation.leftovers())
    count = len(opened(url, tmp_path / "state").log(image))
    assert 1 <= count <= 3
    document = installation.run("copy", PROFILE, "--to", url, "--json").document
    assert (len(document["revisions"]), document["tags"], document["not_copied"]) == (3 - count, ["v1"], {})
    again = installation.run("copy", PROFILE, "--to", url)
    assert (
        f"Nothing to copy: {opened(url, tmp_path / 'state').url(image)} has all 3 revisions and 1 tag of"
        in again.stdout
    )
    assert f"Next: set store = {url} below [paths] in avs.conf" in again.stdout
    assert [path.name for path in installation.kept.parent.iterdir() if path.name.startswith("own.")] == []
    assert difference(before, look(installation.top / "store")) == {}, "the store copied from is only read"

    # What cannot be, each in its own words, and the copy stays as it is.
    new = opened(url, tmp_path / "state")
    for words, error in (
        (["--to", installation.url], "is the store that is copied from"),
        ([], "mode copy needs --to URL"),
        (["--to", "nothing:/at/all"], "is no URL of a Subversion repository"),
        (["--to", f"ostree:{installation.top}"], "holds other things, and no OSTree repository"),
    ):
        assert error in installation.run("copy", PROFILE, *words, code=1).error
    assert "has no revision in" in installation.run("copy", "example.test", "--to", url, code=1).error

    dates = [(item.date, item.author, item.message) for item in old.log(image)]
    installation.configure("paths", store=url)
    listed = [installation.run(mode, PROFILE).stdout for mode in ("log", "list-tags")]
    assert ["WAS" in text for text in listed] == [OTHER[installation.engine] == "fsvs"] * 2
    assert [(item.date, item.author, item.message) for item in new.log(image)] == dates
    shown = installation.run("show", PROFILE).stdout
    assert ("which was 3 in the store that it was made in" in shown) is (OTHER[installation.engine] == "fsvs")
    # What is served is what the copy gives, to the byte, though that has another number.
    remove(installation.kept.parent)
    verified = installation.run("verify", PROFILE, "-t", "v1", "--deep", "--reproduce").stdout
    assert "packed again, all 3 files come out the same, to the byte" in verified
    assert "nothing was done" in installation.run("pack", PROFILE, "-t", "v1").stdout
    assert "no new revision" in installation.create(source).stdout

    if installation.engine == "ostree":
        return
    # A store with a history of its own is left alone.
    other = place("ostree", tmp_path / "other")
    (source / "rootimg/etc/value").write_text("other\n")
    installation.create(source, "-s", other, "--new-store")
    was = look(tmp_path / "other")
    error = installation.run("copy", PROFILE, "--to", other, code=1).error
    assert "nothing was copied, for" in error
    assert "has another history of it: 1 revision, none of them from here" in error
    assert difference(was, look(tmp_path / "other")) == {}
    # One that was used and is gone may be on a disk that is not mounted.
    installation.configure("paths", store=place("fsvs", installation.repository))
    (tmp_path / "copied").rename(tmp_path / "away")
    error = installation.run("copy", PROFILE, "--to", url, code=1).error
    assert "there was one: " in error
    assert "To begin a new, empty store there all the same, give --new-store" in error


def test_what_avs_image_mgr_made(installation: Installation, source: Path, tmp_path: Path) -> None:
    """Revisions without a manifest get one; build_info that was a file is the report; a tag that was changed stays away."""
    base, image, work = (
        f"{installation.url}/netboot/rocky9.4/x86_64/{PROFILE}",
        installation.image(),
        tmp_path / "working",
    )
    env = {**os.environ, "LC_ALL": "C.UTF-8", "FSVS_CONF": f"{work}/conf", "FSVS_WAA": f"{work}/waa"}
    installation.repository.parent.mkdir(parents=True)
    for directory in ("conf", "waa"):
        (work / directory).mkdir(parents=True)
    output(["svnadmin", "create", str(installation.repository)])
    output(
        [
            "svn",
            "mkdir",
            "-q",
            "--parents",
            "-m",
            "initial layout",
            *(f"{base}/{name}" for name in ("trunk", "tags", "branches")),
        ]
    )

    def commit(message: str) -> None:
        for words in (["initialize", f"{base}/trunk"], ["sync-repos"], ["-o", "author=ann", "ci", "-m", message]):
            subprocess.run(["fsvs", "-q", *words], cwd=source, env=env, check=True, timeout=SECONDS)

    (source / "build_info").write_text("the first report\n")
    commit("ann; Image rebuild completed at Mon Mar  4 10:00:00 CET 2013\none")
    first = copy(source, tmp_path / "first")
    (source / "build_info").unlink()
    (source / "build_info").mkdir()
    (source / "build_info/report").write_text("the second report\n")
    time.sleep(1.1)  # FSVS misses a change within a second
    (source / "rootimg/etc/passwd").write_text("changed by the second\n")
    commit("two")
    output(["svn", "mkdir", "-q", "-m", "something else", f"{installation.url}/elsewhere"])
    output(["svn", "cp", "-q", "-m", "bob; tag v1", f"{base}/trunk", f"{base}/tags/v1"])
    output(["svn", "cp", "-q", "-m", "bob; tag v2", f"{base}/trunk", f"{base}/tags/v2"])
    output(["svnmucc", "-m", "by hand", "rm", f"{base}/tags/v2/kernel"])

    url = place("ostree", tmp_path / "copied")
    said = installation.run("copy", PROFILE, "--to", url, code=1)
    old, new = installation.store(), opened(url, tmp_path / "state")
    number = old.log(image)[0].number
    assert (
        f"Tag v2 was not copied: it is not what revision {number} is: it was changed after it was made" in said.stdout
    )
    assert [(item.number, item.date, item.author, item.message) for item in new.log(image)] == [
        (item.number, item.date, item.author, item.message) for item in old.log(image)
    ]
    tags = new.tags(image)
    assert [(tag.name, tag.source, tag.author) for tag in tags] == [("v1", number, "bob")]
    assert stored_manifest(new, image, Version(tag="v1")) is not None
    for version, tree in ((Version(revision=old.log(image)[1].number), first), (Version(tag="v1"), source)):
        out = tmp_path / str(version)
        checkout_tree(new, image, version, out, refuse_warning)
        assert difference(look(tree / "rootimg"), look(out / "rootimg")) == {}
    assert new.read(image, Version(revision=old.log(image)[1].number), "build_info/report") == b"the first report\n"
    assert new.read(image, Version(tag="v1"), "build_info/report") == b"the second report\n"
    assert installation.run("copy", PROFILE, "--to", url, code=1).stdout.startswith("Nothing to copy: ")

    # The other way round, the two are two stores: a manifest is there now, and was not before.
    with pytest.raises(NotFoundError):
        old.read(image, Version(revision=number), MANIFEST)
