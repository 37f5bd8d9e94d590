"""Many hands: two machines, each with a state directory of its own, on one store and one INSTALLDIR."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Result, kill, wait_until

from integration.conftest import ENGINES
from integration.harness import PROFILE, Installation, osimage_name, refuse_warning
from xcat_avs.store.protocol import MANIFEST, Version
from xcat_avs.store.trees import checkout_tree

pytestmark = pytest.mark.slow
NAME = osimage_name(PROFILE)
FILES = ("etc/one", "etc/two", "usr/lib/three", "usr/lib/deep/four")
COMMANDS = 30  # on each store
# Why a command may be refused while others work on the same image.
REASONS = re.compile(
    r"\S+ is being (built|packed) by \w+ \(process \d+ on |is being changed by \w+ \(process \d+ on "
    "|somebody else has committed to .* no revision of this build was stored"
    "|nothing was stored: somebody else has committed to "
    "|: no set was served before|has no tag|was not published by avsimage"
)
SLOW = (
    "import time\ndef run(ctx):\n    '''Wait.'''\n    while not (ctx.root / 'go').exists():\n        time.sleep(0.01)\n"
)


@pytest.fixture
def machines(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Installation, Installation]]:
    """Two installations that share the store and the directory that is served."""
    engine = getattr(request, "param", "fsvs")
    one, two = Installation(tmp_path / "one", engine), Installation(tmp_path / "two", engine)
    two.repository, two.installdir = one.repository, one.installdir
    two.define(PROFILE)
    yield one, two
    left = [*one.close(), *two.close()]
    assert not left, f"left behind: {left}"


def tree(top: Path, stamp: str) -> Path:
    """A tree that says in each of its files which build it is of."""
    for name in FILES:
        path = top / stamp / "rootimg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{stamp}\n")
    (top / stamp / "kernel").write_text(f"{stamp}\n")
    return top / stamp


def stamp(top: Path) -> str:
    """The one build that all files of a version are of."""
    found = {path.read_text() for path in [top / "kernel", *(top / "rootimg" / name for name in FILES)]}
    assert len(found) == 1, f"mixed: {found}"
    return found.pop().strip()


both = pytest.mark.parametrize("machines", ENGINES, indirect=True)
STARTING = threading.Lock()


def do(machine: Installation, *argv: str) -> Result:
    """Run a command in one of several threads."""
    with STARTING:
        process = machine.start(*argv)
    return machine.finish(process)


def done_or_refused(result: Result) -> bool:
    """Whether it was done; a refusal is one of those that are meant."""
    if result.code:
        assert REASONS.search(result.error), str(result)
    return result.code == 0


def versions(machine: Installation, top: Path) -> dict[str, str]:
    """Each revision and tag in the store -> the build that it is of; all are proven by their manifests, a tag by that of its revision."""
    store, image = machine.store(), machine.image()
    found = {}
    for item in store.log(image):
        target = top / str(item.number)
        target.mkdir(parents=True)
        checkout_tree(store, image, Version(revision=item.number), target, refuse_warning)
        found[str(item.number)] = stamp(target)
    for tag in store.tags(image):
        kept = store.read(image, Version(tag=tag.name), MANIFEST)
        assert kept == (top / str(tag.source) / MANIFEST).read_bytes(), tag
        found[tag.name] = found[str(tag.source)]
    return found


@both
def test_many_commands_of_two_machines(machines: tuple[Installation, Installation], tmp_path: Path) -> None:
    made = random.Random(11)
    tags, lock, committed = list[str](), threading.Lock(), set[str]()

    def create(machine: Installation, number: int) -> Result:
        name = f"build-{number}"
        result = do(machine, "create", PROFILE, "--from", str(tree(tmp_path / "trees", name)), "-m", name)
        if result.code == 0:
            committed.add(name)
        return result

    def tag(machine: Installation, number: int) -> Result:
        result = do(machine, "tag", PROFILE, "-t", f"t{number}")
        if result.code == 0:
            with lock:
                tags.append(f"t{number}")
        return result

    def pack(machine: Installation, number: int) -> Result:
        with lock:
            name = made.choice(tags[-4:])
        return do(machine, "pack", PROFILE, "-t", name, *(["--force"] if number % 2 else []))

    def verify(machine: Installation, _: int) -> Result:
        return do(machine, "verify", PROFILE)

    def rollback(machine: Installation, _: int) -> Result:
        return do(machine, "rollback", PROFILE)

    def list_tags(machine: Installation, _: int) -> Result:
        return do(machine, "list-tags", PROFILE)

    for machine, number in zip(machines, (1000, 1001)):
        assert done_or_refused(create(machine, number))
    assert done_or_refused(tag(machines[0], 1000))
    kinds: list[Callable[[Installation, int], Result]] = [
        create, tag, pack, list_tags, rollback, verify, rollback, pack, tag, list_tags,
    ]  # fmt: skip
    jobs = [(kinds[number % len(kinds)], machines[made.randrange(2)], number) for number in range(COMMANDS)]
    made.shuffle(jobs)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda job: (job[0].__name__, job[0](job[1], job[2])), jobs))
    done = [name for name, result in results if done_or_refused(result)]
    # Which of them are refused goes by who comes first; a rollback needs two packs before it.
    assert {kind.__name__ for kind in kinds} - {"rollback"} <= set(done), "each kind was done at least once"
    machines[0].verify_repository()
    found = versions(machines[0], tmp_path / "out")
    assert set(found.values()) <= committed
    assert set(tags) == {name for name in found if not name.isdigit()}
    served = machines[0].served()
    record = json.loads((served / "avs.json").read_text())
    assert (served / "kernel").read_text().strip() == found[record["tag"]]
    archive = gzip.decompress((served / record["archive"]).read_bytes())
    assert set(re.findall(rb"build-\d+", archive)) == {found[record["tag"]].encode()}
    hidden = [path.name for path in served.parent.iterdir() if path.name.startswith(".")]
    assert set(hidden) <= {f".{PROFILE}.avs-previous"}
    for machine in machines:
        machine.run("verify", PROFILE)
        machine.assert_clean()


@both
def test_two_builders_of_one_trunk(machines: tuple[Installation, Installation], tmp_path: Path) -> None:
    """From an empty store on, both at once: what is stored is of one of them, each time."""
    for number in range(2):
        names = [f"build-{number}{letter}" for letter in "ab"]
        runs = [
            (machine, machine.start("create", PROFILE, "--from", str(tree(tmp_path / "trees", name)), "-m", name))
            for machine, name in zip(machines, names)
        ]
        results = [done_or_refused(machine.finish(run)) for machine, run in runs]
        assert any(results), "the first one is stored"
    machines[0].verify_repository()
    found = versions(machines[0], tmp_path / "out")
    assert len(found) >= 2
    assert found[max(found, key=int)].startswith("build-1")


def test_what_runs_is_told(machines: tuple[Installation, Installation], tmp_path: Path) -> None:
    """By the error of the second one, and by status: who, where, since when, and at which step."""
    one, two = machines
    one.site_file("procedures/common/wait.py", SLOW)
    one.recipe("prepare_image_directory", "generate_image", "wait")
    source = tree(tmp_path / "trees", "build-1")
    run = one.start("create", PROFILE, "--from", str(source), "-u", "ann")
    lock = one.state / "locks" / f"{NAME}.build"
    wait_until(lambda: lock.is_file() and "wait" in lock.read_text())
    status = one.run("status")
    since = r"since 20\S+ \S+ \S+"
    assert re.search(
        rf"^\(no osimage has been packed yet\)\n\n{NAME} is being built by ann \(process {run.pid} on \S+\) {since}: "
        rf"wait \(step 3 of 3\), {since}$", status.stdout, re.MULTILINE,
    ), status  # fmt: skip
    running = one.run("status", PROFILE, "--json").document["running"]
    assert [(item["osimage"], item["activity"], item["user"], item["pid"], item["doing"]) for item in running] == [
        (NAME, "build", "ann", run.pid, "wait (step 3 of 3)")
    ]
    said = rf"{NAME} is being built by ann \(process {run.pid} on \S+, since \S+Z\), now at wait \(step 3 of 3\), since \S+Z; "
    assert re.search(said + "wait until it is done$", one.create(source, code=1).error)
    assert two.run("status", "--json").document["running"] == [], "a build is of one machine"
    (one.tree() / "rootimg/go").touch()
    assert one.finish(run).code == 0
    assert one.run("status", "--json").document["running"] == []


def test_a_pack_of_another_machine_and_one_that_is_killed(
    machines: tuple[Installation, Installation], tmp_path: Path
) -> None:
    one, two = machines
    one.create(tree(tmp_path / "trees", "build-1"))
    one.run("tag", PROFILE, "-t", "t1")
    one.extra["PATH"] = f"{_stopping_gzip(tmp_path)}:{one.environment['PATH']}"
    run = one.start("pack", PROFILE, "-t", "t1", "-u", "ann")
    wait_until((tmp_path / "stopped").exists)
    lock = one.served().with_name(f".{PROFILE}.avs-lock")
    assert lock.stat().st_mode & 0o077 == 0
    for argv in (["pack", PROFILE, "-t", "t1"], ["rollback", PROFILE]):
        error = two.run(*argv, code=1).error
        assert f"{one.served()} is being changed by ann (process {run.pid} on " in error
        assert "now at packing t1 (step 2 of 3), since" in error
    (item,) = two.run("status", "--json").document["running"]
    assert (item["activity"], item["pid"], item["doing"]) == ("pack", run.pid, "packing t1 (step 2 of 3)")
    kill(run)
    wait_until(lambda: not one.leftovers())
    assert two.run("status", "--json").document["running"] == []
    two.run("pack", PROFILE, "-t", "t1")
    assert not lock.exists()


def _stopping_gzip(tmp_path: Path) -> Path:
    """A directory with a gzip, by all its names, that says that it was started and waits."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("gzip", "pigz", "igzip"):
        (directory / name).write_text(f"#!/bin/sh\n: > {tmp_path}/stopped\nexec sleep 60\n")
        (directory / name).chmod(0o755)
    return directory


def test_osimages_that_share_a_directory(machines: tuple[Installation, Installation], tmp_path: Path) -> None:
    """The lock is that of the directory: whichever osimage it is packed as."""
    one, _ = machines
    one.define("example.test", rootimgdir=str(one.served()))
    one.create(tree(tmp_path / "trees", "build-1"))
    one.run("tag", PROFILE, "-t", "t1")
    runs = [one.start("pack", PROFILE, "-t", "t1", "--force", *more) for more in ([], ["-x", "example.test"]) * 2]
    results = [done_or_refused(one.finish(run)) for run in runs]
    assert any(results)
    one.run("verify", PROFILE, code=None)
    assert subprocess.run(["gzip", "-t", str(one.served() / "rootimg.cpio.gz")], check=False).returncode == 0
