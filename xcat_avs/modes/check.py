"""check: whether all is there that the other modes need, and what to do where it is not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Callable, Optional

from xcat_avs import __version__
from xcat_avs.build import checks as builds
from xcat_avs.build.job import BuildJob
from xcat_avs.clock import parse_utc
from xcat_avs.definitions import checks as definitions
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Node
from xcat_avs.errors import AvsError, counted
from xcat_avs.modes import CHECK, Mode
from xcat_avs.pack.job import packer_of, tools
from xcat_avs.recipes import origins
from xcat_avs.report import Report, as_lines
from xcat_avs.request import Request
from xcat_avs.serve import nodes
from xcat_avs.site import OWN_CHECKOUT, Site, lending
from xcat_avs.site.opening import DIRECTORIES
from xcat_avs.store import checks as stores
from xcat_avs.system import checks as machine
from xcat_avs.system import command
from xcat_avs.system.findings import FAIL, OK, WARN, Finding, tried
from xcat_avs.xcat import checks as xcat

Look = Callable[[], Iterable[Finding]]


def run(request: Request, site: Site) -> Report:
    image, problem = _image(request, site)
    table = cache(site.definitions.nodes)  # asking for thousands takes seconds
    looks: dict[str, list[Look]] = {
        "machine": [machine.rights, machine.python, lambda: _programs(site, image)],
        "settings": [lambda: _settings(site, image)],
        "paths": [lambda: _paths(site)],
        "definitions": [lambda: _source(site, table), lambda: problem],
        "xCAT": [xcat.installed, lambda: definitions.service_nodes(table)] if site.definitions.xcat else [],
        "image": _of_image(site, image, table) if image else [],
        "store": [lambda: _store(site, image)],
        "space": [lambda: _space(site, image)],
        "left-overs": [lambda: _left(site), lambda: builds.kept(_images(site), site.settings, site.all_running())],
        "clock": [lambda: machine.clock(_latest(site))],
    }
    found = _once((area, finding) for area, each in looks.items() for look in each for finding in tried(area, look))
    counts = {result: sum(finding.result == result for _, finding in found) for result in (FAIL, WARN, OK)}
    said = f"avsimage {__version__}: {counted(counts[FAIL], 'failure')}, {counted(counts[WARN], 'warning')}, {counts[OK]} OK"
    lines = [line for _, finding in found for line in finding.lines(len(finding.details))]
    document = {
        "osimage": image.name if image else "", "avsimage": __version__, "well": not counts[FAIL],
        "findings": [{"area": area, **asdict(finding)} for area, finding in found],
    }  # fmt: skip
    return Report([as_lines(lines), as_lines([said])], document, 1 if counts[FAIL] else 0)


def _once(found: Iterable[tuple[str, Finding]]) -> list[tuple[str, Finding]]:
    """Without those that failed for a reason that an earlier one has given."""
    said = dict[tuple[str, str], tuple[str, Finding]]()
    for number, (area, finding) in enumerate(found):
        key = ("", finding.text.removeprefix(f"{area}: ")) if finding.result == FAIL else (str(number), "")
        said.setdefault(key, (area, finding))
    return list(said.values())


def _image(request: Request, site: Site) -> tuple[Optional[OsImage], list[Finding]]:
    """The osimage that is asked for, or why there is none."""
    wanted = request.image or request.profile
    try:
        return (site.resolve(wanted, request) if wanted else None), []
    except AvsError as err:
        return None, [Finding(FAIL, err.text, err.tail, fix=err.next or "avsimage -c images")] if _images(site) else []


def _of_image(site: Site, image: OsImage, table: definitions.Nodes) -> list[Look]:
    """What is looked at of one osimage."""
    rootimgdir = site.target(image).rootimgdir
    fit: list[Look] = [lambda: xcat.fit(image, rootimgdir)] if site.definitions.xcat else []
    return [
        lambda: definitions.definition(image, site.definitions),
        lambda: definitions.files(image, site.definitions),
        lambda: builds.recipe(site.recipe(image)),
        *fit,
        lambda: _place(site, image),
        lambda: builds.kernel(image, lending.tree(site, image)),
        lambda: _served(site, image, table()),
    ]


def _programs(site: Site, image: Optional[OsImage]) -> Iterator[Finding]:
    """Those of the store and of packing, and those that build the image; without one, those that build any, as a warning."""
    needed: dict[str, Sequence[str]] = {"the store": site.store_programs()}
    with suppress(AvsError):
        packer = packer_of(site, site.settings.packer)
        needed["packing"] = tools(packer, site.settings.method, site.settings.compress)
    signing = {"gpg": site.settings.keyring, "ssh-keygen": site.settings.allowed_signers}
    needed["signed tags"] = [name for name, file in signing.items() if file]
    if image is not None:
        job = _job(site, image)
        yield from machine.programs({**needed, f"generator {job.generator.name}": job.generator.programs()})
        return
    yield from machine.programs(needed)
    with suppress(AvsError):
        yield from machine.programs(_generators(site), WARN)


def _job(site: Site, image: OsImage) -> BuildJob:
    return BuildJob.of(image, site.recipe(image), site.definitions, "", site.progress)


def _generators(site: Site) -> Mapping[str, Sequence[str]]:
    """The programs that build the osimages there are: of each osvers the first that can be built."""
    found: dict[str, Sequence[str]] = {}
    seen: set[str] = set()
    for image in site.definitions.osimages().values():
        if image.osvers not in seen and image.provmethod in ("netboot", ""):
            with suppress(AvsError):
                generator = _job(site, image.check()).generator
                found[f"generator {generator.name}"] = generator.programs()
                seen.add(image.osvers)
    return found


def _settings(site: Site, image: Optional[OsImage]) -> Iterator[Finding]:
    """What is wrong in the files, and what they say other than the default."""
    read = origins.read(site.definitions.installdir, image)
    for problem in read.problems:
        text, _, fix = problem.rpartition("; ")
        if fix.startswith(("chmod ", "chown ")):
            yield Finding(FAIL, text, fix=fix)
        else:
            yield Finding(FAIL, problem, fix="change it there; avs.conf(5) has the settings")
    changed = read.changed()
    lines = tuple(f"{name} = {value}   ({path})" for name, (value, path) in changed.items())
    yield Finding(
        OK, f"{counted(len(lines), 'setting')} other than the default, of {', '.join(map(str, read.files))}", lines
    )


def _paths(site: Site) -> Iterator[Finding]:
    settings, public = site.settings, (site.definitions.installdir, site.definitions.tftpdir)
    places = {"state": settings.state, "logs": settings.logs}
    store = site.local_store()
    yield from machine.own_places(places, DIRECTORIES, public)
    if store is not None:
        yield from machine.own_places({"store": store}, (), public)
    for what, path in zip(("INSTALLDIR", "TFTPDIR"), public):
        if site.definitions.xcat and not path.is_dir():
            yield Finding(FAIL, f"{what}: there is no directory {path}", fix=f"mkdir -p {path}")
        else:
            yield machine.trusted(what, path)
    if settings.definitions:
        yield machine.trusted("definitions", Path(settings.definitions))
    for name in filter(None, (settings.keyring, settings.allowed_signers)):
        if os.path.exists(name):
            yield machine.trusted("signers", Path(name))
        else:
            fix = "put their public keys there, or take it out of [sign] in avs.conf"
            yield Finding(FAIL, f"signers: there is no file {name}, so no signature is good", fix=fix)


def _source(site: Site, table: definitions.Nodes) -> Iterator[Finding]:
    file = site.settings.definitions
    for finding in tried("definitions", lambda: definitions.source(site.definitions, table)):
        unread = finding.result == FAIL and not finding.fix and file and not site.definitions.xcat
        fix = f"correct {file}, or name another file: [xcat] definitions in avs.conf"
        yield replace(finding, fix=fix) if unread else finding


def _images(site: Site) -> Mapping[str, OsImage]:
    """All osimages; none where they cannot be read, which is said where they are looked at."""
    try:
        return site.definitions.osimages()
    except AvsError:
        return {}


def _place(site: Site, image: OsImage) -> Iterator[Finding]:
    target = site.target(image)
    site.check_place(target)
    yield Finding(
        OK, f"rootimgdir {target.rootimgdir}" + ("" if target.rootimgdir.exists() else " (nothing is served yet)")
    )


def _served(site: Site, image: OsImage, table: Mapping[str, Node]) -> Iterator[Finding]:
    """Whether nodes boot what is served."""
    state = nodes.look(image, site.definitions.installdir, site.definitions.tftpdir, table)
    if state.nodeset_due:
        yield Finding(
            WARN, f"{image.name}: nodes boot another kernel than the one that is served", fix=" ".join(state.nodeset)
        )
    elif state.nodes:
        yield Finding(OK, f"{image.name}: {counted(len(state.nodes), 'node')}, no nodeset is due")


def _store(site: Site, image: Optional[OsImage]) -> Iterator[Finding]:
    store = site.store(recognize=False)
    evidence = ""
    with suppress(AvsError):
        evidence = site.evidence()
    yield from stores.usable(store, site.settings.store, site.local_store(), evidence)
    if command.find("svn") and store.identity():
        store.newest_tags([image] if image else [*_images(site).values()])  # it has to answer
    other = site.recognize(store)
    if other:
        yield Finding(FAIL, other)
    if site.local_store():  # one on a server is verified there
        yield from stores.verified(store, site.settings.state, image.name if image else "IMAGE")


def _space(site: Site, image: Optional[OsImage]) -> Iterator[Finding]:
    """A build and a checkout are as large as the image, and what is stored or served of it is compressed."""
    settings = site.settings
    images = [image] if image else _images(site).values()
    sizes = {each.name: builds.size(each, settings) for each in images}
    name = max(sizes, key=lambda each: sizes[each], default="")
    size = sizes.get(name, 0)
    store = site.local_store()
    needs = {"state": (settings.state, size), "INSTALLDIR": (site.definitions.installdir, size // 2)}
    needs.update({"logs": (settings.logs, 0), "temporary files": (Path(tempfile.gettempdir()), 0)})
    if store is not None:
        needs["the store"] = (store, size // 2)
    why = f"by the last build of {name}" if size else "without a build to go by"
    yield from machine.space(needs, why)


def _left(site: Site) -> Iterator[Finding]:
    state = site.settings.state
    checkouts = [(path, OWN_CHECKOUT) for path in sorted((state / "checkouts").glob("*"))]
    store = site.local_store()
    new = [(store.parent, f".{store.name}.new.")] if store is not None else []
    return machine.left_overs(
        state, [(state / "fsvs", ""), (state / "runs", ""), (state / "boots", "set."), *checkouts, *new]
    )


def _latest(site: Site) -> dict[str, float]:
    """When things have happened that cannot be of the future."""
    found = {"the program": Path(__file__).stat().st_mtime}
    with suppress(OSError, ValueError):
        dates = [entry.date for entry in site.journals()]
        found.update({"the last line of the journal": parse_utc(dates[-1]).timestamp()} if dates else {})
    return found


MODE = Mode(
    CHECK, run,
    image=False, as_it_is=True,
)  # fmt: skip
