"""pack: check a tag out, prove it, archive it, serve it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from xcat_avs import command, config
from xcat_avs import pack as packing
from xcat_avs.config import Settings
from xcat_avs.image import OsImage, Tag
from xcat_avs.modes import Mode
from xcat_avs.modes.tag import find_tag
from xcat_avs.pack.archive import Form
from xcat_avs.pack.publish import PackedSet
from xcat_avs.report import Report, mebibytes
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store import Store


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    target = site.resolve(request.masquerade, request) if request.masquerade else image
    for program in ("fsvs", "svn", *wanted_form(request, site).programs()):
        command.need(program)
    store = site.store()
    tag = find_tag(request.tag, store, image)
    published, moved = publish_tag(request, site, store, image, tag, target)
    lines = packed_lines(published, moved, target.rootimgdir(site.definitions.installdir))
    return Report(["\n".join(lines)], asdict(published))


def wanted_form(request: Request, site: Site) -> Form:
    """The archive that the command line, or the settings, ask for."""
    values = {key: value for key, value in (("method", request.method), ("compress", request.compress)) if value}
    settings: Settings = config.overlay(site.settings, {"pack": values}, "the command line")
    return Form(settings.method, settings.compress)


def publish_tag(
    request: Request, site: Site, store: Store, image: OsImage, tag: Tag, target: OsImage
) -> tuple[PackedSet, str]:
    """Pack a tag of image and serve it as target."""
    form = wanted_form(request, site)
    rootimgdir = target.rootimgdir(site.definitions.installdir)
    staging = site.settings.state / "staging" / target.name
    with site.lock(target, "pack"):
        return packing.pack(
            store,
            image,
            tag,
            target,
            rootimgdir,
            form,
            staging,
            site.identity.user,
            site.progress,
            site.settings.timeout,
        )


def packed_lines(published: PackedSet, moved: str, rootimgdir: Path) -> list[str]:
    """What was published, in words."""
    as_other = f" as {published.osimage}" if published.osimage != published.source else ""
    size = published.files[published.archive]["size"]
    assert isinstance(size, int)
    lines = [
        f"Packed {published.source} tag {published.tag}{as_other}",
        f"Serving {rootimgdir}/{published.archive} ({mebibytes(size)})",
    ]
    if moved:
        lines.append(f"The directory that was there is kept as {rootimgdir.with_name(moved)}")
    elif published.previous:
        lines.append(f"Served before, and kept: {rootimgdir.with_name(published.previous)}")
    return lines


MODE = Mode(
    "pack", "check a tag out, verify it, pack it, and serve it in one step", run,
    {
        "tag": "the tag to pack", "masquerade": "serve it as another osimage (test nodes)", "user": "who packs it (default: who is logged in)",
        "method": "cpio, tar or squashfs", "compress": "gzip, zstd or xz",
    },
    needs=("tag",), private=True,
)  # fmt: skip
