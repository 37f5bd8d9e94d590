"""mmdebstrap: Debian and Ubuntu."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from xcat_avs.errors import AvsError, CommandError
from xcat_avs.generate import (
    NO_WISHES,
    SOURCE_DATE_EPOCH,
    Job,
    Wishes,
    aptsources,
    explain_unknown,
    package_set,
    reproducible_initrds,
)
from xcat_avs.system import command, mounts
from xcat_avs.system.chroot import chroot_mounts
from xcat_avs.tree.inside import inside

UNKNOWN_NAME = re.compile(r"^E: (?:Unable to locate package |Package ')([^'\s]+)", re.MULTILINE)
BROKEN = re.compile(r"^dpkg: error processing (?:package|archive) (\S+) .*\n.*", re.MULTILINE)
# What dpkg says before the scripts of a package; they say the reason after it.
BEFORE_SCRIPTS = ("Setting up ", "Unpacking ", "Preparing to unpack ", "Removing ", "Purging ", "Processing triggers ")
SAID = 8  # lines of a script that an error shows
RESOLVED_BACKUP = "etc/.resolv.conf.systemd-resolved.bak"
APT = {"DEBIAN_FRONTEND": "noninteractive"}
APT_OPTION = re.compile(r"(?:-o|--option=)([A-Za-z0-9:_-]+)=(.*)")
# Files alone: packages count on the directories. Licences stay.
DOCUMENTATION = ("--path-exclude=/usr/share/doc/*", "--path-include=/usr/share/doc/*/copyright",
                 "--path-exclude=/usr/share/man/*/*", "--path-exclude=/usr/share/info/*")  # fmt: skip
LANGUAGES = (
    "--path-exclude=/usr/share/locale/*/*",
    "--path-exclude=/usr/share/man/*/*",
    "--path-include=/usr/share/man/man*/*",
)


class Mmdebstrap:
    """The host's mmdebstrap, as root; the same packages give the same tree."""

    name = "mmdebstrap"

    def __init__(self, wishes: Wishes = NO_WISHES) -> None:
        self.wishes = wishes

    def programs(self) -> tuple[str, ...]:
        return ("mmdebstrap", "apt-get")

    def identity(self) -> str:
        return self.name + self.wishes.identity()

    def generate(self, job: Job) -> None:
        image = job.image
        packages = package_set(image)
        work = job.work
        mounts.remove_tree(work)
        work.mkdir(parents=True, mode=0o700)
        try:
            argv = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase",
                    f"--architectures={aptsources.architecture(image)}"]  # fmt: skip
            argv += [f"--dpkgopt={option[2:]}" for option in paths(self.wishes)]
            argv += [f"--aptopt={line}" for line in self._apt_options(image.name)]
            if packages.include:
                argv.append(f"--include={','.join(packages.include)}")
            # The name of the initrd promises gzip, and xCAT's tools read nothing else.
            argv += _hook(
                "setup", 'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/apt/preferences.d" "$1/etc/apt/apt.conf.d"'
            )
            argv += _hook("setup", 'echo COMPRESS=gzip > "$1/etc/initramfs-tools/conf.d/avs"')
            # mmdebstrap copies both from this machine; a link is the package's, and systemd-resolved has put a copy aside.
            argv += _hook("customize", f'rm -f "$1/etc/hostname" "$1/{RESOLVED_BACKUP}"')
            argv += _hook("customize", '[ -L "$1/etc/resolv.conf" ] || rm -f "$1/etc/resolv.conf"')
            # How it was made is no setting of the node.
            argv += _hook(
                "customize", 'rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/99mmdebstrap"'
            )
            # A directory of this machine is no source for a node.
            argv += _hook(
                "customize", '[ ! -e "$1/etc/apt/sources.list" ] || sed -i "/ copy:/d" "$1/etc/apt/sources.list"'
            )
            temporary = {
                "etc/apt/apt.conf.d/00avs": "\n".join(aptsources.network_settings()),
                "etc/apt/preferences.d/00avs": _pins(packages.exclude),
            }
            for path, text in temporary.items():
                if text:
                    argv += _hook("setup", f'printf "%s\\n" {shlex.quote(text)} > "$1/{path}"')
                    argv += _hook("customize", f'rm -f "$1/{path}"')
            argv += [aptsources.codename(image), str(job.root), *aptsources.sources(image, work)]
            env = {**packages.environment, **APT, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "TMPDIR": str(work)}
            try:
                command.run(argv, log=job.log, env=env, timeout=job.timeout)
            except CommandError as err:
                raise _explain(job, err) from None
        finally:
            mounts.remove_tree(work)

    def install(self, job: Job, names: Sequence[str]) -> None:
        self._apt(job, "update")
        self._apt(job, "install", *names)

    def remove(self, job: Job, names: Sequence[str]) -> None:
        self._apt(job, "purge", *names)

    def upgrade(self, job: Job) -> None:
        self._apt(job, "update")
        self._apt(job, "dist-upgrade")

    def _apt(self, job: Job, *words: str) -> None:
        argv = ["chroot", str(job.root), "apt-get", "-y", "--no-install-recommends", *self.wishes.arguments]
        argv += [f"-oDpkg::Options::={option}" for option in paths(self.wishes)] + list(words)
        with chroot_mounts(job.root), resolver(job.root), reproducible_initrds(job.root):
            env = {**APT, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
            try:
                command.run(argv, log=job.log, env=env, timeout=job.timeout)
            except CommandError as err:
                raise _explain(job, err) from None

    def _apt_options(self, name: str) -> list[str]:
        """The arguments for apt-get as lines of apt.conf: mmdebstrap takes no others."""
        lines = []
        for argument in self.wishes.arguments:
            match = APT_OPTION.fullmatch(argument)
            if match is None:
                raise AvsError(
                    f"{name}: [image] package_manager_args has {argument!r}; mmdebstrap only takes -oNAME=VALUE"
                )
            lines.append(f'{match.group(1)} "{match.group(2)}";')
        return lines


def _explain(job: Job, err: CommandError) -> AvsError:
    """The error with its reason, which does not stand at the end of the log."""
    packages, lines = broken(job.log.read_text(encoding="utf-8", errors="replace"))
    if packages:
        return CommandError(f"{err.text}: dpkg could not install {', '.join(packages)}", lines, err.log)
    tail = [line for line in command.tail(job.log, 40) if not line.startswith(("I:", "E: mmdebstrap failed"))]
    return explain_unknown(job, job.log, UNKNOWN_NAME, CommandError(err.text, tail[-command.TAIL_LINES :], err.log))


def broken(text: str) -> tuple[list[str], list[str]]:
    """The packages that dpkg failed on, by its log, and for each what its script said before."""
    packages: list[str] = []
    lines: list[str] = []
    for match in BROKEN.finditer(text):
        said: list[str] = []
        for line in reversed(text[: match.start()].splitlines()):
            said.insert(0, line)
            if line.startswith(BEFORE_SCRIPTS) or len(said) == SAID:
                break
        packages.append(match.group(1))
        lines += [*said, *match.group().splitlines()]
    return list(dict.fromkeys(packages)), lines[: 3 * SAID]


def paths(wishes: Wishes) -> list[str]:
    """Options of dpkg that leave out documentation, and languages that are not wished."""
    options = list(LANGUAGES) if wishes.locales else []
    for language in wishes.locales:
        for form in (language, f"{language}_*", f"{language}@*"):
            options += [f"--path-include=/usr/share/{kind}/{form}/*" for kind in ("locale", "man")]
    return [*options, *(() if wishes.docs else DOCUMENTATION)]


@contextmanager
def resolver(root: Path) -> Iterator[None]:
    """Lend the image this machine's resolv.conf, where it has none, or a link to one that a running system makes."""
    path = inside(root, "etc/resolv.conf", follow=True)
    lend = not path.exists()
    if lend:
        if (root / "run") in path.parents:  # an empty file system of its own meanwhile
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile("/etc/resolv.conf", path)
    try:
        yield
    finally:
        if lend:
            if path.is_file() and not path.is_symlink():  # a link is that of a package which came meanwhile
                path.unlink()
            (root / RESOLVED_BACKUP).unlink(missing_ok=True)


def _hook(kind: str, script: str) -> list[str]:
    return [f"--{kind}-hook={script}"]


def _pins(names: Sequence[str]) -> str:
    """apt preferences that keep packages out, whoever asks for them."""
    return f"Package: {' '.join(names)}\nPin: release *\nPin-Priority: -1" if names else ""
