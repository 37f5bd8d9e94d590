"""One installation: its settings, its definitions, its store, and who is asking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage, resolve, same_trunk
from xcat_avs.definitions.protocol import Definitions, NamedDefinitions, chdef
from xcat_avs.definitions.stanza import StanzaDefinitions
from xcat_avs.definitions.tables import XcatDefinitions
from xcat_avs.errors import AvsError
from xcat_avs.identity import Identity
from xcat_avs.recipes import recipe
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.request import Request
from xcat_avs.serve import journal, place, sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.sets import Target
from xcat_avs.settings import Settings, load_settings, load_site_settings, overlay_settings, refuse_writable
from xcat_avs.store import engines, evidence
from xcat_avs.store.protocol import Store
from xcat_avs.system import locks, scratch, trust
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.xcat import private, programs

OWN_CHECKOUT = "own."  # how the directory of a checkout that is not kept begins
DIRECTORIES = ("builds", "staging", "checkouts", "locks", "journal", "fsvs")  # of the state


def _definitions(settings: Settings, nodes: bool, progress: Progress) -> Definitions:
    """The source of definitions. A broken or unusable xCAT is an error, never a silent fall-back.

    nodes: whether the nodes will be asked for as well.
    """
    if settings.xcat == "yes" or (settings.xcat == "auto" and programs.program("lsdef")):
        tables = ("osimage", "site", *(["node"] if nodes else []))
        return XcatDefinitions(
            programs.need("lsdef"), settings.installdir, settings.tftpdir, tables, runner=Runner(progress=progress)
        )
    if not settings.definitions:
        raise AvsError(
            "no osimage definitions: xCAT is not used here, and [xcat] definitions is not set in avs.conf; name a stanza file there"
        )
    return StanzaDefinitions(
        Path(settings.definitions), Path(settings.installdir or "/install"), Path(settings.tftpdir or "/tftpboot")
    )


@dataclass(frozen=True)
class Site:
    """What every mode works with."""

    settings: Settings
    definitions: Definitions
    identity: Identity
    progress: Progress

    @classmethod
    def open(cls, request: Request, progress: Progress) -> Site:
        settings = load_settings()
        definitions = _definitions(settings, request.mode == "status", progress)
        settings = load_site_settings(settings, definitions.installdir)
        trust.refuse_foreign(settings.state, DIRECTORIES)
        trust.refuse_foreign(settings.logs)
        if request.store:
            settings = overlay_settings(settings, {"paths": {"store": request.store}}, "-s")
        if settings.os_names:
            definitions = NamedDefinitions(definitions, settings.os_names)
        progress.verbose(f"definitions: {definitions.describe()}")
        return cls(settings, definitions, Identity.of(request.user), progress)

    def image(self, request: Request) -> OsImage:
        """The osimage the command line names, to be read: a warning where another one has the same trunk."""
        image = self.resolve(request.image or request.profile, request)
        shared = self._shared_trunk(image)
        if shared:
            self.progress.warn(f"{shared}, so what is listed may be the other one's")
        return image

    def own_image(self, request: Request) -> OsImage:
        """The same, to be stored or packed: refused where another one has the same trunk."""
        image = self.resolve(request.image or request.profile, request)
        shared = self._shared_trunk(image)
        if shared:
            other = same_trunk(self.definitions.osimages(), image)[0]
            way = chdef(self.definitions, other, "profile=NAME")
            raise AvsError(f"{shared}, so they would be stored as one; give one of them a profile of its own: {way}")
        return image

    def _shared_trunk(self, image: OsImage) -> str:
        others = ", ".join(other.name for other in same_trunk(self.definitions.osimages(), image))
        same = f"osvers {image.osvers}, osarch {image.osarch} and profile {image.profile}"
        return f"{image.name} has {same}, and so has {others}" if others else ""

    def resolve(self, wanted: str, request: Request) -> OsImage:
        """A profile or full name, narrowed by -o and -a."""
        return resolve(self.definitions.osimages(), wanted, request.osvers, request.osarch)

    def target(self, image: OsImage) -> Target:
        """The osimage with the directory that nodes get it from."""
        return Target(image, image.rootimgdir(self.definitions.installdir))

    def targets(self) -> Sequence[Target]:
        """All osimages, those among them that can be neither built nor packed."""
        return [self.target(image) for image in self.definitions.osimages().values()]

    def check_place(self, target: Target) -> None:
        """Refuse to serve from, or move aside, what is no image directory of this osimage."""
        own = {"the state directory": self.settings.state, "the directory of logs": self.settings.logs}
        local = engines.directory(self.settings.store)
        if local is not None:
            own["the store"] = local
        place.refuse(target, place.around(target, self.definitions, own))

    def pack_settings(self, image: OsImage, request: Request) -> Settings:
        """How to pack: avs.conf, the recipe of what it is packed as, and the command line over them.

        Raises AvsError for a file that they or the definition name, and that others than root may change.
        """
        values = {key: value for key, value in (("method", request.method), ("compress", request.compress)) if value}
        settings = recipe.image_settings(image, self.definitions.installdir, self.settings)
        settings = overlay_settings(settings, {"pack": values}, "the command line")
        self.refuse_writable(image, settings)
        return settings

    def refuse_writable(self, image: OsImage, settings: Settings) -> None:
        """Refuse files that others may write, among those that the definition and the settings name."""
        refuse_writable(image, settings)

    def recipe(self, image: OsImage) -> Recipe:
        try:
            return recipe.load(image, self.definitions.installdir, self.settings)
        except AvsError as err:
            raise err.prefixed(f"{image.name}: ") from None

    def store(self, recognize: bool = True) -> Store:
        """The store; a warning where it is another one than before. recognize: look, which asks a server once more."""
        store = self._store()
        other = self._recognize(store) if recognize else ""
        if other:
            self.progress.warn(other)
        return store

    def store_for_build(self, image: OsImage, anew: bool) -> Store:
        """The store with a place for the image. Raises AvsError where there was another one before, unless anew."""
        store = self._store()
        other = "" if anew else self._recognize(store)
        if other:
            raise AvsError(other)
        store.prepare(image, self.identity.user, anew)
        evidence.note(self.private(self.settings.state), self.settings.store, store.identity())
        return store

    def _store(self) -> Store:
        return engines.store(self.settings.store, self.settings.state, self.runner(), self._evidence)

    def store_programs(self) -> Sequence[str]:
        """The programs that the store needs."""
        return self._store().programs()

    def _evidence(self) -> str:
        """What says that there was a store already."""
        served = (target.rootimgdir for target in self.targets())
        return evidence.of_a_store(self.settings.state, journal.mentions(self.journals()), sets.mentions(served))

    def _recognize(self, store: Store) -> str:
        """What to say of a store that is not the one that was used at this URL before; that one is noted at its first use."""
        url, state, now = self.settings.store, self.settings.state, store.identity()
        before = evidence.noted(state).get(url, "")
        if now and not before and state.is_dir():
            evidence.note(state, url, now)
        if not (now and before) or now == before:
            return ""
        return (
            f"the store at {url} is another one than was used here before: its UUID is {now}, and was {before}. Is the right disk mounted? "
            "Where it was restored or replaced on purpose, create with --new-store takes it from now on"
        )

    @contextmanager
    def lock(self, image: OsImage, activity: str) -> Iterator[None]:
        """One `build` or `pack` of an osimage at a time."""
        past = {"build": "built", "pack": "packed"}[activity]
        self.private(self.settings.state)
        path = self.settings.state / "locks" / f"{image.name}.{activity}"
        with locks.locked(path, f"{image.name} is being {past} by", self.identity.process()):
            yield

    @contextmanager
    def checkout(self, image: OsImage) -> Iterator[Path]:
        """Where the checkout of a tag is kept for the next time; while another run uses that, a directory for this one."""
        kept = self.private(self.settings.state / "checkouts" / image.name)
        scratch.sweep(kept, OWN_CHECKOUT)
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    locks.locked(kept / "lock", f"the checkout of {image.name} is used", self.identity.process())
                )
            except locks.Busy:
                kept = stack.enter_context(scratch.own_directory(kept, OWN_CHECKOUT))
            yield kept / "tree"

    def image_lock(self, rootimgdir: Path) -> AbstractContextManager[None]:
        """xCAT's own lock on an image directory, where xCAT is."""
        return private.image_lock(rootimgdir, self.identity.pid) if self.definitions.xcat else nullcontext()

    def runner(self, log: Optional[Path] = None) -> Runner:
        """How programs are run here. log: takes what they say."""
        return Runner(log, self.settings.timeout, self.progress)

    def journal_file(self, image: OsImage) -> Path:
        return self.settings.state / "journal" / f"{image.name}.jsonl"

    def journal(self, image: OsImage) -> Sequence[JournalEntry]:
        """Who had what served, the oldest first."""
        return journal.read(self.journal_file(image))

    def journals(self) -> Sequence[JournalEntry]:
        """The journals of all osimages, by date."""
        paths = sorted((self.settings.state / "journal").glob("*.jsonl"))
        return sorted((entry for path in paths for entry in journal.read(path)), key=lambda entry: entry.date)

    def private(self, directory: Path) -> Path:
        """The directory, made for root only where it is not there."""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as err:
            raise AvsError(f"cannot make {directory}: {err.strerror}") from None
        return directory
