"""What fills the root of an image, by its settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

from xcat_avs import generate
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions
from xcat_avs.errors import AvsError
from xcat_avs.generate import Generator, InstallOptions, genimage
from xcat_avs.generate.existing import Copy
from xcat_avs.generate.genimage import Genimage
from xcat_avs.settings import Settings, share_dir
from xcat_avs.xcat import fitness


def select(image: OsImage, settings: Settings, definitions: Definitions, source: Optional[Path]) -> Generator:
    """With xCAT its genimage, unless a setting, or the directory of --from, says otherwise."""
    if source is not None:
        return Copy(source, install_options(image, settings))
    if settings.generator not in ("auto", "genimage") or not (definitions.xcat or settings.generator == "genimage"):
        return generate.choose(image, settings.generator, install_options(image, settings))
    if not definitions.xcat:
        raise AvsError(f"{image.name}: [image] generator = genimage needs xCAT, which is not used here")
    rootimgdir = image.rootimgdir(definitions.installdir)
    fitness.refuse_incomplete(image, rootimgdir, build=True)
    fitness.refuse_unsafe(image)
    minimal = ""
    if settings.pkglist == "minimal":
        minimal = str(share_dir() / "minimal" / f"{image.version.chain[0]}.pkglist")
        if not Path(minimal).is_file():
            raise AvsError(f"{image.name}: [image] pkglist = minimal, and there is no {minimal}")
    modules = settings.net_modules + settings.storage_modules + settings.filesystem_modules
    kernel = settings.kernel and settings.kernel + settings.kernel_suffix
    return Genimage(
        rootimgdir,
        definitions.tftpdir,
        minimal,
        settings.provider,
        options=genimage.options(modules, settings.interface, kernel, settings.root_size),
        install_options=install_options(image, settings),
    )


def install_options(image: OsImage, settings: Settings) -> InstallOptions:
    """What the settings say of all packages."""
    version = image.version
    base = settings.rinse_packages or str(share_dir() / "rinse" / f"{version.family}{version.major}.packages")
    return InstallOptions(settings.install_docs, settings.install_locales, settings.package_manager_args, Path(base))


def existing_tree(directory: str, builds: Path) -> Optional[Path]:
    """The directory of --from, None for "". builds: where builds are, which must not be it. Raises AvsError."""
    if not directory:
        return None
    source = Path(directory).absolute()
    if not (source / "rootimg").is_dir():
        raise AvsError(
            f"--from {directory}: there is no directory {source / 'rootimg'}; it must be laid out like a rootimgdir"
        )
    real = (os.path.realpath(source), os.path.realpath(builds))
    if os.path.commonpath(real) in real:
        raise AvsError(
            f"--from {directory} lies in, or around, {builds}, which the build empties; copy it elsewhere first"
        )
    return source
