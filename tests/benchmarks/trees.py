"""The trees that the store benchmark works on, and independent looks at them (find, rsync)."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("worker.py")

COMMON = (
    "linux-image-amd64,initramfs-tools,systemd-sysv,dbus,ifupdown,isc-dhcp-client,iproute2,iputils-ping,openssh-server,"
    "ca-certificates,less,vim,git,gcc,g++,make,python3,perl,man-db,rsync,strace,nfs-common,chrony,gdb,tmux,curl,wget,"
    "locales,manpages,manpages-dev"
)
PACKAGES = {
    "reference": COMMON + ",tcpdump,autofs",
    "rebuild": COMMON + ",environment-modules,python3-numpy,ethtool,lsof",
}
LEAST_BYTES, LEAST_FILES = 600 * 10**6, 25_000
BUILD_SECONDS, LOOK_SECONDS = 1800, 900
GENERATED_WITHIN = 15 * 60  # seconds; what is as young as the end of a build was made by it, not by a package
OLD = 1_600_000_000  # the time that files of a package have in a generated tree

# What rsync -i says of an attribute: its place in the line, and a name for it.
ATTRIBUTES = {2: "contents", 3: "size", 4: "times", 5: "modes", 6: "owners", 7: "groups", 9: "ACLs", 10: "xattrs"}


class BenchmarkError(Exception):
    """What stopped the benchmark."""


@dataclass(frozen=True)
class Size:
    """entries: paths of every kind. files: regular files. bytes: of their contents."""

    entries: int
    files: int
    bytes: int


@dataclass
class Comparison:
    """How a tree differs from the one it should be. known: losses that are expected, by kind. wrong: all else, a line each."""

    known: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Difference:
    """What a rebuild changed: paths below the root image."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # regular files of other contents

    def paths(self) -> list[str]:
        return [*self.added, *self.removed, *self.changed]


def run(argv: Sequence[str], seconds: float = LOOK_SECONDS, **options: object) -> str:
    """What a program prints. Raises BenchmarkError if it fails."""
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=seconds, env=env, **options  # type: ignore[call-overload]
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as err:
        raise BenchmarkError(f"{argv[0]}: {err}") from None
    if done.returncode:
        text = done.stderr.decode(errors="replace")[-2000:]
        raise BenchmarkError(f"{' '.join(argv)[:300]} failed with exit code {done.returncode}: {text}")
    return str(done.stdout.decode("utf-8", "surrogateescape"))


def remove(directory: Path) -> None:
    """Remove a tree; what is mounted below it stays."""
    run(["rm", "-rf", "--one-file-system", str(directory)])


def copy(source: Path, target: Path) -> None:
    """A tree as it is, its root image only: target/rootimg."""
    target.mkdir(parents=True)
    run(["cp", "-a", str(source / "rootimg"), str(target)])


def walk(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every path at and below top with its lstat."""
    yield str(top), os.lstat(top)
    for directory, names, files in os.walk(top):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            yield path, os.lstat(path)


def size(top: Path) -> Size:
    entries = files = total = 0
    for _, status in walk(top):
        entries += 1
        if stat.S_ISREG(status.st_mode):
            files += 1
            total += status.st_size
    return Size(entries, files, total)


def disk_bytes(directory: Path) -> int:
    """What a repository takes: the bytes of its files and directories."""
    return int(run(["du", "-sb", str(directory)]).split()[0])


def age(tree: Path) -> int:
    """Give what the build of a tree generated the times of another build; returns the number of paths."""
    newest = max(status.st_mtime for _, status in walk(tree / "rootimg"))
    young = [path for path, status in walk(tree / "rootimg") if status.st_mtime >= newest - GENERATED_WITHIN]
    now = time.time()
    for path in young:
        os.utime(path, (now, now), follow_symlinks=False)
    return len(young)


def _rsync(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """What rsync would do to make target equal to source: its itemized word and the path."""
    argv = ["rsync", "-aHAXn", "--numeric-ids", "--checksum", "--delete", "-i", "-8", f"{source}/", f"{target}/"]
    for line in run(argv).splitlines():
        word, _, path = line.partition(" ")
        yield word, path.lstrip(" ") if word == "*deleting" or word.startswith("h") else path


def compare(source: Path, target: Path, known: Sequence[str], before: Path | None = None) -> Comparison:
    """How target/rootimg differs from source/rootimg; known: kinds of losses that are counted, not wrong.

    before: the version before it. A path may have kept the time it had there, if it is in all as it was there.
    """
    found = Comparison()
    late: list[str] = []
    for word, path in _rsync(source / "rootimg", target / "rootimg"):
        if word == "*deleting":
            found.wrong.append(f"{path}: too much")
        elif word[2:] == "+" * 9:
            kind = {"S": "FIFOs and sockets", "D": "devices"}.get(word[1], "missing")
            _count(found, kind, known, path)
        elif word.startswith("h"):
            _count(found, "hard links", known, path.split(" => ", maxsplit=1)[0])
        else:
            for place, kind in ATTRIBUTES.items():
                if word[place : place + 1] in ("", ".", " ", "?"):
                    continue
                if kind == "times" and before is not None:
                    late.append(path)
                else:
                    _count(found, kind, known, path)
    if late and before is not None:
        other = {path for word, path in _rsync(before / "rootimg", target / "rootimg") if not _only(word, known)}
        for path in late:
            _count(found, "times", known if path in other else ("times",), path)
    return found


def _count(found: Comparison, kind: str, known: Sequence[str], path: str) -> None:
    if kind in known:
        found.known[kind] += 1
    else:
        found.wrong.append(f"{path}: {kind}")


def _only(word: str, known: Sequence[str]) -> bool:
    """Whether rsync's word tells of known losses and of nothing else."""
    if word.startswith("h"):
        return "hard links" in known
    kinds = [kind for place, kind in ATTRIBUTES.items() if word[place : place + 1] not in ("", ".", " ", "?")]
    return word != "*deleting" and all(kind in known for kind in kinds)


def difference(old: Path, new: Path) -> Difference:
    """What a rebuild changed, as rsync sees it."""
    found = Difference()
    for word, path in _rsync(new / "rootimg", old / "rootimg"):
        plain = path.split(" -> ", maxsplit=1)[0].rstrip("/")
        if word == "*deleting":
            found.removed.append(plain)
        elif word[2:] == "+" * 9:
            found.added.append(plain)
        elif word[1] == "f" and word[2] == "c":
            found.changed.append(plain)
    return found


def generate(top: Path, files: int) -> None:
    """Two small trees, reference and rebuild, of every kind of path; the same at every run."""
    made = random.Random(1)
    root = top / "reference/rootimg"
    for number in range(files):
        path = root / f"usr/share/p{number % 37}/d{number % 11}/file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.randbytes(made.randrange(40, 4000)))
        path.chmod(made.choice((0o644, 0o644, 0o755, 0o600)))
        if number % 20 == 0:
            (path.parent / f"link{number}").symlink_to(path.name)
        if number % 50 == 0:
            os.chown(path, 1000 + number % 3, 50)
    _specials(root)
    for old, _ in list(walk(root)):
        os.utime(old, (OLD, OLD), follow_symlinks=False)
    cache = root / "var/cache"
    cache.mkdir(parents=True)
    for number in range(50):
        (cache / f"generated{number}").write_text(f"{number}\n", encoding="utf-8")
    copy(top / "reference", top / "rebuild")
    _change(top / "rebuild/rootimg", files)
    age(top / "rebuild")


def _specials(root: Path) -> None:
    """What is not a plain file: devices, an empty directory, setuid, a name that is not ASCII, a capability."""
    (root / "dev").mkdir()
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    (root / "empty").mkdir()
    (root / "bin").symlink_to("usr/bin")
    (root / "etc").mkdir()
    (root / "etc/N\u00e9tLock.pem").write_text("certificate\n", encoding="utf-8")
    tool = root / "usr/bin/tool"
    tool.parent.mkdir(parents=True)
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o4755)
    os.link(tool, root / "usr/bin/tool-1.0")
    capable = root / "usr/bin/ping"
    capable.write_bytes(b"#!/bin/sh\nexit\n")
    try:
        os.setxattr(capable, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    except OSError:
        pass  # a file system without capabilities has none to lose


def _change(root: Path, files: int) -> None:
    """Packages upgraded, removed and added."""
    for number in range(0, files, 17):
        path = root / f"usr/share/p{number % 37}/d{number % 11}/file{number}"
        with open(path, "ab") as stream:
            stream.write(b"upgraded")
    shutil.rmtree(root / "usr/share/p5")
    (root / "usr/share/p6/d1").rename(root / "usr/share/p6/moved")
    for number in range(files // 30):
        path = root / f"usr/lib/new{number % 5}/file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"new {number}\n" * 20, encoding="utf-8")


def many(top: Path, files: int) -> None:
    """A tree of small files, for the manifest pass."""
    for number in range(files):
        directory = top / f"usr/share/doc{number // 2000}/package{number // 40}"
        if number % 40 == 0:
            directory.mkdir(parents=True)
        (directory / f"file{number}.txt").write_bytes(b"%d\n" % number * 10)


def build(work: Path) -> dict[str, Path]:
    """The two real trees, made by mmdebstrap where they are not there yet. Returns their directories."""
    found = {}
    for name, packages in PACKAGES.items():
        target = work / name
        if not target.is_dir():
            print(f"Building {name} by mmdebstrap, once: {len(packages.split(','))} packages", file=sys.stderr)
            temporary = work / f"{name}.new"
            remove(temporary)
            temporary.mkdir(parents=True)
            _mmdebstrap(temporary, packages)
            temporary.rename(target)
        found[name] = target
    return found


def _mmdebstrap(target: Path, packages: str) -> None:
    """Fill target/rootimg, from the machine's own apt sources."""
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    argv = [sys.executable, str(WORKER), "sources", str(target)]
    answer = json.loads(subprocess.run(argv, env=env, check=True, capture_output=True, timeout=60).stdout)
    log = target / "log"
    env = {**os.environ, "SOURCE_DATE_EPOCH": answer["epoch"], "DEBIAN_FRONTEND": "noninteractive"}
    settings = [f"--aptopt={line}" for line in answer["settings"]]
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", f"--include={packages}", *settings,
            answer["suite"], str(target / "rootimg"), *answer["sources"]]  # fmt: skip
    with open(log, "wb") as stream:
        try:
            code = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=env, timeout=BUILD_SECONDS, check=False
            ).returncode  # fmt: skip
        except FileNotFoundError:
            raise BenchmarkError("mmdebstrap is not installed; apt-get install mmdebstrap") from None
    if code:
        text = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        raise BenchmarkError(f"mmdebstrap failed with exit code {code}; its log is {log}:\n{text}")


def check_real(name: str, tree: Path, least: bool) -> dict[str, int]:
    """The size of a tree, which must be that of a real image if least. Raises BenchmarkError."""
    if not (tree / "rootimg").is_dir():
        raise BenchmarkError(f"{tree} has no rootimg")
    found = size(tree / "rootimg")
    if least and (found.bytes < LEAST_BYTES or found.entries < LEAST_FILES):
        raise BenchmarkError(f"{name} in {tree} is no real image: {found}")
    return asdict(found)
