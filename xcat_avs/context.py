"""What a procedure is given, and how one is run."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any, Optional, Union

from xcat_avs import command, generate, lent, modules, mounts
from xcat_avs.config import Settings
from xcat_avs.errors import AvsError
from xcat_avs.generate import Generator, Job
from xcat_avs.image import OsImage
from xcat_avs.inside import inside
from xcat_avs.procedure import Procedure
from xcat_avs.progress import Progress
from xcat_avs.recipe import Recipe


@dataclass(frozen=True)
class BuildPaths:
    """Where a build lives. tree: laid out like a rootimgdir (rootimg/, kernel, ...)."""

    tree: Path
    results: Path
    logs: Path

    @property
    def root(self) -> Path:
        return self.tree / "rootimg"


@dataclass(frozen=True)
class BuildContext:
    """What a procedure is given. All paths in the image are relative to root.

    options: the step's options, typed. log: where the output of everything it runs goes.
    """

    image: OsImage
    recipe: Recipe
    options: Mapping[str, Any]
    installdir: Path
    paths: BuildPaths
    log: Path
    generator: Generator
    source: Optional[Path]
    progress: Progress
    procedure: Procedure

    @property
    def root(self) -> Path:
        """The top of the image's file system."""
        return self.paths.root

    @property
    def settings(self) -> Settings:
        """avs.conf, with what the recipe changes."""
        return self.recipe.settings

    def say(self, text: str) -> None:
        """A line for the step's log, and for the user with -V."""
        with open(self.log, "a", encoding="utf-8") as stream:
            stream.write(text + "\n")
        self.progress.verbose(f"{self.procedure.name}: {text}")

    def run(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None, check: bool = True) -> int:
        """Run a program of the host; returns its exit code. Raises CommandError if check and it fails."""
        return command.run(argv, log=self.log, env=env, timeout=self.settings.timeout, check=check)

    def chroot(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None, check: bool = True) -> int:
        """Run a program of the image in the image, with /proc, /sys, a small /dev and an empty /run."""
        with mounts.chroot_mounts(self.root):
            return self.run(["chroot", str(self.root), *argv], env, check)

    def install_packages(self, *names: str) -> None:
        """Add packages to the image from its repositories."""
        self.generator.install(self._job(), names)

    def remove_packages(self, *names: str) -> None:
        """Take packages out of the image."""
        self.generator.remove(self._job(), names)

    @contextlib.contextmanager
    def repository(self, where: str) -> Iterator[BuildContext]:
        """This context with one more repository to install from, which is not there any more afterwards; "" for none."""
        with lent.repository(self.image, self.root, where) as image:
            yield dataclasses.replace(self, image=image)

    def kernel_modules(self, *names: str) -> str:
        """See to it that the image's own kernel has these modules, and knows them; returns its release.

        What dkms has to build is built, for that kernel. Raises AvsError where a module is not there then.
        """
        release = modules.kernel(self.root, self.settings.kernel + self.settings.kernel_suffix)
        if modules.missing(self.root, release, names) and self.inside("/usr/sbin/dkms").exists():
            self.chroot(["dkms", "autoinstall", "-k", release])
        left = modules.missing(self.root, release, names)
        if left:
            raise AvsError(
                f"there is no module {' or '.join(left)} for kernel {release}, which is that of the image; "
                "take packages for it, or those that dkms builds from, with the headers of that kernel"
            )
        self.run(["depmod", "-b", str(self.root), "-a", release])
        return release

    def inside(self, path: str) -> Path:
        """A path of the image as the host sees it; links on the way are those of the image, not of the host."""
        return inside(self.root, path)

    def glob(self, pattern: str) -> list[Path]:
        """The paths of the image that a pattern matches (`**`: any directories), reached through no link at all."""
        found = [self.root]
        for part in pattern.strip("/").split("/"):
            directories = [path for path in found if path.is_dir() and not path.is_symlink()]
            if part == "**":
                found = [Path(top) for path in directories for top, _, _ in os.walk(path)]
            else:
                found = [
                    path / name for path in directories for name in os.listdir(path) if fnmatch.fnmatchcase(name, part)
                ]
        return sorted(found)

    def install_file(
        self, source: Union[Path, str, bytes], target: str, mode: int = 0o644, uid: int = 0, gid: int = 0
    ) -> None:
        """Put a file (Path) or a text into the image, in place of what is there."""
        data = (
            source.read_bytes() if isinstance(source, Path) else source.encode() if isinstance(source, str) else source
        )
        path = self.inside(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                os.fchown(descriptor, uid, gid)
                os.fchmod(descriptor, mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        self.say(f"installed {target}")

    def site_file(self, name: str) -> Optional[Path]:
        """A site's file of that name: images/PROFILE/files/ before files/, in INSTALLDIR/custom/avs."""
        site = self.installdir / "custom/avs"
        for directory in (site / "images" / self.image.profile / "files", site / "files"):
            if (directory / name).exists():
                return directory / name
        return None

    def service(self, name: str, enable: bool = True) -> None:
        """Have a service start at boot, or not."""
        self.run(["systemctl", f"--root={self.root}", "enable" if enable else "disable", name])

    def generate(self) -> None:
        """Fill the empty root from package repositories, or from --from DIR."""
        mounts.remove_tree(self.root)  # what a generator that failed has left
        self.root.mkdir(parents=True, mode=0o755)
        if self.source is not None:
            generate.copy_tree(self.source, self.paths.tree, self.log)
        else:
            self.generator.generate(self._job())
            if not (self.paths.tree / generate.KERNEL).exists():  # genimage has made its own
                wanted = self.settings.kernel + self.settings.kernel_suffix
                generate.take_kernel(self.root, self.paths.tree, wanted)

    def empty(self) -> None:
        """Remove all that an earlier build left, and make an empty root."""
        mounts.remove_tree(self.paths.tree)
        self.root.mkdir(parents=True, mode=0o755)

    def overridden(self) -> None:
        """Run the procedure of the same name in the layer below this one, with the same options."""
        below = self.procedure.overridden
        if below is None:
            raise AvsError(f"procedure {self.procedure.name} in {self.procedure.path} overrides none")
        perform(dataclasses.replace(self, procedure=below))

    def _job(self) -> Job:
        return Job(self.image, self.root, self.log, self.progress.warn, self.settings.timeout)


def perform(ctx: BuildContext) -> None:
    """Do a step: call run(ctx) of a Python procedure, or execute the file in the root."""
    found = ctx.procedure
    if found.executable:
        version = ctx.image.version
        env = {"AVS_ROOT": str(ctx.root), "AVS_OSVERS": ctx.image.osvers, "AVS_ARCH": ctx.image.osarch,
               "AVS_PROFILE": ctx.image.profile, "AVS_OSIMAGE": ctx.image.name, "AVS_FAMILY": version.family,
               "AVS_INSTALLDIR": str(ctx.installdir), "AVS_PROCEDURE": str(found.path)}  # fmt: skip
        for name, value in ctx.options.items():
            text = (
                " ".join(value)
                if isinstance(value, tuple)
                else ("yes" if value else "no")
                if isinstance(value, bool)
                else str(value)
            )
            env[f"AVS_OPT_{name.upper()}"] = text
        command.run([str(found.path)], log=ctx.log, env=env, cwd=ctx.root, timeout=ctx.settings.timeout)
        return
    loader = SourceFileLoader(f"avs_procedure_{found.name}", str(found.path))
    module = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    exec(compile(found.source, str(found.path), "exec"), module.__dict__)  # the very bytes that were read and hashed
    with _apart(ctx.log):
        try:
            module.run(ctx)
        except SystemExit as err:
            raise AvsError(f"{found.path} called exit({err.code!r}); a procedure raises an error, or returns") from None


@contextlib.contextmanager
def _apart(log: Path) -> Iterator[None]:
    """Run a procedure so that its prints go to its log, and that what it changes of this process is undone."""
    variables, directory, mask = dict(os.environ), os.getcwd(), os.umask(0o022)
    with open(log, "a", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        saved = os.dup(1)
        os.dup2(stream.fileno(), 1)  # for what it starts itself
        try:
            yield
        finally:
            stream.flush()
            os.dup2(saved, 1)
            os.close(saved)
            os.environ.clear()
            os.environ.update(variables)
            os.chdir(directory)
            os.umask(mask)
