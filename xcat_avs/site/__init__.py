"""One installation: its settings, its definitions, its store, and who is asking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from xcat_avs.definitions.osimage import OsImage, resolve, same_trunk
from xcat_avs.definitions.protocol import Definitions, chdef
from xcat_avs.errors import AvsError
from xcat_avs.identity import Identity
from xcat_avs.recipes import recipe
from xcat_avs.recipes.recipe import Recipe
from xcat_avs.request import Request
from xcat_avs.serve import journal, place, sets
from xcat_avs.serve.journal import JournalEntry
from xcat_avs.serve.sets import Target
from xcat_avs.settings import AllowedSecret, Settings, overlay_settings, refuse_writable
from xcat_avs.site import opening
from xcat_avs.store import engines, evidence, signatures
from xcat_avs.store.protocol import Store
from xcat_avs.store.signatures import DEFAULT, Signing
from xcat_avs.system import locks, scratch
from xcat_avs.system.locks import Holder
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import Runner
from xcat_avs.xcat import private

OWN_CHECKOUT = "own."  # how the directory of a checkout that is not kept begins


def _served_lock(rootimgdir: Path) -> Path:
    """The lock of a served directory. It is beside it, for machines with a state directory each may share it."""
    return rootimgdir.parent / f".{rootimgdir.name}.avs-lock"


@dataclass(frozen=True)
class Site:
    """What every mode works with."""

    settings: Settings
    definitions: Definitions
    identity: Identity
    progress: Progress

    @classmethod
    def open(cls, request: Request, progress: Progress) -> Site:
        opened = opening.read(request, progress)
        return cls(opened.settings, opened.definitions, Identity.of(request.user), progress)

    @classmethod
    def as_it_is(cls, request: Request, progress: Progress) -> Site:
        """As much of it as can be read, for check: definitions that cannot be read are an error for whoever asks for them."""
        opened = opening.as_it_is(request, progress)
        return cls(opened.settings, opened.definitions, Identity.of(request.user), progress)

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
        store = self.local_store()
        if store is not None:
            own["the store"] = store
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

    def signing(self, request: Request) -> Signing:
        """How tags are signed and checked. Of --sign counts the key; without one, or without --sign, that of the settings."""
        chosen = self.settings
        key = chosen.sign_key if request.sign in ("", DEFAULT) else request.sign
        return Signing(
            key=key or request.sign, allowed=chosen.allowed_signers, keyring=chosen.keyring,
            work=chosen.state / "fsvs", runner=self.runner(),
        )  # fmt: skip

    def signature_required(self, image: OsImage) -> bool:
        """Whether an osimage serves nothing but tags with a good signature."""
        settings = recipe.image_settings(image, self.definitions.installdir, self.settings)
        return signatures.required(settings.require_signature, image)

    def refuse_writable(self, image: OsImage, settings: Settings) -> None:
        """Refuse files that others may write, among those that the definition and the settings name."""
        refuse_writable(image, settings)

    def recipe(self, image: OsImage) -> Recipe:
        try:
            return recipe.load(image, self.definitions.installdir, self.settings)
        except AvsError as err:
            raise err.prefixed(f"{image.name}: ") from None

    def declared_secrets(self, image: OsImage, steps: Iterable[str], addons: Iterable[str]) -> Sequence[AllowedSecret]:
        """What may be in an image by its own recipe, and because procedures of these names put it there on purpose."""
        installdir = self.definitions.installdir
        own = recipe.image_settings(image, installdir, self.settings).secrets
        names = ((steps, False), (addons, True))
        return [
            *own,
            *(item for given, kind in names for item in recipe.declared_secrets(image, installdir, given, kind)),
        ]

    def store(self, recognize: bool = True) -> Store:
        """The store; a warning where it is another one than before. recognize: look, which asks a server once more."""
        store = self._store()
        other = self.recognize(store) if recognize else ""
        if other:
            self.progress.warn(other)
        return store

    def store_for_build(self, image: OsImage, anew: bool) -> Store:
        """The store with a place for the image. Raises AvsError where there was another one before, unless anew."""
        store = self._store()
        other = "" if anew else self.recognize(store)
        if other:
            raise AvsError(other)
        store.prepare(image, self.identity.user, anew)
        evidence.note(self.private(self.settings.state), self.settings.store, store.identity())
        return store

    def _store(self) -> Store:
        return engines.store(self.settings.store, self.settings.state, self.runner(), self.evidence)

    def store_programs(self) -> Sequence[str]:
        """The programs that the store needs."""
        return self._store().programs()

    def evidence(self) -> str:
        """What says that there was a store already."""
        served = (target.rootimgdir for target in self.targets())
        return evidence.of_a_store(self.settings.state, journal.mentions(self.journals()), sets.mentions(served))

    def recognize(self, store: Store) -> str:
        """What to say of a store that is not the one that was used at this URL before; that one is noted at its first use."""
        return evidence.recognize(self.settings.state, self.settings.store, store.identity())

    @contextmanager
    def lock(self, image: OsImage, activity: str) -> Iterator[None]:
        """One `build`, `pack` or `copy` of an osimage at a time."""
        past = {"build": "built", "pack": "packed", "copy": "copied"}[activity]
        self.private(self.settings.state)
        path = self.settings.state / "locks" / f"{image.name}.{activity}"
        with locks.locked(path, f"{image.name} is being {past} by", self._holder()) as tell, self.progress.told(tell):
            yield

    def _holder(self) -> Holder:
        """This process, for the one who finds a lock taken."""
        who = self.identity
        return Holder(who.user, who.pid, who.host, since=who.started)

    def running(self, image: OsImage) -> Mapping[str, Holder]:
        """Who builds and who packs an osimage now: `build`, `pack` -> the holder of its lock.

        A pack is that of another machine as well, where that serves from the same directory.
        """
        paths = [
            (activity, self.settings.state / "locks" / f"{image.name}.{activity}") for activity in ("build", "pack")
        ]
        paths.append(("pack", _served_lock(self.target(image).rootimgdir)))
        found = [(activity, locks.holder(path)) for activity, path in paths]
        return {activity: holder for activity, holder in reversed(found) if holder}

    def kept_checkout(self, image: OsImage) -> Path:
        return self.settings.state / "checkouts" / image.name / "tree"

    @contextmanager
    def checkout(self, image: OsImage) -> Iterator[Path]:
        """Where the checkout of a tag is kept for the next time; while another run uses that, a directory for this one."""
        kept = self.private(self.kept_checkout(image).parent)
        scratch.sweep(kept, OWN_CHECKOUT)
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    locks.locked(kept / "lock", f"the checkout of {image.name} is used by", self._holder())
                )
            except locks.Busy:
                kept = stack.enter_context(scratch.own_directory(kept, OWN_CHECKOUT))
            yield kept / "tree"

    @contextmanager
    def image_lock(self, rootimgdir: Path) -> Iterator[None]:
        """One pack or rollback at a time of a directory that is served, by whichever machine; and xCAT's own lock, where xCAT is."""
        with ExitStack() as stack:
            if rootimgdir.parent.is_dir():
                what = f"{rootimgdir} is being changed by"
                lock = locks.locked(_served_lock(rootimgdir), what, self._holder(), passing=True)
                stack.enter_context(self.progress.told(stack.enter_context(lock)))
            if self.definitions.xcat:
                stack.enter_context(private.image_lock(rootimgdir, self.identity.pid))
            yield

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

    def narrowed(self, request: Request) -> list[OsImage]:
        """All osimages by name, or those that -o and -a leave."""
        return [
            image for _, image in sorted(self.definitions.osimages().items())
            if request.osvers in ("", image.osvers) and request.osarch in ("", image.osarch)
        ]  # fmt: skip

    def places(self, image: OsImage) -> list[Path]:
        """The directories that hold something of an osimage: its build, the kept checkout, and what is, or was, served."""
        rootimgdir = self.target(image).rootimgdir
        own = [self.settings.state / name / image.name for name in ("builds", "checkouts", "staging")]
        return [*own, *sets.directories(rootimgdir, image.name)]

    def all_running(self) -> dict[str, dict[str, str]]:
        """Osimage -> `build` or `pack` where one runs -> who does it, since when, in words."""
        found = {name: self.running(image) for name, image in self.definitions.osimages().items()}
        return {name: {what: str(who) for what, who in holders.items()} for name, holders in found.items() if holders}

    def local_store(self) -> Optional[Path]:
        """The directory of the store, where it is on this machine."""
        return engines.directory(self.settings.store)

    def private(self, directory: Path) -> Path:
        """The directory, made for root only where it is not there."""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as err:
            raise AvsError(f"cannot make {directory}: {err.strerror}") from None
        return directory
