"""Which form an archive has, and how a node boots it."""

from __future__ import annotations

from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.pack.archive import Form

PACKIMAGE = ("auto", "gzip", "pigz", "xz")  # how packimage compresses


def choose(method: str, packer: str, lossy: bool) -> str:
    """The method asked for; for `auto` one that keeps all of the image; "" leaves it to packimage.

    lossy: whether nodes would be without something, such as capabilities, if the archive were cpio.
    """
    if method != "auto":
        return method
    if lossy:
        return "tar"
    return "" if packer == "packimage" else "cpio"


def own(method: str, compress: str) -> Form:
    """What our own packer makes of what was asked for."""
    return Form("cpio" if method == "auto" else method, {"auto": "gzip", "pigz": "gzip"}.get(compress, compress))


def refuse_compress(compress: str) -> None:
    """Refuse a compression that packimage does not know."""
    if compress not in PACKIMAGE:
        raise AvsError(
            f"packimage compresses by {', '.join(PACKIMAGE[1:])}, not by {compress}; for that, set [pack] packer = own"
        )


def how_to_boot(rootimgdir: Path, archive: str) -> str:
    """What a boot loader is told to boot a published set without xCAT, in words."""
    if Form.of(archive).method == "cpio":
        return f"Boot: kernel {rootimgdir}/kernel, initrd {rootimgdir}/{archive}, command line rdinit=/sbin/init and no root="
    return f"Boot: by an initrd that unpacks or mounts {archive}; a kernel alone takes --method cpio"
