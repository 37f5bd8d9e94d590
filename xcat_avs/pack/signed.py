"""Signatures of tags where a tag is made, and where it is packed."""

from __future__ import annotations

from collections.abc import Iterator

from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError
from xcat_avs.pack.job import PackJob
from xcat_avs.pack.packing import Tagged
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store.protocol import NewTag, Store
from xcat_avs.store.signatures import GOOD, TAMPERED, UNCHECKED, UNSIGNED, Signed
from xcat_avs.store.tags import make_tag


def make_signed(request: Request, site: Site, store: Store, image: OsImage, new: NewTag) -> tuple[Tag, Signed]:
    """Make a tag, signed where tags are signed; a warning for a signature that no pack would take."""
    signing = site.signing(request)
    tag = make_tag(store, image, signing.sign(store, image, new, site.identity.started))
    signed = signing.check(image, tag, manifest="")
    if signed.result not in (GOOD, UNSIGNED, UNCHECKED):
        site.progress.warn(f"{image.name}: tag {tag.name} is {signed.words(local(signed.date))}")
    return tag, signed


def said_of(signed: Signed) -> Iterator[str]:
    """The line of a report about the signature of a tag; none where it has none."""
    if signed.result == GOOD:
        yield f"Signed by {signed.signer} with {signed.key}"
    elif signed.result != UNSIGNED:
        yield f"It is {signed.words(local(signed.date))}"


def refuse_unsigned(site: Site, job: PackJob, tagged: Tagged) -> Signed:
    """What the signature of a tag is worth. Raises AvsError where it must not be packed for that."""
    tag, image = tagged.tag, tagged.image
    signed = job.signing.check(image, tag, tagged.version if tag.signature else "")
    said = f"{image.name}: tag {tag.name} is {signed.words(local(signed.date))}"
    if signed.result == TAMPERED:
        raise AvsError(f"{said}; nothing was packed")
    if job.signature_required and signed.result != GOOD:
        raise AvsError(
            f"{said}, and {job.target.image.name} serves only what an allowed signer has signed ([pack] require_signature); "
            "nothing was packed"
        )
    if signed.result not in (GOOD, UNSIGNED):
        site.progress.warn(said)
    return signed
