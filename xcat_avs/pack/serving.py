"""A tag packed and served, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError
from xcat_avs.pack import addon_archives, forms
from xcat_avs.pack.job import PackJob, prepare
from xcat_avs.pack.packing import Tagged, alone
from xcat_avs.pack.proven import refuse_unbooted
from xcat_avs.pack.signed import refuse_unsigned, said_of
from xcat_avs.report import Report, as_lines, short_size
from xcat_avs.request import Request
from xcat_avs.serve import journal, nodeset, publish, sets
from xcat_avs.serve.journal import Change
from xcat_avs.serve.sets import PackedSet
from xcat_avs.site import Site
from xcat_avs.store.tags import parted
from xcat_avs.tree.gate import document as secret_document
from xcat_avs.tree.gate import lines as secret_words
from xcat_avs.tree.secrets import Finding


class ServedError(AvsError):
    """Something failed after the switch; report: what is served all the same."""

    report: Report = Report()


@dataclass(frozen=True)
class Result:
    """What a pack or a rollback did. changed: whether another set is served than before. problem: what failed since, or ""."""

    image: OsImage
    lines: Sequence[str]
    document: Mapping[str, Any]
    changed: bool = True
    problem: str = ""


def conclude(request: Request, site: Site, result: Result) -> Report:
    """The report of a pack or a rollback, with what the nodes will boot now; with --nodeset it is run.

    Raises ServedError where something failed since the switch, or does here: what is served has to be told first.
    """
    outcome, failures = nodeset.Outcome(), [AvsError(result.problem)] if result.problem else []
    try:
        outcome = nodeset.after_publish(result.image, site.definitions, site.runner(), request.nodeset, result.changed)
    except AvsError as err:
        failures.append(err)
    document = {**result.document, "changed": result.changed, **outcome.document}
    report = Report([as_lines([*result.lines, *outcome.lines])], document, outcome.code)
    if not failures:
        return report
    failed = ServedError("; ".join(err.text for err in failures), failures[-1].tail, failures[-1].log)
    failed.report = report
    raise failed from None


def publish_tag(request: Request, site: Site, tagged: Tagged, target: OsImage) -> Report:
    """Pack a tag and serve it as target. Raises ServedError where it is served, and something failed since."""
    return serve(request, site, prepare(request, site, target), tagged)


def serve(request: Request, site: Site, job: PackJob, tagged: Tagged) -> Report:
    """Pack a tag as a job says, and serve it; nothing is done where just that is served already."""
    target, source, tag = job.target, tagged.image, tagged.tag
    said = f"{target.image.name} tag {tag.name} is published"
    signed = refuse_unsigned(site, job, tagged)
    refuse_unbooted(site, job, tagged)
    with alone(site, job, tagged) as packing:
        gate = packing.gate
        publish.warn_altered(target, site.progress.warn)
        finished = publish.finish_interrupted(target.rootimgdir)
        site.check_place(target)  # again, for a build may have come between
        served = None if request.force else packing.served_already()
        if served is not None:
            text = f"{target.image.name} serves tag {tag.name} of {source.name} already; nothing was done (--force packs it again)"
            return conclude(request, site, Result(target.image, [text], asdict(served), changed=False))
        before = sets.current(target.rootimgdir) or ""
        with publish.new_set(target.rootimgdir) as new:
            record = packing.pack(new)
            refuse_unbooted(site, job, tagged, record.archive)
            reserved = frozenset(other.rootimgdir for other in site.targets())
            name, moved = publish.publish(new, target.rootimgdir, record, reserved, site.progress.warn)
        moved = moved or finished
        with publish.served(site.progress.say, said):
            change = Change(target.image.name, "pack", name, moved or before, record=record)
            why = parted(tag.message)[1]
            problem = journal.record(site.journal_file(target.image), site.identity, change, why)
    lines = [*_packed_lines(record, moved, target.rootimgdir), *said_of(signed), *_secret_lines(gate.found)]
    if not job.xcat and "kernel" in record.files:  # else a warning has said that nodes cannot boot it
        lines.append(forms.how_to_boot(target.rootimgdir, record.archive))
    facts = {**asdict(record), "previous": sets.previous(target.rootimgdir), "secrets": secret_document(gate.found),
             "signature": asdict(signed)}  # fmt: skip
    with publish.served(site.progress.say, said):
        return conclude(request, site, Result(target.image, lines, facts, problem=problem))


def _secret_lines(found: Sequence[Finding]) -> list[str]:
    """What is told of the secrets that are served."""
    return ["Secrets in it:", *(f"  {line}" for line in secret_words(found))] if found else []


def _packed_lines(published: PackedSet, moved: str, rootimgdir: Path) -> Iterator[str]:
    """What was published, in words."""
    as_other = f" as {published.osimage}" if published.osimage != published.source else ""
    yield f"Packed {published.source} tag {published.tag}{as_other}"
    yield f"Serving {rootimgdir}/{published.archive} ({_size(published, published.archive)})"
    packed = [
        f"{name.split('/')[1].removesuffix(addon_archives.SUFFIX)} ({_size(published, name)})"
        for name in published.files
        if name.startswith(f"{addon_archives.DIRECTORY}/") and name.endswith(addon_archives.SUFFIX)
    ]
    if packed:
        yield f"Add-ons, for the postscript avsaddons: {', '.join(packed)}"
    if moved:
        yield f"The directory that was there is kept as {rootimgdir.with_name(moved)}"
    elif sets.previous(rootimgdir):
        yield f"Served before, and kept: {rootimgdir.parent / sets.previous(rootimgdir)}"


def _size(published: PackedSet, name: str) -> str:
    size = published.files[name]["size"]
    assert isinstance(size, int)
    return short_size(size)
