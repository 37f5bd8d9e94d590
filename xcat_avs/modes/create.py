"""create: build an image by its procedures, report, commit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from xcat_avs import __version__, clock, report
from xcat_avs.build import building, info, logs, markers, steps, tables, writeback
from xcat_avs.build.building import BuildFailed, Built
from xcat_avs.build.job import BuildJob
from xcat_avs.definitions.osimage import OsImage, check_tag_name
from xcat_avs.errors import AvsError, Interrupted, UsageError
from xcat_avs.modes import Mode
from xcat_avs.pack.job import prepare, programs_of
from xcat_avs.pack.packing import Tagged
from xcat_avs.pack.serving import ServedError, publish_tag
from xcat_avs.pack.signed import make_signed, said_of
from xcat_avs.report import Report
from xcat_avs.request import OPTIONS, Request
from xcat_avs.site import Site
from xcat_avs.site.lending import take_back
from xcat_avs.store.protocol import Revision, Store
from xcat_avs.store.tags import default_name, new_tag
from xcat_avs.store.trees import commit_tree
from xcat_avs.system import command
from xcat_avs.tree import gate, kernels, secrets
from xcat_avs.tree.secrets import Finding
from xcat_avs.xcat import fitness, programs

CHDEF_TIMEOUT = 60.0  # seconds


class CreateFailed(AvsError):
    """A create failed. report: what was done before; its document says in `failed` what failed, and what to type then."""

    def __init__(self, text: str, err: AvsError, done: Report, **failure: str) -> None:
        super().__init__(text, err.tail, err.log)
        failed = {"step": "", "error": err.text, "log": err.log or "", **failure}
        self.report = replace(done, document={**done.document, "failed": failed})


@dataclass(frozen=True)
class Stored:
    """A build in the store. changed: False where that revision was there before. blocks: the report of the build."""

    image: OsImage
    revision: Revision
    changed: bool
    blocks: list[object]
    document: dict[str, Any]


def run(request: Request, site: Site) -> Report:
    image = _defined(request, site)
    recipe = site.recipe(image)
    site.refuse_writable(image, recipe.settings)
    if request.base:
        recipe = replace(recipe, addons=())
    job = BuildJob.of(image, recipe, site.definitions, request.source, site.progress)
    gate.check(recipe.secrets())
    job = replace(job, message=request.message or (markers.message(job.paths) if request.resume else ""))
    message = _message(site, job)
    target = _checked(request, site, job)
    with site.lock(image, "build"):
        # A store that cannot be used is known before the work, not after it.
        store = site.store_for_build(image, request.new_store)
        with _followed_by(f"`{_again(request)}` resumes the build"):
            if request.resume:
                take_back(site, image)
            stored = _build(request, site, job, store, message)
        logs.forget(job.paths)
    return _finish(request, site, target, store, stored)


@contextmanager
def _followed_by(what: str) -> Iterator[None]:
    """Say what to do after a signal in the block."""
    try:
        yield
    except Interrupted as err:
        err.following = what
        raise


def _defined(request: Request, site: Site) -> OsImage:
    """The osimage; with --define, what its name says is put into its definition first."""
    image = site.own_image(request)
    if not request.define:
        return image
    if not site.definitions.xcat:
        raise UsageError(f"--define changes the xCAT tables, which are not used here; edit {image.origin}")
    words = fitness.needed_chdef(image)
    if words:
        site.progress.say(" ".join(words))
        site.runner().within(CHDEF_TIMEOUT).capture([programs.need("chdef"), *words[1:]])
        site.definitions.reload()
        image = site.own_image(request)
    return image


def _message(site: Site, job: BuildJob) -> str:
    if not job.message and job.recipe.settings.require_message:
        raise UsageError("this site asks for a message with every build: say why with -m 'MESSAGE'")
    return job.message or f"{site.identity.user} built {job.image.name} on {clock.local(site.identity.started)}"


def _checked(request: Request, site: Site, job: BuildJob) -> OsImage:
    """What it is packed as, if it is; refuses before any work what would fail after it."""
    with_finish = {"-x": request.masquerade, "--method": request.method, "--compress": request.compress,
                   "--nodeset": request.nodeset, "--sign": request.sign}  # fmt: skip
    for flag, given in with_finish.items():
        if given and not request.finish:
            raise UsageError(f"{flag} says how -f packs the image; give -f as well, or pack a tag later with -c pack")
    target = site.resolve(request.masquerade, request) if request.masquerade else job.image
    needed = [*job.generator.programs(), *site.store_programs()]
    command.need(*needed, *(programs_of(request, site, target) if request.finish else ()))
    if request.finish:
        check_tag_name(default_name(job.image, site.identity))
        packing = prepare(request, site, target)  # only to refuse; what counts is read anew after the build
        if packing.signature_required and not site.signing(request).key:
            raise AvsError(f"{target.name} serves nothing but signed tags ([pack] require_signature), and -f would make one without; "
                           "give --sign, or set [sign] key")  # fmt: skip
        if packing.boot_required:
            raise AvsError(f"{target.name} serves nothing but tags that have booted ([pack] require_boot), and -f would serve one that has "
                           "not; leave -f away, then tag, boot and pack it")  # fmt: skip
    return target


def _build(request: Request, site: Site, job: BuildJob, store: Store, message: str) -> Stored:
    """Build, report and commit. Raises CreateFailed."""
    facts, again = _provenance(site, job, message), _again(request)
    try:
        built = building.build(job, site.definitions, request.resume)
    except BuildFailed as err:
        markers.note_again(job.paths, again)
        blocks = [tables.step_table(err.built.steps, job.image.version.packages)] if err.built.steps else []
        done = Report(blocks, {**facts, **err.built.document()})
        shell = f"avsimage -c shell {job.image.name}"
        text = f"{err.text}; nothing was committed. When that is fixed, `{again}` resumes the build; `{shell}` is a shell where it failed"
        raise CreateFailed(text, err, done, **err.failure, next=again, shell=shell) from None
    try:
        return _commit(site, job, built, store, facts)
    except AvsError as err:
        done = Report((), {**facts, **built.document()})
        raise CreateFailed(err.text, err, done, kind="commit", next=again) from None


def _commit(site: Site, job: BuildJob, built: Built, store: Store, facts: dict[str, Any]) -> Stored:
    """Put the report into the tree, and the tree into the store."""
    name, image, tree = built.image.name, built.image, job.paths.tree
    try:
        kernels.check_modules(tree)
    except AvsError as err:
        raise err.prefixed(f"{name}: ", "; nothing was committed") from None
    found = _secrets(site, job)
    changes = writeback.changes(job.image, image, site.progress)
    completed, message = clock.utc_now(), facts["message"]
    facts = {**facts, "completed": completed, "definition": image.origin}
    said = info.step_reports(job.paths, job.recipe)
    blocks = tables.report_blocks(built, completed, message, {**said, **_told(found)})
    problem = info.write_build_info(job, built, report.to_text(Report(blocks)), facts)
    if problem:
        site.progress.warn(f"{name}: {problem}; its packages are neither counted nor compared")
    log_message = f"{site.identity.user}; Image rebuild completed at {clock.ctime(completed)}\n{message}"
    with steps.showing(site.progress, "committing"):
        revision, changed = commit_tree(store, image, tree, site.identity.user, log_message, site.progress.warn)
    document = {
        **facts,
        **built.document(),
        "said": said,
        "definition_changes": changes,
        "secrets": gate.document(found),
    }
    return Stored(image, revision, changed, blocks=blocks, document=document)


def _secrets(site: Site, job: BuildJob) -> list[Finding]:
    """The secrets in what was built, judged; a warning for each kind that is not allowed, or an error where the site wants that."""
    name = job.image.name
    with steps.showing(site.progress, "looking for secrets"):
        found = gate.judge(secrets.find_in_version(job.paths.tree, (site.identity.host,)), job.recipe.secrets())
    if job.recipe.settings.refuse_stored_secrets and gate.refused(found):
        raise gate.refusal(found, f"{name}: the image", "nothing was committed")
    for text in gate.warnings(found):
        site.progress.warn(f"{name}: {text}")
    return found


def _told(found: Sequence[Finding]) -> dict[str, list[str]]:
    return {"Secrets in the image": gate.lines(found)} if found else {}


def _again(request: Request) -> str:
    """The command line that goes on with a build."""
    words = ["avsimage", "-c", "create", *([request.image] if request.image else ["-p", request.profile])]
    for name, option in OPTIONS.items():
        value = getattr(request, name)
        if value and name != "resume" and ("create" in option.modes or name in ("osvers", "osarch", "store")):
            words += [option.flags[0], value] if option.value else [option.flags[0]]
    return shlex.join([*words, "-b"])


def _provenance(site: Site, job: BuildJob, message: str) -> dict[str, Any]:
    return {**site.identity.facts(), "osimage": job.image.name, "message": message, "avsimage": __version__,
            "definition": job.image.origin, "definitions": site.definitions.describe(), "generator": job.generator.name}  # fmt: skip


def _finish(request: Request, site: Site, target: OsImage, store: Store, stored: Stored) -> Report:
    """Say what was stored; with -f tag and pack it."""
    image, revision, url = stored.image, stored.revision, store.url(stored.image)
    lines = [
        f"Definition: {image.name} in {site.definitions.describe()}, built by {stored.document['generator']}",
        f"Stored as revision {revision.number} of {url}/trunk"
        if stored.changed
        else f"Nothing changed since revision {revision.number} of {url}/trunk: no new revision",
    ]
    lines += [f"The definition was changed by the build: {change}" for change in stored.document["definition_changes"]]
    document = {**stored.document, "profile": image.profile, "revision": revision.number, "changed": stored.changed, "url": url}  # fmt: skip
    if not request.finish:
        lines.append(f"Next: avsimage -c tag {request.image or image.name}")
        return Report([*stored.blocks, report.as_lines(lines)], document)
    store_words = ["-s", request.store] if request.store else []
    try:
        new = new_tag(default_name(image, site.identity), revision, site.identity, "")
        tag, signed = make_signed(request, site, store, image, new)
    except AvsError as err:
        todo = shlex.join(["avsimage", "-c", "tag", image.name, "-r", str(revision.number), *store_words])
        done = Report([*stored.blocks, report.as_lines(lines)], document)
        text = f"{err.text}; the image is stored: tag it with `{todo}`"
        raise CreateFailed(text, err, done, kind="tag", next=todo) from None
    document["tag"] = tag.name
    lines += [f"Tagged {tag.name}", *said_of(signed)]
    return _packed(
        request, site, Tagged(store, image, tag), target, Report([*stored.blocks, report.as_lines(lines)], document)
    )


def _packed(request: Request, site: Site, tagged: Tagged, target: OsImage, done: Report) -> Report:
    """Pack the tag that -f has made. done: what was done before. Raises CreateFailed."""
    image, tag = tagged.image, tagged.tag
    store_words = ["-s", request.store] if request.store else []
    todo = shlex.join(["avsimage", "-c", "pack", image.name, "-t", tag.name, *store_words])
    stored_words = f"the image is stored and tagged: pack it with `{todo}`"
    try:
        with _followed_by(stored_words):
            packed = publish_tag(request, site, tagged, target)
    except ServedError as err:
        done = Report([*done.blocks, *err.report.blocks], {**done.document, "packed": err.report.document})
        raise CreateFailed(err.text, err, done, kind="pack", next=err.next) from None
    except AvsError as err:
        raise CreateFailed(f"{err.text}; {stored_words}", err, done, kind="pack", next=todo) from None
    *blocks, last = done.blocks  # what is said of the pack goes on with what is said of the tag
    lines = [line for block in (last, *packed.blocks) for line in str(block).split("\n")]
    return Report([*blocks, report.as_lines(lines)], {**done.document, "packed": packed.document}, packed.code)


MODE = Mode(
    "create", run,
    {
        "message": "why it is built, for the history", "user": "who builds it (default: who is logged in)",
        "masquerade": "with -f: pack it as another osimage", "method": "with -f: cpio, tar or squashfs",
        "compress": "with -f: gzip, pigz, zstd or xz", "nodeset": "with -f: run the nodeset that is due",
    },
    private=True,
)  # fmt: skip
