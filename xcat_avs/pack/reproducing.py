"""Pack a published tag once more and compare: the same tag gives the same bytes. Nothing is published."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.pack import addon_archives, members
from xcat_avs.pack.archive import Form
from xcat_avs.pack.job import PackJob, prepare
from xcat_avs.pack.packing import Packing, Tagged
from xcat_avs.pack.secrets import Gate
from xcat_avs.report import short_size
from xcat_avs.request import Request
from xcat_avs.serve import contents, sets
from xcat_avs.serve.sets import PackedSet
from xcat_avs.site import Site
from xcat_avs.system.findings import FAIL, OK, WARN, Finding
from xcat_avs.system.scratch import own_directory
from xcat_avs.tree import manifest

PREFIX = ".reproduced."  # of the directory that the new set is written to, in that of the state
METHODS, COMPRESSIONS = (
    ("auto", "cpio", "tar", "squashfs"),
    ("auto", "gzip", "pigz", "zstd", "xz"),
)  # what can be asked for


def reproduce(request: Request, site: Site, tagged: Tagged) -> Iterator[Finding]:
    """Each packed set of a tag that is still there, whether served or not, packed again and compared."""
    found = False
    for target in site.targets():
        for name, record in sets.kept(target.rootimgdir, target.image.name, tagged.tag.name).items():
            if record.source != tagged.image.name:
                continue
            found = True
            directory = target.rootimgdir.with_name(name)
            try:
                yield _again(request, site, tagged, record, directory)
            except AvsError as err:
                yield Finding(FAIL, f"{directory} could not be packed again: {err.text}", err.tail)
    if not found:
        text = f"{tagged.image.name} tag {tagged.tag.name} is packed nowhere here, so there is nothing to compare with"
        yield Finding(WARN, text, fix=f"avsimage -c pack {tagged.image.name} -t {tagged.tag.name}")


def _again(request: Request, site: Site, tagged: Tagged, record: PackedSet, directory: Path) -> Finding:
    target = site.resolve(record.osimage, request)
    job = _same_job(request, site, target, record)
    if job is None:
        text = f"{directory} cannot be packed again as it was: the definition, the exlist or [pack] are others than when it was packed"
        return Finding(WARN, text)
    if record.version not in ("", tagged.version):
        return Finding(FAIL, f"{directory} was packed from another tag {record.tag} than the store has now")
    staging = site.private(site.settings.state / "staging")
    _refuse_full(staging, record)
    with site.lock(target, "pack"), site.checkout(tagged.image) as checkout, own_directory(staging, PREFIX) as new:
        made = Packing(job, tagged, checkout, Gate(job, tagged.image, site.declared_secrets)).pack(new)
        site.progress.begin(f"comparing it with {directory}")
        try:
            return _compared(job, record, made, directory, new)
        finally:
            site.progress.end()


def _same_job(request: Request, site: Site, image: OsImage, record: PackedSet) -> Optional[PackJob]:
    """The job that a set was packed by; None where what it depends on is not the same any more."""
    job = prepare(request, site, image)
    log = site.settings.logs / image.name / "reproduce.log"
    job = replace(job, log=log, runner=site.runner(log))
    # What the command line of that pack asked for is known by the hash alone.
    asked = [(job.method, job.compress), *product(METHODS, COMPRESSIONS)]
    jobs = (replace(job, method=method, compress=compress) for method, compress in asked)
    return next((found for found in jobs if found.inputs == record.inputs), None)


def _refuse_full(directory: Path, record: PackedSet) -> None:
    """Raise AvsError where the set will not fit."""
    needed = sum(size for facts in record.files.values() for size in [facts["size"]] if isinstance(size, int))
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise AvsError(
            f"that takes {short_size(needed)} in {directory}, and {short_size(free)} are free; nothing was packed"
        )


def _compared(job: PackJob, record: PackedSet, made: PackedSet, old: Path, new: Path) -> Finding:
    names = sorted(record.files.keys() | made.files.keys())
    others = [name for name in names if record.files.get(name) != made.files.get(name)]
    if not others:
        changed = contents.changes(old, record.files, sums=True)
        if changed:
            text = f"{old}: packed again, all {len(names)} files come out as they did, and what lies there was changed since; pack it with --force"
            return Finding(FAIL, text, tuple(changed))
        return Finding(OK, f"{old}: packed again, all {len(names)} files come out the same, to the byte")
    lines = [line for name in others for line in _difference(job, name, (record, made), (old, new))]
    programs = [f"{name}: {_by(record.programs, name)} then, {_by(made.programs, name)} now"
                for name in sorted(record.programs.keys() | made.programs.keys())
                if record.programs.get(name) != made.programs.get(name)]  # fmt: skip
    text = f"{old}: packed again, {len(others)} of {len(names)} files come out as others"
    if job.packer == "packimage":
        unknown = [line for line in lines if "packimage" not in line]
        return Finding(FAIL if unknown else WARN, f"{text}, as packimage never makes the same twice", tuple(lines))
    if programs:
        return Finding(WARN, f"{text}, by other programs", (*programs, *lines))
    return Finding(FAIL, text, tuple(lines))


def _by(programs: Mapping[str, str], name: str) -> str:
    return programs.get(name) or "not used"


def _difference(
    job: PackJob, name: str, records: tuple[PackedSet, PackedSet], places: tuple[Path, Path]
) -> Iterator[str]:
    """What is different in one file of a set, a line each."""
    record, made = records
    if name not in made.files or name not in record.files:
        yield f"{name}: {'comes' if name in made.files else 'does not come'} out now"
        return
    archive = name == record.archive or name.endswith(addon_archives.SUFFIX)
    if not archive:
        yield f"{name}: other bytes"
        return
    form = Form.of(name) if name == record.archive else addon_archives.FORM
    before, after = (members.read(place / name, form, job.runner) for place in places)
    lines = manifest.compare(before, after, times=True)
    reasons = {**record.by_design, **made.by_design}
    for line in lines:
        why = _reason(line, reasons)
        yield f"{name}: {line}" + (f" (by packimage: {why})" if why else "")
    if not lines:
        what = "packimage keeps no order" if job.packer == "packimage" else "in another order, or packed otherwise"
        yield f"{name}: holds just the same ({what})"


def _reason(line: str, reasons: Mapping[str, str]) -> str:
    """Why packimage makes a difference, "" where it is none of its own."""
    path, _, fields = line.lstrip("+-").partition(": ")
    for top, reason in reasons.items():
        if path == top or path.startswith(f"{top}/"):
            return reason
    wrote = fields == "mtime" and any((os.path.dirname(top) or ".") == path for top in reasons)
    return "it wrote into that directory" if wrote else ""
