"""Looks at where definitions come from, at one of them, and at the files that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Callable

from xcat_avs.definitions import exlist, includes, pkglist
from xcat_avs.definitions.osimage import DIRECTORY_ATTRIBUTES, OsImage, same_trunk
from xcat_avs.definitions.protocol import Definitions, Node, chdef
from xcat_avs.errors import AvsError, counted
from xcat_avs.system import checks
from xcat_avs.system.findings import FAIL, OK, WARN, Finding

Nodes = Callable[[], Mapping[str, Node]]  # asks for them
KINDS = {"pkglist": pkglist.KIND, "otherpkglist": pkglist.KIND, "exlist": exlist.KIND}


def source(definitions: Definitions, nodes: Nodes) -> Iterator[Finding]:
    """The source, and those of its osimages that cannot be used. With xCAT: daemon, certificate, policy and tables."""
    images = definitions.osimages()
    usable = [image for image in images.values() if image.provmethod in ("netboot", "statelite", "")]
    where = definitions.describe()
    if not usable:
        fix = "mkdef -t osimage" if definitions.xcat else ""
        yield Finding(FAIL, f"{where}: no osimage that is netboot, of {counted(len(images), 'definition')}", fix=fix)
        return
    said = f"{where}: {counted(len(images), 'osimage')}, {len(usable)} of them netboot"
    if definitions.xcat:
        said += f", {counted(len(nodes()), 'node')}; xcatd answers, and its policy lets this user read"
    yield Finding(OK, said)
    wrong = []
    for image in usable:
        try:
            image.check()
        except AvsError as err:
            wrong.append(err.text)
    if wrong:
        yield Finding(WARN, f"{counted(len(wrong), 'osimage')} can neither be built nor packed", tuple(wrong))


def service_nodes(nodes: Nodes) -> Iterator[Finding]:
    """Service nodes that hold copies of their own, which a pack does not reach."""
    behind: dict[tuple[str, tuple[str, ...]], int] = {}
    for node in nodes().values():
        for name in filter(None, node.service.split(",")):
            behind[name, node.copies] = behind.get((name, node.copies), 0) + 1
    for (name, copies), count in sorted(behind.items()):
        what = " and ".join(copies)
        yield Finding(
            OK,
            f"service node {name} has its own copy of {what}, for {counted(count, 'node')}: pack says what is to be run",
        )
    if not behind:
        yield Finding(OK, "no node boots from a service node with copies of its own (sharedtftp, installloc)")


def definition(image: OsImage, definitions: Definitions) -> Iterator[Finding]:
    """One osimage."""
    image.check()
    others = ", ".join(other.name for other in same_trunk(definitions.osimages(), image))
    if others:
        text = f"{image.name} would be stored in one trunk with {others}"
        yield Finding(FAIL, text, fix=chdef(definitions, image, "profile=NAME").strip("`"))
    version = image.version
    yield Finding(OK, f"{image.name} ({image.origin}): {version.family} {version.major}, {version.packages} packages")


def files(image: OsImage, definitions: Definitions) -> Iterator[Finding]:
    """Every file that a definition names, the lists with those that they include."""
    problems, found = list[tuple[str, str]](), dict[Path, str]()
    for attribute, kind in KINDS.items():
        sources = [includes.source(path, kind, includes.variables(image)) for path in image.paths(attribute)]
        lists, wrong = includes.files(sources, comments=kind == exlist.KIND)
        found.update(dict.fromkeys(lists, attribute))
        problems += [(attribute, problem) for problem in wrong]
    for attribute, value in sorted(image.attributes.items()):
        if attribute in KINDS or attribute in DIRECTORY_ATTRIBUTES:
            continue
        for path in [Path(item.split()[0]) for item in value.split(",") if item.strip().startswith("/")]:
            if path.is_file():
                found[path] = attribute
            else:
                problems.append((attribute, f"{attribute} names {path}, and there is no such file"))
    for attribute, problem in problems:
        change = chdef(definitions, image, f"{attribute}=FILE").strip("`")
        text, _, fix = problem.rpartition("; ")
        if fix.startswith(("chmod ", "chown ")):  # it is there, and others may write it
            yield Finding(FAIL, text, fix=fix)
        else:
            yield Finding(FAIL, problem, fix=f"put the file there, or name another: {change}")
    for path, attribute in found.items():
        yield checks.trusted(attribute, path)
    if not image.paths("pkglist"):
        yield Finding(WARN, f"{image.name} names no pkglist: only create --from can build it")
