"""Recipes: which steps and add-ons build an image, in which order, with which options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from xcat_avs import settings
from xcat_avs.definitions.osimage import OsImage
from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.recipes import procedure
from xcat_avs.recipes.files import RecipeFile, recipe_files
from xcat_avs.recipes.procedure import Layer, Option, Procedure
from xcat_avs.settings import AllowedSecret, Settings, overlay_settings

KEYS = ("base", "steps", "steps_remove", "steps_add", "addons")
PLACE = re.compile(r"(\S+)\s+(after|before)\s+(\S+)")
TEST, COMMANDS = "test", "commands"  # a section that is of no step, and its one setting
ADDON = "addon "  # what the section of an add-on's options begins with
# What every add-on can be told besides its own options.
ADDON_OPTIONS = {
    "exclude": Option(
        "exclude",
        ("var/cache/apt", "var/cache/dnf", "var/cache/yum", "var/cache/ldconfig", "var/cache/debconf/*-old", "var/lib/apt/lists",
         "var/lib/dpkg/*-old", "var/log/apt", "var/log/dpkg.log", "var/log/alternatives.log", "var/log/dnf*", "var/log/hawkey.log",
         "tmp", "var/tmp"),
        "patterns, as those of ctx.glob: files that match, or are below what matches, are left out",
    )
}  # fmt: skip
CHANGEABLE = ("image", "pack", "boot", "secrets")  # the sections of avs.conf that a recipe may change


@dataclass(frozen=True)
class Step:
    """One step or add-on: the procedure that does it, the values of all its options, and the recipe that names it."""

    name: str
    procedure: Procedure
    options: Mapping[str, Any]
    recipe: Optional[Path] = None


@dataclass(frozen=True)
class Recipe:
    """The steps and add-ons of an image, the settings it changes, and the files that say so.

    tests: command lines that every build has to pass.
    """

    steps: tuple[Step, ...]
    settings: Settings
    files: tuple[Path, ...] = field(default=())
    addons: tuple[Step, ...] = field(default=())
    tests: tuple[str, ...] = field(default=())

    def secrets(self) -> tuple[AllowedSecret, ...]:
        """What may be in the image: by avs.conf and the recipes, and what its procedures put there on purpose."""
        own = [item for step in (*self.steps, *self.addons) for item in step.procedure.declared_secrets()]
        return (*self.settings.secrets, *own)

    def text(self) -> str:
        """The recipe as it came out of all layers, as one ini file."""
        lines = ["[recipe]", f"steps = {', '.join(step.name for step in self.steps)}"]
        lines += [f"addons = {', '.join(addon.name for addon in self.addons)}"] if self.addons else []
        for prefix, steps in (("", self.steps), (ADDON, self.addons)):
            for step in steps:
                if step.options:
                    lines += ["", f"[{prefix}{step.name}]"]
                    lines += [f"{name} = {option_text(value)}" for name, value in sorted(step.options.items())]
        lines += ["", f"[{TEST}]", f"{COMMANDS} =", *(f"    {line}" for line in self.tests)] if self.tests else []
        return "\n".join(lines) + "\n"


def option_text(value: Any) -> str:
    """An option's value as a recipe writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def procedure_layers(image: OsImage, installdir: Path, addons: bool = False) -> list[Layer]:
    """Where procedures of an image, or those of its add-ons, are looked for, the most general first."""
    kind = "addons" if addons else "procedures"
    shipped = Path(__file__).resolve().parent.parent / kind
    site = installdir / "custom/avs"
    chain = ("common", *image.version.chain)
    layers = [Layer(f"shipped {name}", shipped / name, trusted=True) for name in chain]
    layers += [Layer(f"site {name}", site / kind / name) for name in chain]
    own = site / "images" / image.profile
    return [*layers, Layer(f"image {image.profile}", own / "addons" if addons else own)]


def declared_secrets(image: OsImage, installdir: Path, names: Iterable[str], addons: bool) -> list[AllowedSecret]:
    """What steps, or add-ons, of these names put into an image on purpose; one that is not there any more says nothing."""
    found: list[AllowedSecret] = []
    for name in names:
        with suppress(AvsError):
            found += procedure.find(name, procedure_layers(image, installdir, addons)).declared_secrets()
    return found


def image_settings(image: OsImage, installdir: Path, base: Settings) -> Settings:
    """base with what the recipe of an image changes in it; the steps are not looked at."""
    try:
        _ = image.version
    except AvsError:
        return base  # an osvers that nothing can build, yet a tag of it can be packed
    return _changed_settings(recipe_files(image, installdir), base)


def _changed_settings(files: Sequence[RecipeFile], base: Settings) -> Settings:
    for file in files:
        changed = {name: file.sections[name] for name in CHANGEABLE if name in file.sections}
        base = overlay_settings(base, changed, str(file.path))
    return base


Named = dict[str, Path]  # step -> the recipe that names it, in order
Texts = dict[str, dict[str, tuple[str, Path]]]  # step -> option -> its text and the recipe that has it


def load(image: OsImage, installdir: Path, base: Settings) -> Recipe:
    """Read the recipe of an image through its layers.

    Raises AvsError, naming the file, for an unknown step, add-on, option or setting.
    """
    files = recipe_files(image, installdir)
    steps: Named = {}
    addons: Named = {}
    options: Texts = {}
    tests: tuple[str, ...] = ()
    for file in files:
        path = file.path
        for section, items in file.sections.items():
            if section == "recipe":
                _refuse_unknown(items, KEYS, section, path)
                steps = _changed(steps, items, path)
                if "addons" in items:
                    addons = _listed(items["addons"], path, "add-on")
            elif section == TEST:
                _refuse_unknown(items, (COMMANDS,), section, path)
                tests = tuple(line.strip() for line in items.get(COMMANDS, "").splitlines() if line.strip())
            elif section in settings.SECTIONS:
                if section not in CHANGEABLE:
                    names = ", ".join(items)
                    raise AvsError(f"{path}: a recipe cannot set {names} in [{section}]; that belongs in avs.conf")
            else:
                options.setdefault(section, {}).update({name: (text, path) for name, text in items.items()})
    if not steps:
        raise AvsError("no recipe names any steps")
    changed = _changed_settings(files, base)
    parts = {name: texts for name, texts in options.items() if not name.startswith(ADDON)}
    extras = {name[len(ADDON) :].strip(): texts for name, texts in options.items() if name.startswith(ADDON)}
    layers, addon_layers = (procedure_layers(image, installdir, addons=kind) for kind in (False, True))
    for section in parts.keys() & set(procedure.known(addon_layers)) - set(procedure.known(layers)):
        path = next((item[1] for item in parts[section].values()), Path("a recipe"))
        raise AvsError(f"{path}: [{section}] is the section of a step, and {section} is an add-on: [{ADDON}{section}]")
    kinds = ("", image.version.packages)
    found = tuple(step for step in _found(steps, parts, layers, "procedure") if step.procedure.packages in kinds)
    added = _found(addons, extras, addon_layers, "add-on")
    return Recipe(found, changed, tuple(file.path for file in files), addons=added, tests=tests)


def _refuse_unknown(items: Iterable[str], known: Sequence[str], section: str, path: Path) -> None:
    for name in items:
        if name not in known:
            there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
            raise AvsError(f"{path}: unknown setting {name!r} in [{section}]{nearest(name, known)}; {there}")


def _listed(text: str, path: Path, kind: str) -> Named:
    names = settings.typed(text, (), f"{path}: {kind}s")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AvsError(f"{path}: {kind} {twice[0]!r} is named twice")
    return dict.fromkeys(names, path)


def _changed(steps: Named, items: Mapping[str, str], path: Path) -> Named:
    """The steps after one file: a list of its own, then what it takes away, then what it puts in."""
    if "steps" in items:
        steps = _listed(items["steps"], path, "step")
    for name in _listed(items.get("steps_remove", ""), path, "step"):
        if name not in steps:
            raise AvsError(f"{path}: steps_remove names {name!r}, which is no step{nearest(name, steps)}")
        steps = {step: origin for step, origin in steps.items() if step != name}
    for item in items.get("steps_add", "").replace("\n", ",").split(","):
        if not item.strip():
            continue
        match = PLACE.fullmatch(item.strip())
        if match is None:
            raise AvsError(f"{path}: steps_add has {item.strip()!r}; it takes `STEP after STEP` or `STEP before STEP`")
        name, where, other = match.groups()
        if name in steps:
            raise AvsError(f"{path}: steps_add names {name!r}, which is a step already, of {steps[name]}")
        if other not in steps:
            raise AvsError(
                f"{path}: steps_add puts {name!r} {where} {other!r}, which is no step{nearest(other, steps)}"
            )
        order = list(steps.items())
        place = [step for step, _ in order].index(other) + (where == "after")
        steps = dict([*order[:place], (name, path), *order[place:]])
    return steps


def _value(text: str, option: Option, what: str) -> Any:
    """The text of a recipe as the option's type, and one of its choices."""
    value = settings.typed(text, option.default, what)
    for item in value if isinstance(value, tuple) else (value,):
        if option.choices and item not in option.choices:
            words = [choice or "nothing" for choice in option.choices]
            raise AvsError(
                f"{what} is {text.strip()!r}; it takes {', '.join(words[:-1])} or {words[-1]}{nearest(item, option.choices)}"
            )
    return value


def _found(named: Named, options: Texts, layers: list[Layer], kind: str) -> tuple[Step, ...]:
    """The procedures of the names, with their options."""
    steps = []
    for name, origin in named.items():
        try:
            found = procedure.find(name, layers)
        except NotFoundError as err:
            raise NotFoundError(f"{origin}: {err.text.replace('procedure', kind, 1)}") from None
        if kind == "add-on":
            found = replace(found, options={**ADDON_OPTIONS, **found.options})
        values = {option.name: option.default for option in found.options.values()}
        for key, (text, path) in options.get(name, {}).items():
            if key not in found.options:
                there = ", ".join(found.options) or "none"
                raise AvsError(
                    f"{path}: {kind} {name!r} has no option {key!r}{nearest(key, found.options)}; it has {there}"
                )
            section = f"{ADDON if kind == 'add-on' else ''}{name}"
            values[key] = _value(text, found.options[key], f"{path}: [{section}] {key}")
        steps.append(Step(name, found, values, origin))
    # A section for a step that this recipe leaves out is fine; one for a procedure that does not exist is a typo.
    known = procedure.known(layers)
    for section in options.keys() - set(named) - set(known):
        path = next((item[1] for item in options[section].values()), Path("a recipe"))
        raise AvsError(f"{path}: unknown {kind} [{section}]{nearest(section, known)}")
    return tuple(steps)
