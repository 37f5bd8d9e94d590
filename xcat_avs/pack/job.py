"""How something is packed, and where to: decided and checked once, before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from xcat_avs.definitions import exlist, includes
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.pack import forms
from xcat_avs.request import Request
from xcat_avs.serve import nodeset
from xcat_avs.serve.sets import Target
from xcat_avs.site import Site
from xcat_avs.store import signatures
from xcat_avs.store.signatures import Signing
from xcat_avs.system import command
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.tree import gate
from xcat_avs.tree.gate import Allowed
from xcat_avs.xcat import fitness, programs

PRODUCTION = "*.prod"  # osimages that `[pack] require_boot = yes` means


@dataclass(frozen=True)
class PackJob:
    """How a tag is packed, and what it is served as.

    packer: `packimage` or `own`. method, compress: as asked for; `auto` leaves it to the packer.
    excluded, included: the patterns of the exlist. xcat: whether nodes boot by xCAT's initrd; else the kernel unpacks
    the archive. staging: a private directory, on disk and not served, that is emptied before and removed after.
    log: a file for what the programs say. runner: how they are run. user: who packs.
    secrets: which may be in it; refuse_secrets: whether others end the pack.
    signing: how the signature of a tag is checked; signature_required: whether it has to be a good one.
    boot_required: whether it has to have booted in its form.
    """

    target: Target
    packer: str
    method: str
    compress: str
    excluded: Sequence[str]
    included: Sequence[str]
    xcat: bool
    staging: Path
    log: Path
    runner: Runner
    user: str
    progress: Progress
    signing: Signing
    signature_required: bool
    secrets: Sequence[Allowed] = ()
    refuse_secrets: bool = True
    boot_required: bool = False

    @cached_property
    def inputs(self) -> str:
        """A hash of what decides, besides the tag, how the archive comes out."""
        image = self.target.image
        sha = hashlib.sha256(f"{self.packer}\0{self.method}\0{self.compress}\0{image.stanza()}".encode())
        sha.update(repr((self.excluded, self.included)).encode())  # with what they include
        for path in sorted(image.named_files()):
            sha.update(path.read_bytes())
        return sha.hexdigest()


def prepare(request: Request, site: Site, image: OsImage) -> PackJob:
    """Decide how an osimage is packed, and refuse what would fail after the work.

    Raises AvsError for a place that is none for an image, a program that is missing, an unfit definition or exlist.
    """
    target = site.target(image)
    site.check_place(target)
    wanted = site.pack_settings(image, request)
    packer = packer_of(site, wanted.packer)
    _refuse(target, packer, wanted.compress, (*site.store_programs(), *tools(packer, wanted.method, wanted.compress)))
    gate.check(wanted.secrets)
    # packimage puts no variables into the names of lists.
    variables = {} if packer == "packimage" else includes.variables(image)
    try:
        excluded, included = exlist.read(image.paths("exlist"), variables)
    except AvsError as err:
        raise err.prefixed(f"{image.name}: ") from None
    if request.nodeset:
        nodeset.need(site.definitions)
    log = site.settings.logs / image.name / "pack.log"
    return PackJob(
        target=target, packer=packer, method=wanted.method, compress=wanted.compress, excluded=excluded, included=included,
        xcat=site.definitions.xcat, staging=site.settings.state / "staging" / image.name,
        log=log, runner=site.runner(log), user=site.identity.user, progress=site.progress,
        secrets=wanted.secrets, refuse_secrets=wanted.refuse_secrets,
        signing=site.signing(request), signature_required=signatures.required(wanted.require_signature, image),
        boot_required=signatures.required(wanted.require_boot, image, PRODUCTION),
    )  # fmt: skip


def tools(packer: str, method: str, compress: str) -> tuple[str, ...]:
    """The programs that pack, but for packimage."""
    return () if packer == "packimage" else forms.own(method, compress).programs()


def programs_of(request: Request, site: Site, image: OsImage) -> tuple[str, ...]:
    """Those that an osimage would be packed by, as it is asked for."""
    wanted = site.pack_settings(image, request)
    return tools(packer_of(site, wanted.packer), wanted.method, wanted.compress)


def packer_of(site: Site, wanted: str) -> str:
    """`packimage` or `own`."""
    if wanted == "packimage" and not site.definitions.xcat:
        raise AvsError("[pack] packer = packimage needs xCAT, which is not used here")
    return "packimage" if site.definitions.xcat and wanted != "own" else "own"


def _refuse(target: Target, packer: str, compress: str, programs_needed: Sequence[str]) -> None:
    """Refuse a pack whose programs are not there, or that packimage would refuse, or would hand to a shell."""
    command.need(*programs_needed)
    if packer == "packimage":
        programs.need("packimage")
        fitness.refuse_incomplete(target.image, target.rootimgdir, build=False)
        fitness.refuse_unsafe(target.image)
        forms.refuse_compress(compress)
