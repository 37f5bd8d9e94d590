"""Build with xCAT's genimage in the private namespace, so that it changes nothing that is served."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.generate import (
    DEFAULT_INSTALL_OPTIONS,
    SOURCE_DATE_EPOCH,
    InstallOptions,
    Job,
    dnf,
    lists,
    reproducible_initrds,
)
from xcat_avs.system import command, mounts
from xcat_avs.system.runner import capture
from xcat_avs.tree.scan import digest
from xcat_avs.xcat import fitness, private, programs

DRACUT = re.compile(r"^.*(?:dracut-install: (?:FAILED|ERROR)|dracut.*ERROR).*$", re.MULTILINE)
INNER = re.compile(r"^cd (\S+); (\./genimage .*)$", re.MULTILINE)


@contextmanager
def _database_in_image(work: Path) -> Iterator[None]:
    """Have this machine's rpm write the database into the image, not into the user's home, as Debian's does."""
    if command.find("rpm") is None:
        yield
        return
    place, directory = capture(["rpm", "--eval", "%_dbpath\n%{_rpmconfigdir}"]).text.splitlines()
    if place.startswith(("/var/", "/usr/")):
        yield
        return
    # Scripts of a site may need HOME as it is, so the macros file is mounted over with one line more.
    macros = Path(directory, "macros")
    (work / "macros").write_text(macros.read_text(encoding="utf-8") + "\n%_dbpath /var/lib/rpm\n", encoding="utf-8")
    with mounts.bind(work / "macros", macros, readonly=True):
        yield


def options(modules: Sequence[str], interface: str, kernel: str, root_size: str) -> tuple[str, ...]:
    """genimage's own options. Raises AvsError for a value that xCAT's shell would take for more than a word."""
    found: list[str] = []
    for flag, value in (("-n", ",".join(dict.fromkeys(modules))), ("-i", interface), ("-k", kernel), ("-l", root_size)):
        if not fitness.SAFE.fullmatch(value) or value.startswith("-"):
            raise AvsError(f"genimage {flag} {value!r}: xCAT would hand that to a shell; take plain names")
        found += [flag, value] if value else []
    return tuple(found)


@dataclass(frozen=True)
class Genimage:
    """rootimgdir, tftpdir: where xCAT would write. minimal: a package list to build from instead of the image's own.

    provider: another directory of XCATROOT/share/xcat/netboot whose genimage builds. options: its own (-n, -i, -k, -l);
    xCAT keeps what they say in the definition. install_options: for what procedures install.
    """

    rootimgdir: Path
    tftpdir: Path
    minimal: str = ""
    provider: str = ""
    options: tuple[str, ...] = ()
    install_options: InstallOptions = DEFAULT_INSTALL_OPTIONS
    name: str = "genimage"

    def programs(self) -> tuple[str, ...]:
        return (programs.need("genimage"),)

    def identity(self) -> str:
        minimal = digest(self.minimal) if self.minimal else ""
        return f"{self.name} {self.provider} {minimal}" + "".join(f" {word}" for word in self.options)

    def generate(self, job: Job) -> None:
        image = job.image
        fitness.refuse_incomplete(image, self.rootimgdir, build=True)
        fitness.refuse_unsafe(image)
        for problem in lists(image)[1]:
            job.warn(f"{image.name}: {problem}; genimage goes on without it, unless it is the pkglist itself")
        mounts.remove_tree(job.work)
        tree = job.root.parent
        with ExitStack() as stack:
            stack.callback(mounts.remove_tree, job.work)
            for name in ("tftp", "locks"):
                (job.work / name).mkdir(parents=True, mode=0o700)
            stack.enter_context(private.private_locks(job.work / "locks"))
            stack.enter_context(
                private.seen_at(job.work / "tftp", self.tftpdir / "xcat/osimage" / image.name, job.work / "above.tftp")
            )
            argv, cwd = self._command(job)  # looked up before a mount covers the directory
            stack.enter_context(private.seen_at(tree, self.rootimgdir, job.work / "above"))
            # Mounted after the overlays, which would hide it.
            if self.minimal:
                for path in image.paths("pkglist"):
                    stack.enter_context(mounts.bind(Path(self.minimal), path, readonly=True))
            if image.version.packages == "rpm":
                stack.enter_context(_database_in_image(job.work))
            stack.enter_context(reproducible_initrds(job.root))
            env = {**programs.bypass(), "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
            job.runner.run(argv, env=env, cwd=cwd)
            self._tidy(job)
        if image.version.packages == "rpm":
            dnf.settle(job.root)
        if not (job.root / "etc").is_dir():
            raise AvsError(
                f"genimage ended well and left no image in {self.rootimgdir}", command.tail(job.log), str(job.log)
            )
        for match in DRACUT.finditer(job.log.read_text(encoding="utf-8", errors="replace")):
            job.warn(f"genimage ended well, but its initrd may not boot: {match.group().strip()}")

    def _command(self, job: Job) -> tuple[list[str], Path]:
        """`genimage OPTIONS NAME`; with a provider, the inner command as --dryrun prints it, from that directory."""
        program = programs.need("genimage")
        if not self.provider:
            return [program, *self.options, job.image.name], Path("/")
        text = capture([program, "--dryrun", *self.options, job.image.name], env=programs.bypass()).text
        match = INNER.search(text)
        if match is None:
            raise AvsError(f"{job.image.name}: genimage --dryrun printed no command", text.splitlines()[-5:])
        directory = Path(match.group(1)).parent / self.provider
        if not (directory / "genimage").is_file():
            raise AvsError(f"[image] provider = {self.provider}: there is no {directory}/genimage")
        return [str(directory / "genimage"), *shlex.split(match.group(2))[1:]], directory

    def _tidy(self, job: Job) -> None:
        """Remove what genimage has copied from the host's /dev/shm and /run, and unmount what it left mounted there."""
        seen = os.path.join(os.path.realpath(self.rootimgdir.parent), self.rootimgdir.name)
        left = [point for point in mounts.mounts_below(Path(seen)) if point != seen]
        for point in sorted([*left, *mounts.mounts_below(job.root)], reverse=True):
            mounts.unmount(Path(point))
        for name in ("dev/shm", "run"):
            directory = job.root / name
            if directory.is_dir() and not directory.is_symlink():
                for path in directory.iterdir():
                    mounts.remove_tree(path)

    def install(self, job: Job, names: Sequence[str]) -> None:
        from xcat_avs.generate import choose

        choose(job.image, "auto", self.install_options).install(job, names)

    def remove(self, job: Job, names: Sequence[str]) -> None:
        from xcat_avs.generate import choose

        choose(job.image, "auto", self.install_options).remove(job, names)

    def upgrade(self, job: Job) -> None:
        from xcat_avs.generate import choose

        choose(job.image, "auto", self.install_options).upgrade(job)
