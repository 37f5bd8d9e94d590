"""An installation to be hard on, the commands that are run there, and what has to be true after each of them."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import re
import select
import shutil
import socket
import subprocess
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from harness import Result, mounts_below, wait_until
from integration.conftest import make_source
from integration.harness import ADDED, PROFILE, Installation, Look, difference, look, osimage_name, output, remove

from faults import inside

METHODS = ("cpio", "tar", "squashfs")
SOURCE_BYTES = 150_000  # of noise that is another one in each version
NOTHING = Path("/nowhere")
NUMBERS = itertools.count()
Act = Callable[[subprocess.Popen[Any], Callable[[], None]], None]


@dataclass(frozen=True)
class Place:
    """Where a directory of an installation is, when not below it: `state` -> a small file system."""

    name: str = ""
    directory: Path = NOTHING


class Runs(ABC):
    """Runs of the command that stop where they are told to."""

    def __init__(self, top: Path) -> None:
        self.top, self.chance = top, random.Random(1)
        self.counts: dict[str, int] = {}
        self.listener = socket.socket(socket.AF_UNIX)
        # No file: its name could be too long, and would stay where making a world fails.
        self.address = f"@avs-faults.{os.getpid()}.{next(NUMBERS)}"
        self.listener.bind(self.address.replace("@", "\0"))
        self.listener.listen(8)

    @abstractmethod
    def launch(self, words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[Any]:
        """Start the command with more variables."""

    @abstractmethod
    def finish(self, process: subprocess.Popen[Any]) -> Result:
        """Wait for it."""

    def start(self, words: Sequence[str], stop: int, trace: str = "") -> subprocess.Popen[Any]:
        env = {
            inside.NAME: "1",
            inside.STOP: str(stop),
            inside.SOCKET: self.address,
            inside.TRACE: trace,
        }
        return self.launch(words, env)

    def count(self, name: str, words: Sequence[str]) -> None:
        """Note how many operations an undisturbed run has."""
        trace = self.top / "trace"
        result = self.finish(self.start(words, 1 << 40, str(trace)))
        assert result.code == 0, str(result)
        self.counts[name] = len(trace.read_bytes().splitlines())
        trace.unlink()

    def stopped(self, words: Sequence[str], stop: int, act: Act) -> Result:
        """A run that stops before its operation of that number, where act is called with it and with what lets it go on.

        Where it ends before, act is not called.
        """
        process = self.start(words, stop)
        descriptor = os.pidfd_open(process.pid)
        try:
            ready = select.select([self.listener.fileno(), descriptor], [], [], 60)[0]
        finally:
            os.close(descriptor)
        if self.listener.fileno() in ready:
            connection, _ = self.listener.accept()
            with connection:
                act(process, connection.close)
        return self.finish(process)

    def close(self) -> None:
        self.listener.close()


class World(Runs):
    """Two tags, both packed, of an image of some 40 paths. Everything is below top; close() takes it away."""

    def __init__(
        self, top: Path, engine: str, place: Optional[Place] = None, env: Optional[dict[str, str]] = None
    ) -> None:
        super().__init__(top)
        top.mkdir(parents=True)
        self.place, self.site = place or Place(), Installation(top / "site", engine)
        self.foreign: set[str] = set()  # mounts that are not of the program
        self.source = make_source(top / "source")
        self.version, self.tags = 0, 0
        self.looks: dict[int, Look] = {}
        self.whole: dict[tuple[object, ...], int] = {}
        self.site.extra.update(env or {})
        self._settle()
        self.site.site_file("procedures/el/talk.sh", "#!/bin/sh\n# Say much\nseq 3000 || exit 1\n", 0o755)
        self.site.recipe("prepare_image_directory", "generate_image", "talk")

    def _settle(self) -> None:
        directory, site = self.place.directory, self.site
        name = self.place.name
        if name in ("state", "logs"):
            setattr(site, name, directory / name)
        elif name == "store":
            site.repository = directory / "repo"
        elif name == "install":
            site.installdir = directory / "install"
            site.installdir.mkdir()
            site.configure("paths", installdir=str(site.installdir))
        elif name == "tmp":
            site.extra["TMPDIR"] = str(directory)
        elif name == "staging":
            (site.state / "staging").mkdir(parents=True, mode=0o700)
            output(["mount", "--bind", str(directory), str(site.state / "staging")])
            self.foreign.add(str(site.state / "staging"))
        site.configure("paths", state=str(site.state), logs=str(site.logs), store=site.url)

    def begin(self) -> World:
        """Make the two tags; it is in a constructor's place, for whoever changes something before."""
        if self.site.engine == "ostree":
            self.mirror.mkdir()
            self.site.store().prepare(self.site.image(), "ann")
            output(["ostree", "config", f"--repo={self.site.repository}", "set", "avs.mirror", str(self.mirror)])
        for tag in ("t1", "t2"):
            self.change(self.source / "rootimg")
            self.site.create(self.source)
            self.site.run("tag", PROFILE, "-t", tag)
            self.site.run("pack", PROFILE, "-t", tag)
        self.site.run("verify", PROFILE, "-t", "t1")  # its checkout is kept, so the next one is like all others
        self.check()
        return self

    @property
    def mirror(self) -> Path:
        """Of an OSTree repository, for other machines."""
        return self.top / "mirror"

    def mirrored(self) -> None:
        """The mirror is whole, and has what the repository has."""
        refs = [
            output(["ostree", "rev-parse", f"--repo={path}", *self._refs(path)])
            for path in (self.site.repository, self.mirror)
        ]
        assert refs[0] == refs[1], "the mirror is of another time"
        output(["ostree", "fsck", "--quiet", f"--repo={self.mirror}"])

    @staticmethod
    def _refs(repository: Path) -> list[str]:
        return sorted(output(["ostree", "refs", f"--repo={repository}"]).split())

    def change(self, root: Path) -> None:
        """Make the next version of a tree; the sources of both have the same one."""
        self.version += 1
        for name in ("etc/issue", "usr/share/noise"):
            if os.path.lexists(root / name):
                remove(root / name)
        mark = f"version {self.version}\n"
        noise = random.Random(self.version).randbytes(SOURCE_BYTES)
        (root / "etc/issue").write_text(mark)
        (root / "usr/share/noise").write_bytes(noise)
        (root / f"usr/share/only.{self.version % 3}").write_text(mark)
        (root / f"usr/share/only.{(self.version - 1) % 3}").unlink(missing_ok=True)
        (root.parent / "kernel").write_text(mark)
        self.looks[self.version] = look(root, times=False)

    def launch(self, words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[Any]:
        before = dict(self.site.extra)
        self.site.extra.update(env)
        try:
            return self.site.start(*words)
        finally:
            self.site.extra.clear()
            self.site.extra.update(before)

    def finish(self, process: subprocess.Popen[Any]) -> Result:
        return self.site.finish(process, 60)

    # what has to be true

    def served(self) -> int:
        """The version that nodes get: read by programs that are not ours, whole, and all of one version."""
        rootimgdir = self.site.served()
        archive = next(path for path in sorted(rootimgdir.iterdir()) if path.name.startswith("rootimg."))
        status = archive.stat()
        assert status.st_mode & 0o777 == 0o644, oct(status.st_mode)
        key = (os.readlink(rootimgdir), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in self.whole:
            self.whole[key] = self._read(archive)
        kernel = (rootimgdir / "kernel").read_text()
        assert kernel == f"version {self.whole[key]}\n", f"kernel of {kernel!r}, archive of version {self.whole[key]}"
        return self.whole[key]

    def _read(self, archive: Path) -> int:
        """Unpack an archive as others do, and compare it path by path with what was built."""
        out = self.top / "unpacked"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if archive.name == "rootimg.cpio.gz":
            output(["gzip", "-t", str(archive)])
            script = 'gzip -dc "$1" | cpio --quiet -idm -D "$2"'
            output(["sh", "-c", script, "sh", str(archive), str(out)])
        elif archive.name == "rootimg.sfs":
            output(["unsquashfs", "-q", "-n", "-f", "-d", str(out), str(archive)])
        else:
            with tarfile.open(archive) as stream:
                stream.extractall(out)
        version = int((out / "etc/issue").read_text().split()[1])
        found = {path: what for path, what in look(out, times=False).items() if path not in ADDED and path != "."}
        wanted = {path: what for path, what in self.looks[version].items() if path != "."}
        different = difference(wanted, found)
        assert not different, f"{archive.name} of version {version} is not what was built: {different}"
        return version

    def stored(self, path: str = "trunk") -> int:
        """The version that a path of the repository holds."""
        where = f"{self._where()}/{path}"
        if self.site.engine == "ostree":
            argv = ["ostree", "cat", f"--repo={self.site.repository}", where, "/rootimg/etc/issue"]
        else:
            argv = ["svnlook", "cat", str(self.site.repository), f"{where}/rootimg/etc/issue"]
        return int(output(argv).split()[1])

    def tagged(self) -> set[str]:
        where = f"{self._where()}/tags"
        if self.site.engine == "ostree":
            argv = ["ostree", "refs", f"--repo={self.site.repository}", where]
        else:
            argv = ["svnlook", "tree", "-N", "--full-paths", str(self.site.repository), where]
        return {line.rstrip("/").rpartition("/")[2] for line in output(argv).splitlines()}

    def _where(self) -> str:
        """Where the repository has the image."""
        return self.site.trunk().removeprefix(self.site.url)[1:].removesuffix("/trunk")

    def leftovers(self) -> list[str]:
        found = [item for item in self.site.leftovers() if item not in self.foreign]
        loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
        return [*found, *(text for text in loops if str(self.top) in text), *self.held()]

    def held(self) -> list[str]:
        """Locks that somebody still holds."""
        site, found = self.site, []
        paths = [*(site.state / "locks").glob("*"), *(site.state / "checkouts").glob("*/lock")]
        for path in [*paths, *site.served().parent.glob(".*.avs-lock")]:
            with open(path, "rb") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    found.append(f"lock {path}")
        return found

    def check(self) -> int:
        """What is true however a command ends; returns the version that is served."""
        wait_until(lambda: not self.leftovers(), 8, lambda: f"left behind: {self.leftovers()}")
        self.site.verify_repository()
        return self.served()

    def kept(self) -> set[str]:
        """What the state directory, the directory of temporary files and the served one hold, by the names that matter."""
        site = self.site
        tops = (site.state, site.top / "tmp", site.installdir / "netboot")
        found = {
            os.path.join(where, name)
            for top in tops
            for where, names, files in os.walk(top)
            for name in (*names, *files)
        }
        return {re.sub(r"@t[12](@\d+)?|\.t[12](\.\d+)?", "@tag", path) for path in found}

    def close(self) -> None:
        super().close()
        for point in sorted(mounts_below(self.top), reverse=True):
            subprocess.run(["umount", point], check=False, timeout=30)
        self.site.close()
        with suppress(OSError):
            shutil.rmtree(self.top)


# -- the commands


@dataclass(frozen=True)
class Command:
    """A command: words(world) prepares what it is to do. proven(world, result of the one that went well)."""

    name: str
    words: Callable[[World], list[str]]
    proven: Callable[[World], None]
    trivial: Callable[[World], bool] = lambda _: False  # whether a repeated one is right to refuse, for all is done


def _create(world: World) -> list[str]:
    world.change(world.source / "rootimg")
    return ["create", PROFILE, "--from", str(world.source)]


def _commit(world: World) -> list[str]:
    """Steps that are done are not repeated, so nearly all of it is the commit."""
    tree = world.site.tree()
    if not (tree / "rootimg/etc/issue").exists():
        world.site.create(world.source)
    world.change(tree / "rootimg")
    return ["create", PROFILE, "--from", str(world.source), "-b"]


def _tag(world: World) -> list[str]:
    world.tags += 1
    return ["tag", PROFILE, "-t", f"k{world.tags}"]


def _other(world: World) -> str:
    return "t1" if world.served() == 2 else "t2"


def _pack(world: World) -> list[str]:
    return ["pack", PROFILE, "-t", _other(world), "--force", "--method", world.chance.choice(METHODS)]


def _prune(world: World) -> list[str]:
    """A revision that is not the newest any more, and not tagged, is there to go."""
    world.change(world.source / "rootimg")
    world.site.create(world.source)
    return ["prune", PROFILE, "--keep", "1"]


def _is_pruned(world: World) -> None:
    """No revision is left but those of tags and the newest."""
    _is_stored(world)
    if world.site.engine == "ostree":
        store, image = world.site.store(), world.site.image()
        newest, *others = [revision.number for revision in store.log(image)]
        left = set(others) - {tag.source for tag in store.tags(image)}
        assert not left, f"left beside revision {newest}: {left}"


def _rollback(world: World) -> list[str]:
    return ["rollback", PROFILE, "-t", _other(world)]


def _is_stored(world: World) -> None:
    assert world.stored() == world.version, f"trunk holds version {world.stored()}, not {world.version}"


def _is_tagged(world: World) -> bool:
    return f"k{world.tags}" in world.tagged()


def _has_tag(world: World) -> None:
    assert _is_tagged(world), f"no tag k{world.tags}"
    assert world.stored(f"tags/k{world.tags}") == world.stored()


COMMANDS = {
    command.name: command
    for command in (
        Command("create", _create, _is_stored),
        Command("commit", _commit, _is_stored),
        Command("tag", _tag, _has_tag, _is_tagged),
        Command("pack", _pack, lambda _: None),
        Command("rollback", _rollback, lambda _: None),
        Command("prune", _prune, _is_pruned),
        Command("verify", lambda _: ["verify", PROFILE, "-t", "t1"], lambda _: None),
    )
}


def again(world: World, command: Command, words: Sequence[str]) -> None:
    """The same command succeeds now, and has done what it is for."""
    refused = command.trivial(world)
    result = world.site.run(*words, code=None)
    assert result.code == 0 or refused, f"the same again: {' '.join(words)}: {result}"
    assert "Traceback" not in result.stderr, str(result)
    command.proven(world)
    if world.site.engine == "ostree" and command.name in ("create", "commit", "tag", "prune"):
        world.mirrored()
    served = world.check()
    if command.name in ("pack", "rollback"):
        wanted = int(words[words.index("-t") + 1][1:])
        assert served == wanted, f"version {served} is served, and {wanted} was to be"


NAME = osimage_name(PROFILE)
