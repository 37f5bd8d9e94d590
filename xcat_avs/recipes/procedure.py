"""Procedures: the steps of a build, found by layers and listed by reading, never by executing."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from xcat_avs.errors import AvsError, NotFoundError, nearest
from xcat_avs.system import trust

STEP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# A declared option of an executable: `# OPTION name=default   help`, or `# OPTION name=default  (default|other) help`
SHELL_SECRET = re.compile(r"#\s*SECRET\s+(\S+)\s+(\S+)\s+(.+)")  # `# SECRET kind /path  reason`
SHELL_OPTION = re.compile(r"#\s*OPTION\s+([a-z_][a-z0-9_]*)=(\S*)\s*(?:\(([^\s()|]*(?:\|[^\s()|]*)+)\)\s*)?(.*)")


Secret = tuple[str, str, str]  # that a procedure declares: kind, pattern of paths, reason


@dataclass(frozen=True)
class Option:
    """A typed option: its type is that of its default (bool, int, str, or tuple for a list).

    choices: the texts that it, or each item of a list, may be; empty for any.
    """

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()

    def fits(self) -> bool:
        """Whether the declaration is one: a default of a known type, and choices that it is one of."""
        if not self.choices:
            return isinstance(self.default, (bool, int, str, tuple, list))
        items = self.default if isinstance(self.default, (tuple, list)) else (self.default,)
        return all(isinstance(item, str) and item in self.choices for item in items)

    def over(self, below: Optional[Option]) -> Option:
        """This option in place of one that it overrides: with its choices, where it changes the default alone."""
        kept = replace(self, choices=below.choices) if below is not None and not self.choices else self
        return kept if kept.fits() else self


@dataclass(frozen=True)
class Layer:
    """A directory of procedures. trusted: shipped with this program, not to be checked for writers."""

    name: str
    directory: Path
    trusted: bool = False


@dataclass(frozen=True)
class Procedure:
    """One file that does one step. overridden: the one of the same name in the layer below, or None."""

    name: str
    path: Path
    layer: str
    doc: str
    options: Mapping[str, Option]
    source: bytes
    overridden: Any = None
    secrets: tuple[Secret, ...] = ()

    def declared_secrets(self) -> list[tuple[str, str, str, str]]:
        """What it puts into an image on purpose, as settings.AllowedSecret has it; with what the one that it overrides does."""
        below = self.overridden.declared_secrets() if self.overridden is not None else []
        return [*below, *((*secret, f"procedure {self.name}") for secret in self.secrets)]

    @property
    def executable(self) -> bool:
        return self.path.suffix != ".py"


def load(path: Path, layer: Layer, overridden: Any = None) -> Procedure:
    """Read one procedure file. Raises AvsError if it is no procedure, or not safe to run."""
    if not layer.trusted:
        trust.refuse(path)
    source = path.read_bytes()
    if path.suffix == ".py":
        doc, options, secrets = _read_python(path, source)
    else:
        if not os.access(path, os.X_OK):
            raise AvsError(f"{path} is not executable; chmod 755 {path}")
        doc, options, secrets = _read_executable(source)
    if overridden is not None:
        own = {name: option.over(overridden.options.get(name)) for name, option in options.items()}
        options = {**overridden.options, **own}  # it may call the one it overrides
    for option in options.values():
        if not option.fits():
            raise AvsError(f"{path}: the default of the option {option.name} is none of its choices")
    return Procedure(
        path.stem, path, layer.name, doc, options=options, source=source, overridden=overridden, secrets=secrets
    )


def _read_python(path: Path, source: bytes) -> tuple[str, dict[str, Option], tuple[Secret, ...]]:
    try:
        module = ast.parse(source, str(path))
    except (SyntaxError, ValueError) as err:
        raise AvsError(f"{path} is no Python procedure: {err}") from None
    doc = (ast.get_docstring(module) or "").strip().split("\n")[0]
    functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    if "run" not in functions:
        raise AvsError(f"{path} has no function run(ctx)")
    try:
        options = {name: _option(name, *fields) for name, fields in _constant(module, "OPTIONS", {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise AvsError(
            f'{path}: OPTIONS must be a plain {{"name": (default, "help")}}, a default a truth value, a whole number, a text or a list of '
            'texts; with choices, of which the default is one, {"name": (default, "help", ("a", "b"))}'
        ) from None
    try:
        secrets = tuple(_secret(*fields) for fields in _constant(module, "SECRETS", ()))
    except (ValueError, TypeError, AttributeError):
        raise AvsError(f'{path}: SECRETS must be a plain list of ("kind", "/path", "reason")') from None
    return doc, options, secrets


def _constant(module: ast.Module, name: str, default: Any) -> Any:
    """The plain value that a module gives to a name. Raises ValueError for what is none."""
    for node in reversed(module.body):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if [ast.unparse(target) for target in targets] == [name]:
            assert isinstance(node, (ast.Assign, ast.AnnAssign))
            return ast.literal_eval(node.value or ast.Constant(None))
    return default


def _secret(kind: str, path: str, reason: str) -> Secret:
    """A secret as SECRETS declares it. Raises TypeError."""
    if not all(isinstance(item, str) and item for item in (kind, path, reason)):
        raise TypeError
    return kind, path, reason


def _option(name: str, default: Any, text: str, choices: Sequence[str] = ()) -> Option:
    """An option as OPTIONS declares it. Raises TypeError."""
    option = Option(name, default, text, choices=tuple(choices))
    if isinstance(choices, str) or not option.fits():
        raise TypeError
    return option


def _read_executable(source: bytes) -> tuple[str, dict[str, Option], tuple[Secret, ...]]:
    doc = ""
    options: dict[str, Option] = {}
    secrets: list[Secret] = []
    for line in source.decode("utf-8", "replace").split("\n")[:100]:
        declared = SHELL_SECRET.fullmatch(line.strip())
        if declared:
            secrets.append((declared.group(1), declared.group(2), declared.group(3)))
            continue
        match = SHELL_OPTION.fullmatch(line.strip())
        if match:
            name, default, choices, text = match.groups()
            options[name] = Option(name, default, text, choices=tuple(choices.split("|")) if choices else ())
        elif line.startswith("#") and not line.startswith("#!") and not doc:
            doc = line.lstrip("# ").strip()
    return doc, options, tuple(secrets)


def candidates(layer: Layer, name: str) -> list[Path]:
    """The files of a layer that could be the procedure of that name."""
    return [path for path in (layer.directory / f"{name}{suffix}" for suffix in (".py", ".sh", "")) if path.is_file()]


def find(name: str, layers: Sequence[Layer]) -> Procedure:
    """The procedure of that name in the last layer that has it, chained to those it overrides.

    Raises NotFoundError with the nearest names, AvsError where a layer has it twice.
    """
    found = None
    for layer in layers:
        paths = candidates(layer, name) if STEP_NAME.fullmatch(name) else []
        if len(paths) > 1:
            raise AvsError(f"procedure {name!r} is there twice: {' and '.join(map(str, paths))}; remove one")
        if paths:
            found = load(paths[0], layer, found)
    if found is None:
        raise NotFoundError(
            f"unknown procedure {name!r}{nearest(name, known(layers))}; looked in {', '.join(str(layer.directory) for layer in layers)}"
        )
    return found


def known(layers: Iterable[Layer]) -> list[str]:
    """The names of all procedures in the layers."""
    names = set()
    for layer in layers:
        if layer.directory.is_dir():
            names |= {
                path.stem
                for path in layer.directory.iterdir()
                if path.is_file() and STEP_NAME.fullmatch(path.stem) and path.stem != "__init__"
            }
    return sorted(names)
