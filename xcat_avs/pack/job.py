"""A pack from what is asked for to what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote

from xcat_avs import settings
from xcat_avs.clock import utc_precise
from xcat_avs.definitions.osimage import OsImage, Tag
from xcat_avs.errors import AvsError, Interrupted, UsageError
from xcat_avs.pack import addon_archives, forms, packimage
from xcat_avs.pack.packing import Packing, patterns
from xcat_avs.recipes.recipe import image_settings
from xcat_avs.report import as_lines, mebibytes
from xcat_avs.request import Request
from xcat_avs.serve import journal, nodes, place, publish, sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.nodes import Served
from xcat_avs.serve.place import Surroundings
from xcat_avs.serve.sets import PackedSet
from xcat_avs.settings import Settings, overlay_settings
from xcat_avs.site import Site
from xcat_avs.store.protocol import Store
from xcat_avs.system import command
from xcat_avs.xcat import fitness, programs

NODESET_TIMEOUT = 1800.0  # seconds; it does some nodes a second


def wanted_form(request: Request, site: Site, target: OsImage) -> Settings:
    """How to pack: avs.conf, the recipe of what it is packed as, and the command line over them."""
    values = {key: value for key, value in (("method", request.method), ("compress", request.compress)) if value}
    settings = image_settings(target, site.definitions.installdir, site.settings)
    return overlay_settings(settings, {"pack": values}, "the command line")


def packer(site: Site, wanted: Settings) -> str:
    """`packimage` or `own`."""
    if wanted.packer == "packimage" and not site.definitions.xcat:
        raise AvsError("[pack] packer = packimage needs xCAT, which is not used here")
    return "packimage" if site.definitions.xcat and wanted.packer != "own" else "own"


def check_tools(request: Request, site: Site, target: OsImage) -> None:
    """Refuse before any work what would fail after it."""
    check_place(site, target)
    wanted = wanted_form(request, site, target)
    settings.refuse_writable(target, wanted)
    own = () if packer(site, wanted) == "packimage" else forms.own(wanted.method, wanted.compress).programs()
    for program in ("fsvs", "svn", *own):
        command.need(program)
    if not own:
        programs.need("packimage")
        fitness.refuse_incomplete(target, target.rootimgdir(site.definitions.installdir), build=False)
        fitness.refuse_unsafe(target)
        packimage.refuse_compress(wanted.compress)
    patterns(target, packer(site, wanted))
    check_nodeset(request, site)


def check_place(site: Site, image: OsImage) -> None:
    """Refuse to serve from, or move aside, what is no image directory of this osimage."""
    definitions = site.definitions
    installdir, scheme = definitions.installdir, "file://"
    others = {
        name: other.rootimgdir(installdir)
        for name, other in definitions.osimages().items()
        if name != image.name
        and other.provmethod != "install"
        and (other.attributes.get("rootimgdir") or (other.osvers and other.osarch and other.profile))
    }
    private = {"the state directory": site.settings.state, "the directory of logs": site.settings.logs}
    if site.settings.store.startswith(scheme):
        private["the store"] = Path(unquote(site.settings.store[len(scheme) :]))
    public = {"INSTALLDIR": installdir, "TFTPDIR": definitions.tftpdir}
    default = installdir / image.store_path
    better = "DIRECTORY" if default == image.rootimgdir(installdir) else default
    advice = f"Give the osimage a directory of its own: {site.chdef(image, f'rootimgdir={better}')}"
    place.refuse(image, image.rootimgdir(installdir), Surroundings(public, private, others, advice))


def check_nodeset(request: Request, site: Site) -> None:
    """Refuse --nodeset where there is nobody to run it."""
    if request.nodeset and not site.definitions.xcat:
        raise UsageError("--nodeset needs xCAT, which is not used here")
    if request.nodeset:
        programs.need("nodeset")


def publish_tag(
    request: Request, site: Site, store: Store, image: OsImage, tag: Tag, target: OsImage
) -> tuple[list[object], dict[str, Any], int]:
    """Pack a tag of image and serve it as target. Returns the parts of a Report."""
    wanted = wanted_form(request, site, target)
    rootimgdir = target.rootimgdir(site.definitions.installdir)
    reserved = frozenset(
        other.rootimgdir(site.definitions.installdir) for other in site.definitions.osimages().values()
    )
    staging = site.settings.state / "staging" / target.name
    with site.lock(target, "pack"), site.image_lock(rootimgdir), site.checkout(image) as checkout:
        packing = Packing(
            store, image, tag, target, rootimgdir, packer(site, wanted), wanted.method, wanted.compress, checkout, staging,
            site.settings.logs / target.name / "pack.log", site.identity.user, site.progress, reserved, site.settings.timeout,
            site.definitions.xcat,
        )  # fmt: skip
        warn_altered(site, target, rootimgdir)
        finished = publish.finish_interrupted(rootimgdir)
        check_place(site, target)  # again, for a build may have come between
        if not request.force and packing.served_already():
            record = sets.read_record(rootimgdir)
            assert record is not None
            text = f"{target.name} serves tag {tag.name} of {image.name} already; nothing was done (--force packs it again)"
            more, document, code = after_publish(request, site, target, changed=False)
            return [as_lines([text, *more])], {**asdict(record), "changed": False, **document}, code
        before = sets.current(rootimgdir) or ""
        record, name, moved = packing.run()
        moved = moved or finished
        record_publish(site, target, "pack", record, name, moved or before, tag.message.partition("\n")[2])
    lines = packed_lines(record, moved, rootimgdir)
    if not site.definitions.xcat:
        lines.append(forms.how_to_boot(rootimgdir, record.archive))
    try:
        more, document, code = after_publish(request, site, target)
    except Interrupted:
        site.progress.say(f"{target.name} tag {tag.name} is published")
        raise
    return (
        [as_lines([*lines, *more])],
        {**asdict(record), "changed": True, "previous": sets.previous(rootimgdir), **document},
        code,
    )


def warn_altered(site: Site, image: OsImage, rootimgdir: Path) -> None:
    """Say that what is served is not what was packed: somebody has packed over it by hand, or it is damaged."""
    text = sets.altered(rootimgdir)
    if text:
        site.progress.warn(f"{image.name}: {text}; it is kept as it is")


def record_publish(
    site: Site, image: OsImage, action: str, record: Optional[PackedSet], directory: str, before: str, message: str
) -> None:
    """Write the journal."""
    source, tag, revision = (record.source, record.tag, record.revision) if record else ("", "", 0)
    identity = site.identity
    entry = JournalEntry(
        image.name,
        action,
        utc_precise(),
        identity.user,
        identity.real(),
        source,
        tag,
        revision,
        directory,
        before,
        message,
    )
    journal.append(site.journal_file(image), entry)


def after_publish(
    request: Request, site: Site, image: OsImage, changed: bool = True
) -> tuple[list[str], dict[str, Any], int]:
    """What the nodes will boot now, and what is due: lines, a document, an exit code. Unless changed, --nodeset runs only what is due."""
    if not site.definitions.xcat:
        return [], {}, 0

    try:
        states = nodes.look_all(image, site.definitions)
    except AvsError as err:
        # It is published all the same, and that is what has to be said.
        return [f"Which nodes use it cannot be said: {err.text}"], {"nodes": None}, 1 if request.nodeset else 0
    document = {**states[0].document(), "shared": [_shared_document(state) for state in states[1:]]}
    due = changed or any(state.due for state in states)
    if not (request.nodeset and due and any(state.nodes for state in states)):
        return _shared_lines(states), document, 0
    lines, code = list(nodes.advice(states[0])), 0
    if changed or states[0].due:
        lines, document, code = _run_nodeset(states[0], document)
    for state in states[1:]:
        if state.due:
            more, _, failed = _run_nodeset(state, {})
            lines += [_serves_too(state), *more]
            code = code or failed
    lines += [line for state in states for line in nodes.service_lines(state)]
    states = nodes.look_all(image, site.definitions)
    document.update(
        differing=states[0].document()["differing"], shared=[_shared_document(state) for state in states[1:]]
    )
    return lines, document, code


def _shared_document(state: Served) -> dict[str, Any]:
    return {"osimage": state.image.name, **state.document()}


def _serves_too(state: Served) -> str:
    return f"The same directory is that of {state.image.name}:"


def _shared_lines(states: Sequence[Served]) -> list[str]:
    """What is to be said of an osimage, and of the others whose nodes boot the same files."""
    lines = list(nodes.advice(states[0]))
    for state in states[1:]:
        lines += [_serves_too(state), *nodes.advice(state)] if state.nodes else []
    return lines


def _run_nodeset(state: Served, document: dict[str, Any]) -> tuple[list[str], dict[str, Any], int]:
    """Run nodeset for the nodes that it is due for, or for all; lines, the document with what it said, its failure."""
    if not state.nodes:
        return list(nodes.advice(state)), document, 0
    output = command.capture([programs.need("nodeset"), *state.nodeset[1:]], timeout=NODESET_TIMEOUT, check=False)
    said = [line for line in (output.text + output.stderr).splitlines() if line.strip()]
    ran = {"nodeset_ran": list(state.nodeset), "nodeset_exit": output.code, "nodeset_said": said,
           "nodeset_due": output.code != 0, "nodeset": []}  # fmt: skip
    lines = [nodes.used_by(state), f"{' '.join(state.nodeset)}:", *("  " + line for line in said)]
    if output.code:
        lines.append(
            f"nodeset {command.describe(output.code)}: the image is published, and these nodes would boot another kernel with it"
        )
    return lines, {**document, **ran}, 1 if output.code else 0


def packed_lines(published: PackedSet, moved: str, rootimgdir: Path) -> list[str]:
    """What was published, in words."""
    as_other = f" as {published.osimage}" if published.osimage != published.source else ""
    size = published.files[published.archive]["size"]
    assert isinstance(size, int)
    lines = [
        f"Packed {published.source} tag {published.tag}{as_other}",
        f"Serving {rootimgdir}/{published.archive} ({mebibytes(size)})",
    ]
    sizes = {
        name: facts["size"]
        for name, facts in published.files.items()
        if name.startswith(f"{addon_archives.DIRECTORY}/")
    }
    packed = [
        f"{name.split('/')[1].removesuffix(addon_archives.SUFFIX)} ({mebibytes(size)})"
        for name, size in sizes.items()
        if isinstance(size, int) and name.endswith(addon_archives.SUFFIX)
    ]
    if packed:
        lines.append(f"Add-ons, for the postscript avsaddons: {', '.join(packed)}")
    if moved:
        lines.append(f"The directory that was there is kept as {rootimgdir.with_name(moved)}")
    elif sets.previous(rootimgdir):
        lines.append(f"Served before, and kept: {rootimgdir.parent / sets.previous(rootimgdir)}")
    return lines
