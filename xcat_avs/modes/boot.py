"""boot: whether what nodes would boot of a tag comes up, tried in a virtual machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from xcat_avs.boot import arguments, booting, console, judge, machine, memory
from xcat_avs.boot.booting import Outcome, Terms
from xcat_avs.boot.machine import KVM, Guest
from xcat_avs.clock import utc_now
from xcat_avs.errors import AvsError
from xcat_avs.modes import Mode
from xcat_avs.pack import trial
from xcat_avs.pack.archive import Form
from xcat_avs.pack.job import PackJob, prepare
from xcat_avs.pack.packing import Tagged
from xcat_avs.pack.trial import Trial
from xcat_avs.report import Report, as_lines, short_size
from xcat_avs.request import Request
from xcat_avs.serve import booted, journal, nodes
from xcat_avs.serve.booted import FAILED, Boot
from xcat_avs.site import Site
from xcat_avs.store.tags import find_tag
from xcat_avs.tree import initrd
from xcat_avs.tree.kernels import INITRD, KERNEL

XCATROOT = b"xcatroot"  # of an initrd that fetches the archive
GUESS = 3  # times its archive is a tree of which nothing is known


class BootFailed(AvsError):
    """It did not come up. report: what is known of it."""

    report = Report()


def run(request: Request, site: Site) -> Report:
    image = site.own_image(request)
    job = prepare(request, site, site.resolve(request.masquerade, request) if request.masquerade else image)
    settings = site.pack_settings(job.target.image, request)
    terms = Terms(
        success=settings.boot_success, units=settings.boot_units, seconds=settings.boot_timeout, memory=settings.boot_memory,
        arguments=settings.boot_arguments,
    )  # fmt: skip
    machine.program(job.target.image.osarch)
    console.library()
    console.patterns(terms.success)
    store = site.store()
    tagged = Tagged(store, image, find_tag(request.tag, store, image))
    with trial.bootable(site, job, tagged) as found:
        guest, need = _guest(found, job, tagged, terms, site)
        log = site.settings.logs / image.name / "boot.log"
        site.progress.begin(f"booting {tagged.tag.name}")
        try:
            outcome = booting.boot(guest, terms, log, site.progress)
        finally:
            site.progress.end()
    boot = _result(outcome, found, tagged, (guest.memory, *need), site.identity.user)
    journal.append(booted.file(site.private(site.settings.state), image.name), boot)
    return _report(boot, outcome, found, log)


def _guest(found: Trial, job: PackJob, tagged: Tagged, terms: Terms, site: Site) -> tuple[Guest, tuple[int, int]]:
    """The machine; the memory in MiB that a node needs, and that the unpacked tree takes. Raises AvsError for what cannot be booted here."""
    directory, record, image = found.directory, found.record, job.target.image
    archive, kernel, own = (directory / name for name in (record.archive, KERNEL, INITRD))
    method, kind = Form.of(record.archive).method, machine.kind(image.osarch)
    what = f"{image.name}, tag {record.tag}"
    if not kernel.is_file():
        raise AvsError(f"{what} holds no kernel, so nothing can boot it")
    if job.xcat or (method != "cpio" and own.is_file() and initrd.holds(own.read_bytes(), XCATROOT)):
        given = nodes.arguments(image, site.definitions) if job.xcat else []
        plan = arguments.by_xcat(given, f"{job.target.rootimgdir}/{record.archive}", kind, terms.arguments)
    elif method == "tar":
        raise AvsError(
            f"{what} is packed as {record.archive}, which only an initrd of xCAT unpacks, and it has none; pack it as cpio or squashfs"
        )
    else:
        plan = arguments.alone(method, kind, terms.arguments)
    if not plan.initramfs and not own.is_file():
        raise AvsError(f"{what} is booted by its own {INITRD}, and holds none")
    sizes, size = trial.file_sizes(job, tagged), archive.stat().st_size
    tree = GUESS * size if sizes is None else memory.unpacked(sizes)
    needed = memory.needed(method, size, tree, 0 if plan.initramfs else own.stat().st_size)
    guest = Guest(
        osarch=image.osarch, kernel=kernel, initrd=archive if plan.initramfs else own, append=plan.append,
        memory=terms.memory or needed, served=None if plan.initramfs or plan.disk else directory,
        disk=archive if plan.disk else None,
    )  # fmt: skip
    return guest, (needed, tree >> 20)


def _result(outcome: Outcome, found: Trial, tagged: Tagged, sizes: tuple[int, int, int], user: str) -> Boot:
    """What is noted of it. sizes: the memory that the machine had, that a node needs, and that the tree takes; in MiB."""
    record, tag, verdict = found.record, tagged.tag, outcome.verdict
    well = verdict.kind == judge.BOOTED
    return Boot(
        source=tagged.image.name, tag=tag.name, revision=tag.source, made=tag.date, version=record.version, osimage=record.osimage,
        archive=record.archive, result=judge.BOOTED if well else FAILED, why=verdict.words if well else verdict.kind,
        seconds=round(outcome.seconds, 1), accelerator=outcome.accelerator, memory=sizes[0], needed=sizes[1],
        unpacked=sizes[2], units=", ".join(verdict.failed), date=utc_now(), user=user,
    )  # fmt: skip


def _report(boot: Boot, outcome: Outcome, found: Trial, log: Path) -> Report:
    """The report. Raises BootFailed where it did not come up."""
    how = "by KVM" if outcome.accelerator == KVM else f"emulated: {outcome.why}"
    what = f"{boot.source} tag {boot.tag}, packed as {boot.osimage} in {boot.archive}"
    place = "packed for this" if found.packed else f"the set {found.directory}"
    document: dict[str, Any] = {**asdict(boot), "why_emulated": outcome.why, "kind": outcome.verdict.kind,
                                "words": outcome.verdict.words, "directory": "" if found.packed else str(found.directory),
                                "log": str(log)}  # fmt: skip
    failed = [f"Failed on the way: {unit}" for unit in outcome.verdict.failed]
    size = short_size(int(str(found.record.files[boot.archive]["size"])))
    kept = "which stays packed" if Form.of(boot.archive).method == "squashfs" else f"unpacked {boot.unpacked} MiB"
    needs = f"A node needs {boot.needed} MiB of memory for this form: {boot.archive} of {size}, {kept}"
    if not boot.well:
        error = BootFailed(
            f"{what}, did not boot ({how}, {boot.memory} MiB, {boot.seconds:.0f} s): {outcome.verdict.kind}: {outcome.verdict.words}",
            outcome.last, str(log),
        )  # fmt: skip
        error.report = Report(document=document)
        raise error
    lines = [
        f"Booted {what}",
        f"Up after {boot.seconds:.0f} s ({how}, {boot.memory} MiB, {place}): {boot.why}",
        *failed,
        needs,
    ]
    return Report([as_lines([*lines, f"Console: {log}"])], document)


MODE = Mode(
    "boot", run,
    {"tag": "the tag to boot", "masquerade": "as it is, or would be, packed for another osimage"}, needs=("tag",), private=True,
)  # fmt: skip
