"""An installation whose definitions and settings are values, and independent looks at trees."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import warm
from harness import SECONDS, TOP, Node, Result

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.store import engines
from xcat_avs.store.kept import lent
from xcat_avs.store.protocol import Store, Version
from xcat_avs.store.trees import checkout_tree
from xcat_avs.system.runner import Runner

PROFILE = "example.prod"
OSVERS, ARCH = "rocky9.4", "x86_64"
# What a pack adds to the tree of the tag, so that a node can say what it runs.
ADDED = {"etc/avs-release"}


def osimage_name(profile: str, osvers: str = OSVERS) -> str:
    return f"{osvers}-{ARCH}-netboot-{profile}"


class Installation(Node):
    """avs.conf, definitions and every directory of an installation, all below top."""

    errors = "strict"

    def __init__(self, top: Path, engine: str = "fsvs") -> None:
        super().__init__(top)
        self.engine = engine  # or ostree
        self.state, self.logs, self.home = top / "state", top / "logs", top / "home"
        self.repository, self.installdir = top / "store/repo", top / "install"
        self.definitions: dict[str, dict[str, str]] = {}
        self.settings: dict[str, dict[str, str]] = {}
        self.extra: dict[str, str] = {}  # variables of the command's environment
        self.server = ""  # the URL of the store where it is not the repository itself
        for directory in (self.installdir, self.home, top / "tmp"):
            directory.mkdir(parents=True)
        self.define(PROFILE)
        self.define("example.test")

    def configure(self, section: str, **values: str) -> None:
        """Set something in avs.conf."""
        self.settings.setdefault(section, {}).update(values)
        self._write_conf()

    def _write_conf(self) -> None:
        table: dict[str, dict[str, str]] = {
            "xcat": {"use": "no", "definitions": str(self.top / "osimages.stanza")},
            "paths": {
                "state": str(self.state),
                "logs": str(self.logs),
                "store": self.url,
                "installdir": str(self.installdir),
                "tftpdir": str(self.top / "tftpboot"),
            },
        }
        for section, values in self.settings.items():
            table.setdefault(section, {}).update(values)
        lines = []
        for section, values in table.items():
            lines += [f"[{section}]", *(f"{name} = {value}" for name, value in values.items()), ""]
        self.conf.write_text("\n".join(lines), encoding="utf-8")

    def define(self, profile: str, osvers: str = OSVERS, **attributes: str) -> str:
        """Define a netboot osimage, or change the one there is; returns its name."""
        name = osimage_name(profile, osvers)
        stanza = {"objtype": "osimage", "osvers": osvers, "osarch": ARCH, "profile": profile, "provmethod": "netboot"}
        self.definitions[name] = {**stanza, **self.definitions.get(name, {}), **attributes}
        lines = []
        for item, values in self.definitions.items():
            lines += [f"{item}:", *(f"    {key}={value}" for key, value in values.items()), ""]
        (self.top / "osimages.stanza").write_text("\n".join(lines), encoding="utf-8")
        self._write_conf()
        return name

    @property
    def url(self) -> str:
        return self.server or ("file://" if self.engine == "fsvs" else "ostree:") + str(self.repository)

    @property
    def site(self) -> Path:
        """The site's own files: procedures, recipes, files."""
        return self.installdir / "custom/avs"

    @property
    def environment(self) -> dict[str, str]:
        env = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": str(self.home)}
        env.update({"AVS_CONF": str(self.conf), "TMPDIR": str(self.top / "tmp"), "LANG": "C.UTF-8"})
        env["PYTHONPATH"] = str(TOP)  # the code beside these tests, whatever is installed
        env.update(self.extra)
        return env

    def served(self, profile: str = PROFILE, osvers: str = OSVERS) -> Path:
        """The rootimgdir that nodes load from."""
        return self.installdir / "netboot" / osvers / ARCH / profile

    def tree(self, profile: str = PROFILE, osvers: str = OSVERS) -> Path:
        """The build tree, laid out like a rootimgdir; where a pack has made it the checkout, that."""
        name = osimage_name(profile, osvers)
        build, checkout = (self.state / where / name / "tree" for where in ("builds", "checkouts"))
        return checkout if lent(build, checkout) else build

    def forget_build(self) -> None:
        """Remove what the builds have left, so that a tag comes out of the store."""
        remove(self.state / "builds")

    @property
    def kept(self) -> Path:
        """The checkout that packing or verifying left for the next time."""
        return self.state / "checkouts" / osimage_name(PROFILE) / "tree"

    def trunk(self, profile: str = PROFILE, osvers: str = OSVERS) -> str:
        return f"{self.url}{'/' if self.engine == 'fsvs' else '#'}netboot/{osvers}/{ARCH}/{profile}/trunk"

    def site_file(self, path: str, text: str | bytes, mode: int = 0o644) -> Path:
        """Write a file below the site's own directory."""
        target = self.site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        target.chmod(mode)
        return target

    def recipe(self, *steps: str, more: str = "", profile: str = PROFILE) -> None:
        """Give an image its own recipe: these steps and more sections."""
        self.site_file(f"images/{profile}/recipe.conf", f"[recipe]\nsteps = {', '.join(steps)}\n{more}")

    def start(self, *argv: str, prefix: Sequence[str] = ()) -> subprocess.Popen[Any]:
        """Start the command `avsimage -c ARGV...` in a session of its own."""
        return self.launch([*warm.MODULE, "-c", *argv], self.environment, prefix)

    def run(self, *argv: str, code: int | None = 0, prefix: Sequence[str] = ()) -> Result:
        """Run `avsimage -c ARGV...`; its exit code must be code (None: any)."""
        result = self.finish(self.start(*argv, prefix=prefix))
        assert code is None or result.code == code, f"{' '.join(argv)}: {result}"
        return result

    def create(self, source: Path, *argv: str, profile: str = PROFILE, code: int | None = 0) -> Result:
        """Create from a directory."""
        return self.run("create", profile, "--from", str(source), *argv, code=code)

    def store(self) -> Store:
        self.state.mkdir(exist_ok=True)
        return engines.store(self.url, self.state, Runner(timeout=SECONDS), str)

    def image(self, profile: str = PROFILE, osvers: str = OSVERS) -> OsImage:
        name = osimage_name(profile, osvers)
        attributes = {key: value for key, value in self.definitions[name].items() if key != "objtype"}
        return OsImage(name, attributes, "a test")

    def checkout(self, target: Path, tag: str = "", profile: str = PROFILE) -> Path:
        """A version as the store gives it, proven against its manifest; trunk without a tag. Returns its rootimg."""
        target.mkdir(parents=True)
        checkout_tree(self.store(), self.image(profile), Version(tag=tag), target, refuse_warning)
        return target / "rootimg"

    def youngest(self) -> int:
        """The repository's newest revision; with OSTree that of the image."""
        if self.engine == "ostree":
            head = self.store().head(self.image())
            return head.number if head else 0
        return int(output(["svnlook", "youngest", str(self.repository)]))

    def verify_repository(self) -> None:
        output(["svnadmin", "verify", "-q", str(self.repository)] if self.engine == "fsvs" else
               ["ostree", "fsck", "--quiet", f"--repo={self.repository}"])  # fmt: skip


def refuse_warning(text: str) -> None:
    raise AssertionError(f"unexpected warning: {text}")


def output(argv: Sequence[str], stdin: bytes = b"") -> str:
    """What a program prints; it must succeed."""
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=SECONDS, env=env)
    assert done.returncode == 0, f"{argv}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode("utf-8", "surrogateescape")


Look = dict[str, tuple[object, ...]]
# Of files as they were read, by inode, size and both times: most trees are layers over one that many tests have.
DIGESTS: dict[tuple[int, ...], str] = {}
SETTLED = 2 * 10**9  # nanoseconds; a change that comes at once need not change the time of the last one


def digest(path: str, status: os.stat_result) -> str:
    key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key in DIGESTS:
        return DIGESTS[key]
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if time.time_ns() - status.st_ctime_ns > SETTLED:
        DIGESTS[key] = found
    return found


def look(top: Path, times: bool = True, skip: Sequence[str] = ()) -> Look:
    """A tree as lstat and read see it: type, mode, owner, content, link target, device, mtime in microseconds."""
    start = len(str(top)) + 1
    found = {".": _seen(str(top), times)}
    for directory, names, files in os.walk(top):
        if skip:
            names[:] = [name for name in names if f"{directory}/{name}"[start:] not in skip]
        for name in (*names, *files):
            path = f"{directory}/{name}"
            found[path[start:]] = _seen(path, times)
    return found


def _seen(path: str, times: bool) -> tuple[object, ...]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    what: object = None
    if kind == stat.S_IFREG:
        what = digest(path, status)
    elif kind == stat.S_IFLNK:
        what = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        what = status.st_rdev
    seen = (kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, what)
    return (*seen, status.st_mtime_ns // 1000) if times else seen


def marks(top: Path) -> Look:
    """What cannot stay as it is where a path was changed: the kernel itself keeps the time of the last change."""
    found: Look = {}
    for directory, names, files in os.walk(top):
        for name in (".", *names, *files):
            status = os.lstat(os.path.join(directory, name))
            found[os.path.join(directory, name)] = (
                status.st_ino,
                status.st_mode,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
    return found


def difference(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """The paths at which two looks differ, with both sides."""
    paths = sorted(one.keys() | other.keys())
    return {path: (one.get(path), other.get(path)) for path in paths if one.get(path) != other.get(path)}


def served_set(rootimgdir: Path) -> dict[str, str]:
    """What nodes get now: the checksum of every served file, and what the directory is."""
    if not rootimgdir.is_dir():
        return {}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(rootimgdir.iterdir())}
    found["directory"] = os.readlink(rootimgdir) if rootimgdir.is_symlink() else "itself"
    return found


def beside(rootimgdir: Path) -> list[str]:
    """The names in the directory that is served; but for the link that says what was before, and sets known by a link."""
    paths = sorted(rootimgdir.parent.iterdir())
    known = {os.readlink(path) for path in paths if path.is_symlink() and path != rootimgdir}
    hidden = {f".{rootimgdir.name}.avs-previous", *(name for name in known if "@" in name)}
    return [path.name for path in paths if path.name not in hidden]


def unpack_cpio(archive: Path, target: Path) -> None:
    """Unpack an archive in the manner of a node."""
    target.mkdir(parents=True)
    script = 'gunzip -c "$1" | cpio --quiet -idm'
    subprocess.run(["sh", "-c", script, "sh", str(archive)], cwd=target, check=True, timeout=SECONDS)


def copy(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=SECONDS)
    return target


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
