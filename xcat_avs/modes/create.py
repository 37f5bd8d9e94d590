"""create: build an image by its procedures, report, commit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from xcat_avs import __version__, build, command, generate, report
from xcat_avs.build import StepResult
from xcat_avs.config import Settings
from xcat_avs.context import BuildContext, BuildPaths
from xcat_avs.errors import AvsError, UsageError
from xcat_avs.generate import Generator, Job
from xcat_avs.image import OsImage
from xcat_avs.modes import Mode
from xcat_avs.modes.pack import packed_lines, publish_tag, wanted_form
from xcat_avs.modes.tag import default_name, make_tag
from xcat_avs.procedure import Procedure
from xcat_avs.recipe import Recipe, Step
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.site import Site
from xcat_avs.store import Revision, Store, commit_tree

STORE_PROGRAMS = ("fsvs", "svn", "svnmucc")


class CreateFailed(AvsError):
    """A step failed; report: what was done before it."""

    report: Report = Report()


def run(request: Request, site: Site) -> Report:
    image = site.image(request)
    recipe = site.recipe(image)
    generator = generate.choose(image, recipe.settings.generator) if not request.source else _Copy()
    source = _source(request)
    message = _message(request, site, image, recipe.settings)
    target = site.resolve(request.masquerade, request) if request.masquerade else image
    if request.masquerade and not request.finish:
        raise UsageError(
            "-x IMAGE says what -f packs the image as; give -f as well, or pack a tag later with -c pack -x"
        )
    for program in (*generator.programs(), *STORE_PROGRAMS):
        command.need(program)
    if request.finish:
        for program in wanted_form(request, site).programs():
            command.need(program)
    paths = BuildPaths(
        site.settings.state / "builds" / image.name / "tree",
        site.settings.state / "builds" / image.name / "results",
        site.settings.logs / image.name,
    )
    with ExitStack() as stack:
        stack.enter_context(site.lock(image, "build"))
        store = site.store()
        store.prepare(image, site.identity.user)  # a store that cannot be used is known before the work, not after it
        results = _build(image, recipe, generator, source, paths, request, site)
        completed = report.utc_now()
        text = _report_blocks(image, completed, message, results)
        provenance = _provenance(image, site, generator, completed, message)
        build.write_build_info(paths, image, recipe, results, report.to_text(Report(text)), provenance)
        site.progress.begin("committing")
        try:
            log_message = f"{site.identity.user}; Image rebuild completed at {report.ctime(completed)}\n{message}"
            revision, changed = commit_tree(
                store, image, paths.tree, site.identity.user, log_message, site.progress.warn
            )
        finally:
            site.progress.end()
    return _finish(request, site, image, target, store, revision, changed, text, provenance, results)


class _Copy:
    """Stands for the generator where --from brings the tree."""

    name = "copy of a directory"

    def programs(self) -> tuple[str, ...]:
        return ("cp",)

    def generate(self, job: Job) -> None:
        raise AssertionError("--from is copied, not generated")

    def install(self, job: Job, names: Sequence[str]) -> None:
        generate.choose(job.image, "auto").install(job, names)

    def remove(self, job: Job, names: Sequence[str]) -> None:
        generate.choose(job.image, "auto").remove(job, names)


def _source(request: Request) -> Optional[Path]:
    if not request.source:
        return None
    source = Path(request.source).absolute()
    if not (source / "rootimg").is_dir():
        raise AvsError(
            f"--from {request.source}: there is no directory {source / 'rootimg'}; it must be laid out like a rootimgdir"
        )
    return source


def _message(request: Request, site: Site, image: OsImage, settings: Settings) -> str:
    if not request.message and settings.require_message:
        raise UsageError("this site asks for a message with every build: say why with -m 'MESSAGE'")
    return request.message or f"{site.identity.user} built {image.name} on {report.local(site.identity.started)}"


def _build(image: OsImage, recipe: Recipe, generator: Generator, source: Optional[Path], paths: BuildPaths, request: Request,
           site: Site) -> list[StepResult]:  # fmt: skip
    def context(step: Step, log: Path) -> BuildContext:
        procedure: Procedure = step.procedure
        return BuildContext(
            image,
            recipe,
            step.options,
            site.definitions.installdir,
            paths,
            log,
            generator,
            source,
            site.progress,
            procedure,
        )

    seed = build.build_seed(image, generator, source)
    try:
        return build.run_steps(context, recipe, paths, seed, request.resume, site.progress)
    except build.StepFailed as err:
        failed = CreateFailed(
            f"{image.name}: {err.text}", err.tail, err.log,
        )  # fmt: skip
        failed.text += f"; nothing was committed. When it is mended, `{_again(request)}` goes on from there"
        if err.results:
            failed.report = Report(
                [report.step_table(err.results, image.version.packages)],
                {"steps": [asdict(item) for item in err.results]},
            )
        raise failed from None


def _again(request: Request) -> str:
    words = ["avsimage -c create", request.image or f"-p {request.profile}"]
    words += [
        f"{flag} {value}"
        for flag, value in (("-o", request.osvers), ("-a", request.osarch), ("--from", request.source))
        if value
    ]
    return " ".join([*words, "-b"])


def _provenance(image: OsImage, site: Site, generator: Generator, completed: str, message: str) -> dict[str, Any]:
    identity = site.identity
    return {
        "osimage": image.name, "completed": completed, "message": message, "user": identity.user, "uid": identity.uid,
        "login": identity.login, "sudo_user": identity.sudo_user, "host": identity.host, "avsimage": __version__,
        "definition": image.origin, "definitions": site.definitions.describe(), "generator": generator.name,
    }  # fmt: skip


def _report_blocks(image: OsImage, completed: str, message: str, results: list[StepResult]) -> list[object]:
    return [
        f"Image rebuild completed at {report.ctime(completed)}",
        message,
        report.step_table(results, image.version.packages),
        f"Image {image.profile} created",
    ]


def _finish(request: Request, site: Site, image: OsImage, target: OsImage, store: Store, revision: Revision, changed: bool,
            blocks: list[object], provenance: dict[str, Any], results: list[StepResult]) -> Report:  # fmt: skip
    """Say what was stored; with -f tag and pack it."""
    url = store.url(image)
    lines = [
        f"Definition: {image.origin} (without xCAT), built by {provenance['generator']}",
        f"Stored as revision {revision.number} of {url}/trunk"
        if changed
        else f"Nothing changed since revision {revision.number} of {url}/trunk: no new revision",
    ]
    document: dict[str, Any] = {
        **provenance, "profile": image.profile, "steps": [asdict(item) for item in results], "revision": revision.number,
        "changed": changed, "url": url,
    }  # fmt: skip
    if request.finish:
        tag = make_tag(store, image, default_name(image, site), revision, site, "")
        document["tag"] = tag.name
        lines.append(f"Tagged {tag.name}")
        published, moved = publish_tag(request, site, store, image, tag, target)
        document["packed"] = asdict(published)
        lines += packed_lines(published, moved, target.rootimgdir(site.definitions.installdir))
    else:
        lines.append(f"Next: avsimage -c tag {request.image or image.name}")
    return Report([*blocks, "\n".join(lines)], document)


MODE = Mode(
    "create", "build an image by its procedures, report, commit", run,
    {
        "message": "why it is built, for the history", "user": "who builds it (default: who is logged in)",
        "resume": "go on with a build that failed: repeat only what is not done, or changed",
        "source": "take an existing tree, laid out like a rootimgdir, instead of installing packages",
        "finish": "tag and pack it when done", "masquerade": "with -f: pack it as another osimage",
        "method": "with -f: cpio, tar or squashfs", "compress": "with -f: gzip, zstd or xz",
    },
    private=True,
)  # fmt: skip
