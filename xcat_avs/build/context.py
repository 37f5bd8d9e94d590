"""What a procedure is given, and how one is run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any, NoReturn, Optional

from xcat_avs import generate
from xcat_avs.build.paths import BuildPaths
from xcat_avs.build.services import ImageServices
from xcat_avs.definitions import pkglist
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.generate import Generator, Job, existing, lent
from xcat_avs.recipes.procedure import Procedure
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.settings import Settings
from xcat_avs.system import masking, mounts, trust
from xcat_avs.system.chroot import chroot_mounts
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.tree import kernels, packages


@dataclass(frozen=True)
class BuildContext(ImageServices):
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

    @property
    def _runner(self) -> Runner:
        """How the step's programs are run."""
        return Runner(self.log, self.settings.timeout, self.progress)

    def say(self, text: str) -> None:
        """A line for the step's log, and for the user with -V."""
        with open(self.log, "a", encoding="utf-8") as stream:
            stream.write(masking.text(text) + "\n")
        self.progress.verbose(f"{self.procedure.name}: {text}")

    def report(self, *lines: str) -> None:
        """Lines for the report of the create, below its table."""
        self.paths.results.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.paths.report(self.procedure.name), "a", encoding="utf-8") as stream:
            stream.writelines(f"{masking.text(line)}\n" for line in lines)
        for line in lines:
            self.say(line)

    def fail(self, text: str) -> NoReturn:
        """End the step with an error: what is wrong, and what to do about it."""
        raise AvsError(text)

    def run(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None, check: bool = True) -> int:
        """Run a program of the host; returns its exit code. Raises CommandError if check and it fails."""
        return self._runner.run(argv, env=env, check=check)

    def chroot(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None, check: bool = True) -> int:
        """Run a program of the image in the image, with /proc, /sys, a small /dev and an empty /run."""
        with chroot_mounts(self.root):
            return self.run(["chroot", str(self.root), *argv], env, check)

    def packages(self) -> list[str]:
        """The names of the packages in the image, by its own database; sorted."""
        return sorted(packages.package_names(self.root))

    def install_packages(self, *names: str) -> None:
        """Add packages to the image from its repositories; those that are in it are left as they are."""
        present = set(self.packages())
        missing = [name for name in names if name not in present]
        if missing:
            self.generator.install(self._job(), missing)

    def remove_packages(self, *names: str) -> None:
        """Take packages out of the image."""
        self.generator.remove(self._job(), names)

    def upgrade_packages(self) -> None:
        """Bring all packages of the image to the newest version in its repositories, and the kernel with them."""
        suffix = self.settings.kernel_suffix
        before = kernels.newest_kernel(self.root, suffix)
        self.generator.upgrade(self._job())
        after = kernels.newest_kernel(self.root, suffix)
        if after != before:
            self.take_kernel(after)

    def read_pkglist(self, *paths: Path) -> pkglist.PackageList:
        """Package lists of the host, in the syntax of pkglist: include, exclude, environment, files."""
        return pkglist.read(paths, generate.variables(self.image))

    def leave_out(self, directories: Sequence[str], keep: Sequence[str] = ()) -> None:
        """Have rpm leave documentation, or dpkg what is in the directories but keep, out of what is installed later."""
        if self.image.version.packages == "rpm":
            self.install_file("%_excludedocs 1\n", "/etc/rpm/macros.avs-excludedocs")
            return
        lines = [f"path-exclude=/{pattern}/*\n" for pattern in directories]
        lines += [f"path-include=/{pattern}\n" for pattern in keep]
        self.install_file("".join(lines), f"/etc/dpkg/dpkg.cfg.d/avs-{self.procedure.name}")

    @contextlib.contextmanager
    def repository(self, where: str) -> Iterator[BuildContext]:
        """This context with one more repository to install from, which is not there any more afterwards; "" for none."""
        with lent.repository(self.image, self.root, where) as image:
            yield dataclasses.replace(self, image=image)

    def kernel_modules(self, *names: str) -> str:
        """See to it that the image's own kernel has these modules, and knows them; returns its release.

        What dkms has to build is built, for that kernel. Raises AvsError where a module is not there then.
        """
        release = kernels.with_modules(self.root, self._wanted_kernel())
        if kernels.missing_modules(self.root, release, names) and self.inside("/usr/sbin/dkms").exists():
            self.chroot(["dkms", "autoinstall", "-k", release])
        left = kernels.missing_modules(self.root, release, names)
        if left:
            raise AvsError(
                f"there is no module {' or '.join(left)} for kernel {release}, which is that of the image; "
                "take packages for it, or those that dkms builds from, with the headers of that kernel"
            )
        self.run(["depmod", "-b", str(self.root), "-a", release])
        return release

    def site_file(self, name: str) -> Optional[Path]:
        """A site's file of that name: images/PROFILE/files/ before files/, in INSTALLDIR/custom/avs."""
        site = self.installdir / "custom/avs"
        for directory in (site / "images" / self.image.profile / "files", site / "files"):
            if (directory / name).exists():
                return self.host_file(directory / name)
        return None

    def site_files(self, pattern: str) -> list[Path]:
        """The site's files that a pattern matches (`*` within one part), of each name the one of site_file; sorted."""
        site = self.installdir / "custom/avs"
        found = {}
        for directory in (site / "files", site / "images" / self.image.profile / "files"):
            found.update({path.relative_to(directory): path for path in directory.glob(pattern) if path.is_file()})
        return [self.host_file(path) for _, path in sorted(found.items())]

    def host_file(self, path: Path) -> Path:
        """A file of this machine, or a directory of them, that root alone may change. Raises AvsError for any other."""
        trust.refuse(path)
        for item in path.rglob("*") if path.is_dir() else ():
            trust.refuse(item)
        return path

    def generate(self) -> None:
        """Fill the empty root from package repositories, or from --from DIR."""
        mounts.remove_tree(self.root)  # what a generator that failed has left
        self.root.mkdir(parents=True, mode=0o755)
        if self.source is not None:
            existing.copy_tree(self.source, self.paths.tree, self._runner)
            stripped = existing.strip_packimage(self.root)
            if stripped:
                self.report(f"{self.source} was packed by packimage; taken out of the copy: {', '.join(stripped)}")
        else:
            self.generator.generate(self._job())
            if (self.paths.tree / kernels.KERNEL).exists():  # genimage has made its own
                self._compare_kernel()
            else:
                taken = kernels.take_kernel(self.root, self.paths.tree, self._wanted_kernel())
                others = ", ".join(release for release in self.kernels() if release != taken)
                self.say(f"nodes boot kernel {taken or 'none'}" + (f"; the image has {others} too" if others else ""))
        kernels.check_modules(self.paths.tree)

    def _compare_kernel(self) -> None:
        """genimage takes the last one by name, so that 4.18.0-348.el8 goes before 348.20.1.el8_5."""
        newest = kernels.newest_kernel(self.root)
        if not newest or self.image.attributes.get("kernelver") or self.settings.kernel:
            return
        kernel = kernels.kernel_file(self.root, newest)
        if kernel.is_file() and kernel.read_bytes() != (self.paths.tree / kernels.KERNEL).read_bytes():
            taken = kernels.read_release(self.paths.tree / kernels.KERNEL) or "another kernel"
            self.progress.warn(
                f"{self.image.name}: genimage took {taken}, and the newest plain kernel of the image is {newest}; "
                f"`chdef -t osimage {self.image.name} kernelver={newest}` and build again, or name the one you want there"
            )

    def _wanted_kernel(self) -> str:
        """The release that the settings name, or by its end alone the newest one that ends so; "" for the newest."""
        release, suffix = self.settings.kernel, self.settings.kernel_suffix
        return release + suffix if release or not suffix else kernels.newest_kernel(self.root, suffix) or suffix

    def kernels(self) -> list[str]:
        """The releases of the image's kernels, the oldest first, and those of a flavour (debug, rt) before the plain ones."""
        return list(kernels.kernels(self.root))

    def take_kernel(self, release: str = "") -> None:
        """Have nodes boot that kernel of the image (default: the newest), with its initrd.

        Raises AvsError where the image has not got it, or where genimage has made another one bootable.
        """
        release = release or kernels.newest_kernel(self.root)
        kernel, present = kernels.kernel_file(self.root, release), self.paths.tree / kernels.KERNEL
        brought = self.generator.name == "genimage" or self.source is not None
        if brought and present.exists() and present.read_bytes() == kernel.read_bytes():
            return  # and its initrd is one that was made for the network
        if self.generator.name == "genimage":
            name = self.image.name
            raise AvsError(
                f"genimage has made the initrd of another kernel than {release}; `chdef -t osimage {name} kernelver={release}` and build again"
            )
        kernels.take_kernel(self.root, self.paths.tree, release)
        self.say(f"nodes boot kernel {release}")

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
        return Job(self.image, self.root, self._runner, self.progress.warn)


def variables(
    image: OsImage, root: Path, installdir: Path, options: Mapping[str, Any], procedure: Procedure
) -> dict[str, str]:
    """What an executable procedure finds in its environment."""
    env = {"AVS_ROOT": str(root), "AVS_OSVERS": image.osvers, "AVS_ARCH": image.osarch, "AVS_PROFILE": image.profile,
           "AVS_OSIMAGE": image.name, "AVS_FAMILY": image.version.family, "AVS_INSTALLDIR": str(installdir),
           "AVS_PROCEDURE": str(procedure.path)}  # fmt: skip
    for name, value in options.items():
        flag = "yes" if value else "no"
        text = " ".join(value) if isinstance(value, tuple) else flag if isinstance(value, bool) else str(value)
        env[f"AVS_OPT_{name.upper()}"] = text
    return env


def perform(ctx: BuildContext) -> None:
    """Do a step: call run(ctx) of a Python procedure, or execute the file in the root."""
    found = ctx.procedure
    if found.executable:
        env = variables(ctx.image, ctx.root, ctx.installdir, ctx.options, found)
        ctx._runner.run([str(found.path)], env=env, cwd=ctx.root)
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
    with masking.appended(log), open(log, "a", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
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
