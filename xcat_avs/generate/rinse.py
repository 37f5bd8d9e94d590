"""rinse: EL 5 to 7. It unpacks a small base; the image's own yum then installs the rest, in the image.

The image's own rpm writes its database: that of a newer host could not read its form. rinse gets a configuration,
lists, a cache and a script of its own, and says success after most failures, so that its answers are read.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, CommandError
from xcat_avs.generate import (
    DEFAULT_INSTALL_OPTIONS,
    SOURCE_DATE_EPOCH,
    InstallOptions,
    Job,
    directories,
    explain_unknown,
    list_files,
    package_set,
    reproducible_initrds,
    unknown_packages,
)
from xcat_avs.generate.dnf import Dnf, flags, macros, repositories, sections, warn_of_scripts
from xcat_avs.generate.mmdebstrap import resolver
from xcat_avs.system import command, mounts
from xcat_avs.system.chroot import chroot_mounts
from xcat_avs.tree.scan import digest
from xcat_avs.xcat import fitness

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "x86": "i386"}
# Where below a repository its packages are: SL, CentOS and RHEL 5 have names of their own.
PACKAGES = ("", "Packages", "CentOS", "SL", "Server", "RPMS")
MISSING = re.compile(r"Failed to find download link for (\S+)")
COMPLETE = "Installation complete."
UNKNOWN = re.compile(
    r"^(?:No package (?=.* available)|No match for argument: |Unable to find a match: )(\S+)", re.MULTILINE
)
IN_IMAGE = "run/avs"  # directory in the image while yum runs, on the tmpfs that /run is then
MAIN = f"""[main]
cachedir=/{IN_IMAGE}/cache
persistdir=/{IN_IMAGE}/persist
logfile=/{IN_IMAGE}/yum.log
reposdir=/{IN_IMAGE}/none
keepcache=0
plugins=0
gpgcheck=0
skip_if_unavailable=0
"""


class Rinse:
    """The host's rinse for the base, then the image's own yum; where it has none, the host's dnf."""

    name = "rinse"

    def __init__(self, install_options: InstallOptions = DEFAULT_INSTALL_OPTIONS) -> None:
        self.install_options = install_options

    def programs(self) -> tuple[str, ...]:
        return ("rinse", "rpm", "rpm2cpio", "cpio", "wget", "chroot")

    def identity(self) -> str:
        base = self.install_options.base
        return f"{self.name}{self.install_options.identity()} {digest(str(base)) if base and base.is_file() else ''}"

    def generate(self, job: Job) -> None:
        packages = package_set(job.image)
        if not packages.include:
            raise AvsError(f"{job.image.name}: {', '.join(map(str, list_files(job.image)))} names no package")
        lines = [line for line in self._base(job.image) if line[0] not in packages.exclude]
        mounts.remove_tree(job.work)
        job.work.mkdir(parents=True, mode=0o700)
        try:
            self._unpack(job, lines)
            if _has_yum(job.root):
                self._register(job)
                excludes = [f"--exclude={name}" for name in packages.exclude]
                self._yum(job, [[*excludes, "update"], [*excludes, "install", *packages.include]], packages.environment)
                return
            base = [_name(path.name) for path in sorted((job.work / "base").iterdir())]
        finally:
            mounts.remove_tree(job.work)
        Dnf(self.install_options).generate(job, base)

    def install(self, job: Job, names: Sequence[str]) -> None:
        self._change(job, "install", names)

    def remove(self, job: Job, names: Sequence[str]) -> None:
        self._change(job, "remove", names)

    def upgrade(self, job: Job) -> None:
        self._change(job, "update", ())

    def _change(self, job: Job, verb: str, names: Sequence[str]) -> None:
        if not _has_yum(job.root):
            dnf = Dnf(self.install_options)
            if verb == "update":
                dnf.upgrade(job)
            else:
                (dnf.install if verb == "install" else dnf.remove)(job, names)
            return
        mounts.remove_tree(job.work)
        job.work.mkdir(parents=True, mode=0o700)
        try:
            self._yum(job, [[verb, *names]], {})
        finally:
            mounts.remove_tree(job.work)

    def _base(self, image: OsImage) -> list[list[str]]:
        """What to unpack: a package a line, or several of which one is enough."""
        path = self.install_options.base
        if path is None or not path.is_file():
            raise AvsError(
                f"{image.name}: there is no list of what rinse unpacks for osvers {image.osvers} ({path}); name one in [image] rinse_packages"
            )
        lines = [line.split("#")[0].replace("|", " ").split() for line in path.read_text(encoding="utf-8").splitlines()]
        for name in (name for line in lines for name in line):
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
                raise AvsError(f"{path}: {name!r} is not the name of a package")
        return [line for line in lines if line]

    def _unpack(self, job: Job, lines: list[list[str]]) -> None:
        """Have rinse fetch and unpack the base; its packages end up in work/base."""
        root, work, image = job.root.resolve(), job.work, job.image
        if not fitness.SAFE.fullmatch(str(root)):
            raise AvsError(f"{image.name}: rinse would hand {root} to a shell; set [paths] state to a plain path")
        arch = ARCHITECTURES.get("x86" if re.fullmatch(r"i[3-6]86", image.osarch) else image.osarch)
        if arch is None:
            raise AvsError(f"{image.name}: rinse knows no architecture {image.osarch}")
        for name in ("lists", "base", "cache"):
            (work / name).mkdir()
        (work / "lists/avs.packages").write_text(
            "".join(f"{name}\n" for line in lines for name in line), encoding="ascii"
        )
        argv = ["rinse", "--config", str(work / "rinse.conf"), "--pkgs-dir", str(work / "lists"), "--distribution", "avs",
                "--arch", arch]  # fmt: skip
        mirror = self._mirror(job, argv, lines, work / "cache" / f"avs.{arch}")
        (work / "rinse.conf").write_text(f"[avs]\nmirror = {mirror}\n", encoding="ascii")
        # rinse would then run a script of the host; it gets /bin/true instead.
        argv += ["--directory", str(root), "--cache-dir", str(work / "cache"), "--post-install", "/bin/true"]
        job.runner.run(argv)
        if COMPLETE not in job.log.read_text(encoding="utf-8", errors="replace"):
            raise AvsError(f"{image.name}: rinse did not come to its end", command.tail(job.log), str(job.log))
        for path in root.glob("*.rpm"):
            path.rename(work / "base" / path.name)
        # rinse lets the image's rpm write a database without running scripts; _register makes a new one.
        mounts.remove_tree(root / "var/lib/rpm")
        mounts.remove_tree(root / "dev/urandom")  # rinse has made it for rpm

    def _mirror(self, job: Job, argv: list[str], lines: list[list[str]], cache: Path) -> str:
        """The directory that has the packages, as rinse reads it; those of a local one are put into its cache.

        rinse lists file:// but fetches by wget, which does not read it.
        """
        image = job.image
        if not directories(image, "pkgdir"):
            raise AvsError(f"{image.name} names no pkgdir, and rinse needs one; set pkgdir in {image.origin}")
        tried = []
        for _, url in repositories(image):
            for name in PACKAGES:
                mirror = "/".join(filter(None, (url.rstrip("/"), name)))
                local = Path(urllib.parse.unquote(mirror[7:])) if mirror.startswith("file://") else None
                if local is not None and not local.is_dir():
                    continue
                tried.append(mirror)
                (job.work / "rinse.conf").write_text(f"[avs]\nmirror = {mirror}\n", encoding="utf-8")
                said = job.runner.capture([*argv, "--print-uris"]).text
                found = re.findall(r"^\w+://(\S+\.rpm)$", said, re.MULTILINE)
                if not found:
                    continue
                unsafe = [text for text in (mirror, *found) if not fitness.SAFE.fullmatch(text)]
                if unsafe:
                    raise AvsError(f"{image.name}: rinse would hand {unsafe[0]!r} to a shell; name another pkgdir")
                _warn_of_missing(job, lines, MISSING.findall(said))
                if local is not None:
                    cache.mkdir(parents=True)
                    for path in found:
                        (cache / path.rsplit("/", 1)[1]).symlink_to(Path("/", path))
                return mirror
        raise AvsError(
            f"{image.name}: none of the packages of {self.install_options.base} is in pkgdir; looked in {', '.join(tried)}"
        )

    def _register(self, job: Job) -> None:
        """Install the base anew by the image's own rpm: rinse ran no scripts, and cpio knows no names of owners."""
        (job.root / "var/lib/rpm").mkdir(parents=True, mode=0o755)
        with ExitStack() as stack:
            self._enter(job, stack)
            base = job.root / IN_IMAGE / "base"
            base.mkdir()
            stack.enter_context(mounts.bind(job.work / "base", base, readonly=True))
            names = [f"/{IN_IMAGE}/base/{path.name}" for path in sorted((job.work / "base").iterdir())]
            docs = [] if self.install_options.docs else ["--excludedocs"]
            self._inside(job, ["rpm", "-i", "--force", "--nodeps", *docs, *names], {})

    def _yum(self, job: Job, commands: Sequence[Sequence[str]], environment: dict[str, str]) -> None:
        """Run the image's yum in it, on the repositories of the definition."""
        with ExitStack() as stack:
            top = self._enter(job, stack)
            stack.enter_context(resolver(job.root))
            stack.enter_context(reproducible_initrds(job.root))
            seen = []
            for name, url in repositories(job.image):
                if url.startswith("file://"):
                    (top / name).mkdir()
                    local = Path(urllib.parse.unquote(url[7:]))
                    if not local.is_dir():
                        raise AvsError(f"{job.image.name}: the repository {url} is not there")
                    stack.enter_context(mounts.bind(local, top / name, readonly=True))
                    url = f"file:///{IN_IMAGE}/{name}"
                seen.append((name, url))
            (top / "none").mkdir()
            (top / "yum.conf").write_text(MAIN + flags(self.install_options) + "\n" + sections(seen), encoding="utf-8")
            for words in commands:
                argv = ["yum", "-y", "-c", f"/{IN_IMAGE}/yum.conf", *self.install_options.arguments, *words]
                try:
                    self._inside(job, argv, environment)
                except CommandError as err:
                    raise explain_unknown(job, job.log, UNKNOWN, err) from None
            # yum says success where it knows some of the packages.
            if "install" in commands[-1] and unknown_packages(job.log, UNKNOWN):
                raise explain_unknown(job, job.log, UNKNOWN, AvsError("", command.tail(job.log), str(job.log)))
            warn_of_scripts(job)
        for path in (job.root / "var/lib/rpm").glob("__db.*"):
            path.unlink()  # shared memory that ended processes have left

    def _enter(self, job: Job, stack: ExitStack) -> Path:
        """Mount what programs in the image expect; returns a directory for them that vanishes with the mounts."""
        stack.enter_context(chroot_mounts(job.root))
        top = job.root / IN_IMAGE
        top.mkdir(mode=0o700)
        (top / "home").mkdir()
        (top / "home/.rpmmacros").write_text("%_dbpath /var/lib/rpm\n" + macros(self.install_options), encoding="ascii")
        return top

    def _inside(self, job: Job, words: Sequence[str], environment: dict[str, str]) -> None:
        arch = ["setarch", "i686"] if re.fullmatch(r"x86|i[3-6]86", job.image.osarch) else []
        env = {**environment, "HOME": f"/{IN_IMAGE}/home", "TMPDIR": "/tmp", "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
        job.runner.run([*arch, "chroot", str(job.root), *words], env=env)


def _has_yum(root: Path) -> bool:
    return (root / "usr/bin/yum").exists() and ((root / "bin/rpm").exists() or (root / "usr/bin/rpm").exists())


def _name(file: str) -> str:
    """The package of a file NAME-VERSION-RELEASE.ARCH.rpm."""
    return file.rsplit("-", 2)[0]


def _warn_of_missing(job: Job, lines: list[list[str]], missing: Sequence[str]) -> None:
    for line in lines:
        if set(line) <= set(missing):
            job.warn(f"the repository has no package {' or '.join(line)}, which rinse was to unpack")
