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
    DEFAULT_INSTALL_OPTIONS,
    SOURCE_DATE_EPOCH,
    InstallOptions,
    Job,
    PackageSet,
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
# dpkg prints this before it runs a script of a package; the reason of a failure follows.
BEFORE_SCRIPTS = ("Setting up ", "Unpacking ", "Preparing to unpack ", "Removing ", "Purging ", "Processing triggers ")
SAID = 8  # lines of a script that an error shows
RESOLVED_BACKUP = "etc/.resolv.conf.systemd-resolved.bak"
APT = {"DEBIAN_FRONTEND": "noninteractive"}
APT_OPTION = re.compile(r"(?:-o|--option=)([A-Za-z0-9:_-]+)=(.*)")
# Only files are left out, since packages expect the directories. Licences stay.
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

    def __init__(self, install_options: InstallOptions = DEFAULT_INSTALL_OPTIONS) -> None:
        self.install_options = install_options

    def programs(self) -> tuple[str, ...]:
        return ("mmdebstrap", "apt-get")

    def identity(self) -> str:
        return self.name + self.install_options.identity()

    def generate(self, job: Job) -> None:
        image = job.image
        packages = package_set(image)
        work = job.work
        mounts.remove_tree(work)
        work.mkdir(parents=True, mode=0o700)
        try:
            argv = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase",
                    f"--architectures={aptsources.architecture(image)}"]  # fmt: skip
            argv += [f"--dpkgopt={option[2:]}" for option in paths(self.install_options)]
            argv += [f"--aptopt={line}" for line in self._apt_options(image.name)]
            if packages.include:
                argv.append(f"--include={','.join(packages.include)}")
            argv += [*_hooks(), *_for_the_build(packages, work)]
            argv += [aptsources.codename(image), str(job.root), *aptsources.sources(image, work)]
            env = {**packages.environment, **APT, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "TMPDIR": str(work)}
            try:
                job.runner.run(argv, env=env)
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
        argv = ["chroot", str(job.root), "apt-get", "-y", "--no-install-recommends", *self.install_options.arguments]
        argv += [f"-oDpkg::Options::={option}" for option in paths(self.install_options)] + list(words)
        with chroot_mounts(job.root), resolver(job.root), reproducible_initrds(job.root):
            env = {**APT, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
            try:
                job.runner.run(argv, env=env)
            except CommandError as err:
                raise _explain(job, err) from None

    def _apt_options(self, name: str) -> list[str]:
        """The arguments for apt-get as lines of apt.conf: mmdebstrap takes no others."""
        lines = []
        for argument in self.install_options.arguments:
            match = APT_OPTION.fullmatch(argument)
            if match is None:
                raise AvsError(
                    f"{name}: [image] package_manager_args has {argument!r}; mmdebstrap only takes -oNAME=VALUE"
                )
            lines.append(f'{match.group(1)} "{match.group(2)}";')
        return lines


def _explain(job: Job, err: CommandError) -> AvsError:
    """The error with its reason, which is not at the end of the log."""
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


def paths(install_options: InstallOptions) -> list[str]:
    """Options of dpkg that leave out documentation, and languages that are not asked for."""
    options = list(LANGUAGES) if install_options.locales else []
    for language in install_options.locales:
        for form in (language, f"{language}_*", f"{language}@*"):
            options += [f"--path-include=/usr/share/{kind}/{form}/*" for kind in ("locale", "man")]
    return [*options, *(() if install_options.docs else DOCUMENTATION)]


@contextmanager
def resolver(root: Path) -> Iterator[None]:
    """Lend the image this machine's resolv.conf, where it has none, or a link to one that only a running system makes."""
    path = inside(root, "etc/resolv.conf", follow=True)
    lend = not path.exists()
    if lend:
        if (root / "run") in path.parents:  # /run is an empty tmpfs during the build
            path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile("/etc/resolv.conf", path)
    try:
        yield
    finally:
        if lend:
            if path.is_file() and not path.is_symlink():  # a package that was installed meanwhile may have made a link
                path.unlink()
            (root / RESOLVED_BACKUP).unlink(missing_ok=True)


def _hooks() -> list[str]:
    """What is done to the root before and after the packages, so that nothing of this machine is in it."""
    argv = _hook("setup", 'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/apt/preferences.d" "$1/etc/apt/apt.conf.d"')
    # xCAT's tools read the initrd as gzip, as its name says.
    argv += _hook("setup", 'echo COMPRESS=gzip > "$1/etc/initramfs-tools/conf.d/avs"')
    # mmdebstrap copies both from this machine. A link is a package's; systemd-resolved keeps a copy.
    argv += _hook("customize", f'rm -f "$1/etc/hostname" "$1/{RESOLVED_BACKUP}"')
    argv += _hook("customize", '[ -L "$1/etc/resolv.conf" ] || rm -f "$1/etc/resolv.conf"')
    # The settings of this build are none of the node.
    argv += _hook("customize", 'rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/apt/apt.conf.d/99mmdebstrap"')
    # A node cannot use a directory of this machine as a source.
    argv += _hook("customize", '[ ! -e "$1/etc/apt/sources.list" ] || sed -i "/ copy:/d" "$1/etc/apt/sources.list"')
    return argv


def _for_the_build(packages: PackageSet, work: Path) -> list[str]:
    """Settings of apt that hold while packages are installed, and are not there afterwards.

    They come from files in work: there may be the password of a proxy among them, and everybody sees arguments.
    """
    argv: list[str] = []
    temporary = {
        "etc/apt/apt.conf.d/00avs": "\n".join(aptsources.network_settings()),
        "etc/apt/preferences.d/00avs": _pins(packages.exclude),
    }
    for path, text in temporary.items():
        if text:
            file = work / path.replace("/", ".")
            file.write_text(text + "\n", encoding="utf-8")
            argv += _hook("setup", f'cat {shlex.quote(str(file))} > "$1/{path}"')
            argv += _hook("customize", f'rm -f "$1/{path}"')
    return argv


def _hook(kind: str, script: str) -> list[str]:
    return [f"--{kind}-hook={script}"]


def _pins(names: Sequence[str]) -> str:
    """apt preferences that keep packages out, whoever asks for them."""
    return f"Package: {' '.join(names)}\nPin: release *\nPin-Priority: -1" if names else ""
