"""create: build an image by its procedures, report, commit."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Optional

from xcat_avs import __version__, clock, generate, report, settings
from xcat_avs.build import addons, info, plan, steps, tables
from xcat_avs.build.addons import AddonResult
from xcat_avs.build.context import BuildContext, BuildPaths
from xcat_avs.build.plan import StepResult
from xcat_avs.definitions.osimage import OsImage, check_tag_name
from xcat_avs.errors import AvsError, Interrupted, UsageError
from xcat_avs.generate import Generator, Wishes, genimage
from xcat_avs.generate.existing import _Copy
from xcat_avs.generate.genimage import Genimage
from xcat_avs.modes import Mode
from xcat_avs.pack.job import check_tools, publish_tag
from xcat_avs.recipes.procedure import Procedure
from xcat_avs.recipes.recipe import Recipe, Step
from xcat_avs.report import Report
from xcat_avs.request import Request
from xcat_avs.settings import Settings, share_dir
from xcat_avs.site import Site
from xcat_avs.store.protocol import Revision, Store
from xcat_avs.store.tags import default_name, make_tag
from xcat_avs.store.trees import commit_tree
from xcat_avs.system import command
from xcat_avs.tree import kernels
from xcat_avs.xcat import fitness, programs

STORE_PROGRAMS = ("fsvs", "svn", "svnmucc")
CHDEF_TIMEOUT = 60.0  # seconds
# Seconds for reading the definition again: at the end of a build, and of one that was interrupted.
READ_BACK, READ_BACK_INTERRUPTED = 20.0, 5.0
OPTIONS = frozenset({"kernelver", "netdrivers", "nodebootif"})  # what settings have genimage write


class CreateFailed(AvsError):
    """A step failed; report: what was done before it."""

    report: Report = Report()


def run(request: Request, site: Site) -> Report:
    image = _defined(request, site)
    recipe = site.recipe(image)
    settings.refuse_writable(image, recipe.settings)
    if request.base:
        recipe = replace(recipe, addons=())
    source = _source(request, site)
    generator = _generator(source, site, image, recipe.settings)
    message = _message(request, site, image, recipe.settings)
    for flag, given in (
        ("-x", request.masquerade),
        ("--method", request.method),
        ("--compress", request.compress),
        ("--nodeset", request.nodeset),
    ):
        if given and not request.finish:
            raise UsageError(f"{flag} says how -f packs the image; give -f as well, or pack a tag later with -c pack")
    target = site.resolve(request.masquerade, request) if request.masquerade else image
    for program in (*generator.programs(), *STORE_PROGRAMS):
        command.need(program)
    if request.finish:
        check_tag_name(default_name(image, site))
        check_tools(request, site, target)
    paths = BuildPaths(
        site.settings.state / "builds" / image.name / "tree",
        site.settings.state / "builds" / image.name / "results",
        site.settings.logs / image.name,
    )
    with ExitStack() as stack:
        stack.enter_context(site.lock(image, "build"))
        # A store that cannot be used is known before the work, not after it.
        store = site.store_for_build(image, request.new_store)
        results, added, after = _build(image, recipe, generator, source, paths, request, site)
        try:
            kernels.check_modules(paths.tree)
        except AvsError as err:
            raise err.prefixed(f"{image.name}: ", "; nothing was committed") from None
        changes = _changes(image, after, site)
        image = after
        completed = clock.utc_now()
        said = info.step_reports(paths, recipe)
        text = _report_blocks(image, completed, message, results, added, said)
        provenance = _provenance(image, site, generator, completed, message)
        problem = info.write_build_info(paths, image, recipe, results, added, report.to_text(Report(text)), provenance)
        if problem:
            site.progress.warn(f"{image.name}: {problem}; its packages are neither counted nor compared")
        site.progress.begin("committing")
        try:
            log_message = f"{site.identity.user}; Image rebuild completed at {clock.ctime(completed)}\n{message}"
            revision, changed = commit_tree(
                store, image, paths.tree, site.identity.user, log_message, site.progress.warn
            )
        finally:
            site.progress.end()
    document = {**provenance, "steps": [asdict(item) for item in results], "addons": [asdict(item) for item in added],
                "said": said, "definition_changes": changes}  # fmt: skip
    return _finish(request, site, image, target, store, (revision, changed), text, document)


def _defined(request: Request, site: Site) -> OsImage:
    """The osimage; with --define, what its name says is put into its definition first."""
    image = site.own_image(request)
    if not request.define:
        return image
    if not site.definitions.xcat:
        raise UsageError(f"--define changes the xCAT tables, which are not used here; edit {image.origin}")
    words = fitness.mending(image)
    if words:
        site.progress.say(" ".join(words))
        command.capture([programs.need("chdef"), *words[1:]], timeout=CHDEF_TIMEOUT)
        site.definitions.reload()
        image = site.own_image(request)
    return image


def _generator(source: Optional[Path], site: Site, image: OsImage, settings: Settings) -> Generator:
    """What fills the root; with xCAT its genimage, unless a setting or --from says otherwise."""
    if source is not None:
        return _Copy(source, _wishes(image, settings))
    if settings.generator not in ("auto", "genimage") or not (
        site.definitions.xcat or settings.generator == "genimage"
    ):
        return generate.choose(image, settings.generator, _wishes(image, settings))
    if not site.definitions.xcat:
        raise AvsError(f"{image.name}: [image] generator = genimage needs xCAT, which is not used here")
    fitness.refuse_incomplete(image, image.rootimgdir(site.definitions.installdir), build=True)
    fitness.refuse_unsafe(image)
    minimal = ""
    if settings.pkglist == "minimal":
        minimal = str(share_dir() / "minimal" / f"{image.version.chain[0]}.pkglist")
        if not Path(minimal).is_file():
            raise AvsError(f"{image.name}: [image] pkglist = minimal, and there is no {minimal}")
    installdir, tftpdir = site.definitions.installdir, site.definitions.tftpdir
    modules = settings.net_modules + settings.storage_modules + settings.filesystem_modules
    kernel = settings.kernel and settings.kernel + settings.kernel_suffix
    return Genimage(
        image.rootimgdir(installdir),
        tftpdir,
        minimal,
        settings.provider,
        genimage.options(modules, settings.interface, kernel, settings.root_size),
        _wishes(image, settings),
    )


def _wishes(image: OsImage, settings: Settings) -> Wishes:
    """What the settings say of all packages."""
    version = image.version
    base = settings.rinse_packages or str(share_dir() / "rinse" / f"{version.family}{version.major}.packages")
    return Wishes(settings.install_docs, settings.install_locales, settings.package_manager_args, Path(base))


def _written_back(image: OsImage, site: Site, interrupted: bool) -> OsImage:
    """The definition as genimage left it; where xCAT does not tell, as it was read at the start.

    interrupted: nobody is kept waiting for xcatd, which may hang.
    """
    problem = ""
    # xcatd may have gone away meanwhile; its tables have not.
    for bypass in (True,) if interrupted else (False, True):
        try:
            site.definitions.reload(READ_BACK_INTERRUPTED if interrupted else READ_BACK, bypass)
            break
        except AvsError as err:
            problem = problem or err.text
    else:
        site.progress.warn(
            f"{image.name}: its definition cannot be read again, what was read at the start counts: {problem}"
        )
        return image
    if problem:
        site.progress.warn(f"{image.name}: its definition was read without xcatd: {problem}")
    return site.definitions.osimages().get(image.name, image)


def _changes(image: OsImage, after: OsImage, site: Site) -> list[str]:
    """What a build changed in its definition; a warning where a value that stood there is another one now."""
    old, new = image.attributes, after.attributes
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    for key in changed:
        if old.get(key) and key not in OPTIONS:
            site.progress.warn(
                f"{image.name}: {key} was {old[key]!r} when the build began, and is {new.get(key, '')!r} now: genimage writes back what "
                f"it has read, also over what chdef has set meanwhile; set what is meant with `chdef -t osimage {image.name} {key}=VALUE`"
            )
    return [f"{key}: {old.get(key, '')!r} -> {new.get(key, '')!r}" for key in changed]


def _source(request: Request, site: Site) -> Optional[Path]:
    if not request.source:
        return None
    source = Path(request.source).absolute()
    if not (source / "rootimg").is_dir():
        raise AvsError(
            f"--from {request.source}: there is no directory {source / 'rootimg'}; it must be laid out like a rootimgdir"
        )
    builds = site.settings.state / "builds"
    if os.path.commonpath([os.path.realpath(source), os.path.realpath(builds)]) in (
        os.path.realpath(source),
        os.path.realpath(builds),
    ):
        raise AvsError(
            f"--from {request.source} lies in, or around, {builds}, which the build empties; copy it elsewhere first"
        )
    return source


def _message(request: Request, site: Site, image: OsImage, settings: Settings) -> str:
    if not request.message and settings.require_message:
        raise UsageError("this site asks for a message with every build: say why with -m 'MESSAGE'")
    return request.message or f"{site.identity.user} built {image.name} on {clock.local(site.identity.started)}"


def _build(image: OsImage, recipe: Recipe, generator: Generator, source: Optional[Path], paths: BuildPaths, request: Request,
           site: Site) -> tuple[list[StepResult], list[AddonResult], OsImage]:  # fmt: skip
    """The results of the steps and of the add-ons, and the definition as the build left it."""

    def context(step: Step, log: Path, where: BuildPaths = paths) -> BuildContext:
        procedure: Procedure = step.procedure
        return BuildContext(
            image,
            recipe,
            step.options,
            site.definitions.installdir,
            where,
            log,
            generator,
            source,
            site.progress,
            procedure,
        )

    installdir = site.definitions.installdir
    seed = plan.build_seed(image, generator, source, installdir)
    if request.resume:
        seed = plan.earlier_seed(paths, seed)

    def remember(interrupted: bool) -> OsImage:
        # What the build itself changed in the definition is no reason to begin again.
        after = _written_back(image, site, interrupted)
        with contextlib.suppress(OSError):  # a file that it names is gone: the next run says so
            plan.remember_seed(paths, seed, plan.build_seed(after, generator, source, installdir))
        return after

    try:
        try:
            results = steps.run_steps(context, recipe, paths, seed, request.resume, site.progress)
            added = addons.run_addons(context, recipe, paths, results, request.resume, site.progress)
        except BaseException as err:
            # The first error is the one to be told, whatever comes while this is noted.
            with contextlib.suppress(AvsError, OSError, Interrupted):
                remember(isinstance(err, Interrupted))
            raise
        return results, added, remember(interrupted=False)
    except steps.StepFailed as err:
        failed = CreateFailed(
            f"{image.name}: {err.text}", err.tail, err.log,
        )  # fmt: skip
        failed.text += f"; nothing was committed. When that is fixed, `{_again(request)}` goes on from there"
        if err.results:
            failed.report = Report(
                [tables.step_table(err.results, image.version.packages)],
                {"steps": [asdict(item) for item in err.results]},
            )
        raise failed from None


def _again(request: Request) -> str:
    """The command line that goes on with a build."""
    words = ["avsimage", "-c", "create", *([request.image] if request.image else ["-p", request.profile])]
    options = {"-o": request.osvers, "-a": request.osarch, "-s": request.store, "--from": request.source, "-m": request.message,
               "-u": request.user, "-x": request.masquerade, "--method": request.method, "--compress": request.compress}  # fmt: skip
    for flag, value in options.items():
        words += [flag, value] if value else []
    flags = {
        "--new-store": request.new_store,
        "-f": request.finish,
        "--nodeset": request.nodeset,
        "--define": request.define,
        "-n": request.base,
    }
    return shlex.join([*words, *(flag for flag, given in flags.items() if given), "-b"])


def _provenance(image: OsImage, site: Site, generator: Generator, completed: str, message: str) -> dict[str, Any]:
    identity = site.identity
    return {
        "osimage": image.name, "completed": completed, "message": message, "user": identity.user, "uid": identity.uid,
        "login": identity.login, "sudo_user": identity.sudo_user, "host": identity.host, "avsimage": __version__,
        "definition": image.origin, "definitions": site.definitions.describe(), "generator": generator.name,
    }  # fmt: skip


def _report_blocks(
    image: OsImage,
    completed: str,
    message: str,
    results: list[StepResult],
    added: list[AddonResult],
    said: Mapping[str, Sequence[str]],
) -> list[object]:
    return [
        f"Image rebuild completed at {clock.ctime(completed)}",
        message,
        tables.step_table(results, image.version.packages),
        *([tables.addon_table(added, image.version.packages)] if added else []),
        *(report.as_lines([f"{name}:", *(f"  {line}" for line in lines)]) for name, lines in said.items()),
        f"Image {image.profile} created",
    ]


def _finish(request: Request, site: Site, image: OsImage, target: OsImage, store: Store, stored: tuple[Revision, bool],
            blocks: list[object], document: dict[str, Any]) -> Report:  # fmt: skip
    """Say what was stored; with -f tag and pack it."""
    revision, changed = stored
    url = store.url(image)
    lines = [
        f"Definition: {image.name} in {site.definitions.describe()}, built by {document['generator']}",
        f"Stored as revision {revision.number} of {url}/trunk"
        if changed
        else f"Nothing changed since revision {revision.number} of {url}/trunk: no new revision",
    ]
    lines += [f"The definition was changed by the build: {change}" for change in document["definition_changes"]]
    document = {**document, "profile": image.profile, "revision": revision.number, "changed": changed, "url": url}
    code = 0
    if request.finish:
        tag = make_tag(store, image, default_name(image, site), revision, site, "")
        document["tag"] = tag.name
        lines.append(f"Tagged {tag.name}")
        try:
            packed, document["packed"], code = publish_tag(request, site, store, image, tag, target)
        except AvsError as err:
            failed = CreateFailed(
                f"{err.text}; the image is stored and tagged: pack it with -c pack -t {tag.name}", err.tail, err.log
            )
            failed.report = Report([*blocks, report.as_lines(lines)], document)
            raise failed from None
        lines += [line for block in packed for line in str(block).split("\n")]
    else:
        lines.append(f"Next: avsimage -c tag {request.image or image.name}")
    return Report([*blocks, report.as_lines(lines)], document, code)


MODE = Mode(
    "create", "build an image by its procedures, report, commit", run,
    {
        "message": "why it is built, for the history", "user": "who builds it (default: who is logged in)",
        "resume": "go on with a build that failed: repeat only what is not done, or changed",
        "source": "take an existing tree, laid out like a rootimgdir, instead of installing packages",
        "base": "base image only (no add-ons)", "finish": "tag and pack it when done", "masquerade": "with -f: pack it as another osimage",
        "method": "with -f: cpio, tar or squashfs", "compress": "with -f: gzip, pigz, zstd or xz",
        "nodeset": "with -f: run the nodeset that is due", "define": "put into the xCAT definition what its name says, where that is missing",
        "new_store": "begin a new store, or take another one, where there was one before",
    },
    private=True,
)  # fmt: skip
