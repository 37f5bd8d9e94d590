"""copy: all revisions and tags of an image into another store."""

from __future__ import annotations

from collections.abc import Sequence

from xcat_avs.clock import local
from xcat_avs.definitions.osimage import OsImage, stored_images
from xcat_avs.errors import AvsError, Interrupted, NoStoreError, UsageError, counted
from xcat_avs.modes import Mode
from xcat_avs.report import LEFT, RIGHT, Report, Table, as_lines
from xcat_avs.request import Request
from xcat_avs.site import OWN_CHECKOUT, Site
from xcat_avs.store import engines, evidence
from xcat_avs.store.copying import Copying, Pair, Plan, plan
from xcat_avs.store.protocol import Store
from xcat_avs.store.tags import described
from xcat_avs.system.scratch import own_directory

AGAIN = "the same command goes on there"
CREATE = "create with --new-store"  # what errors of a store name for the one that is built into
SHOWN = 3  # names in a line


def run(request: Request, site: Site) -> Report:
    image, source = site.own_image(request), site.store()
    target = _target(request, site, source)
    if request.dry_run:
        todo = plan(source, target, image)
        return _report(request, site, (source, target), image, todo, [Pair(old, old) for old in todo.revisions])
    done: list[Pair] = []
    with site.lock(image, "copy"), own_directory(site.private(site.kept_checkout(image).parent), OWN_CHECKOUT) as work:
        todo = plan(source, target, image)
        _make(request, site, target, image)
        tell = site.progress.begin
        try:
            for pair in Copying(source, target, image, work, warn=site.progress.warn, tell=tell).copy(todo):
                done.append(pair)
        except Interrupted as err:
            err.following = AGAIN
            raise
        except AvsError as err:
            said = f"{len(done)} of {counted(len(todo.revisions), 'revision')} were copied, and stay; {AGAIN}"
            err.text = err.text.rstrip(":")  # the lines that it announces come after what is said here
            raise err.prefixed(f"{image.name}: ", f"; {said}") from None
        finally:
            site.progress.end()
    return _report(request, site, (source, target), image, todo, done)


def _target(request: Request, site: Site, source: Store) -> Store:
    """The store that is copied to. Raises AvsError where it is the one that is copied from, or not the one it was."""
    state = site.settings.state

    def signs() -> str:
        return f"{state / evidence.NOTE} names it" if request.to in evidence.noted(state) else ""

    target = engines.store(request.to, state, site.runner(), signs)
    if target.identity() and target.identity() == source.identity():
        raise UsageError(f"--to {request.to} is the store that is copied from: both have the UUID {target.identity()}")
    other = "" if request.new_store else evidence.recognize(state, request.to, target.identity())
    if other:
        raise AvsError(other.replace(CREATE, "--new-store"))
    return target


def _make(request: Request, site: Site, target: Store, image: OsImage) -> None:
    """Have the store, with a place for the image. Raises NoStoreError where there was one before, unless --new-store."""
    try:
        target.prepare(image, site.identity.user, request.new_store)
    except NoStoreError as err:
        raise NoStoreError(err.text.replace(CREATE, "give --new-store"), err.tail) from None
    evidence.note(site.private(site.settings.state), request.to, target.identity())


def _report(
    request: Request, site: Site, stores: tuple[Store, Store], image: OsImage, todo: Plan, done: Sequence[Pair]
) -> Report:
    source, target = stores
    known, tags = [*todo.pairs, *done], [tag.name for tag, _ in todo.tags]
    everything = f"{counted(len(known), 'revision')} and {counted(len(source.tags(image)) - len(todo.unfit), 'tag')}"
    what = f"{counted(len(done), 'revision')} and {counted(len(tags), 'tag')} of {image.name}"
    if not (done or tags):
        lines = [f"Nothing to copy: {target.url(image)} has all {everything} of {image.name}"]
    elif request.dry_run:
        lines = [f"Would copy {what} from {source.url(image)} to {target.url(image)}"]
    else:
        lines = [f"Copied {what} from {source.url(image)} to {target.url(image)}, each proven by its manifest"]
    lines += [f"There are {counted(todo.further, 'newer revision')} there"] if todo.further else []
    lines += [f"Tag {name} was not copied: {why}" for name, why in todo.unfit.items()]
    if not request.dry_run:
        lines.append(f"Next: {_next(request, site, stores, image)}")
    rows = [(str(pair.old.number), _number(pair), local(pair.old.date), pair.old.author,
             ", ".join(tag.name for tag, revision in todo.tags if revision == pair.old) or "-",
             described(pair.old)["message"]) for pair in done]  # fmt: skip
    table = Table(
        ("REVISION", "THERE", "DATE", "AUTHOR", "TAGS", "MESSAGE"), rows, [RIGHT, RIGHT, *[LEFT] * 4], sparse=True
    )
    document = {
        "osimage": image.name, "from": source.url(image), "to": target.url(image), "dry_run": request.dry_run,
        "revisions": [{"number": pair.old.number, "there": None if request.dry_run else pair.new.number} for pair in done],
        "tags": tags, "not_copied": dict(todo.unfit), "further": todo.further,
    }  # fmt: skip
    return Report([*([table] if rows else []), as_lines(lines)], document, 1 if todo.unfit else 0)


def _number(pair: Pair) -> str:
    return "-" if pair.new.number == pair.old.number else str(pair.new.number)


def _next(request: Request, site: Site, stores: tuple[Store, Store], image: OsImage) -> str:
    """What is to be done now: the other osimages, then the settings, then a look."""
    images = stored_images(list(site.definitions.osimages().values()))
    here, there = (store.summaries(images) for store in stores)
    left = [name for name, summary in sorted(here.items()) if summary.revision and not there[name].revision]
    if left:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        return f"avsimage -c copy {left[0]} --to {request.to}; not there yet: {', '.join(left[:SHOWN])}{more}"
    return f"set store = {request.to} below [paths] in avs.conf, and then avsimage -c verify {image.name}"


MODE = Mode(
    "copy", run,
    {"dry_run": "only say what would be copied"},
    needs=("to",), private=True,
)  # fmt: skip
