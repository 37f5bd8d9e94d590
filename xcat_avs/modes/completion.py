"""What a shell offers for the word that is being typed, of the table of options and of the names that were asked for before.

`avsimage --complete SHELL AT WORD...` is for the scripts in share/xcat/avs/completion: WORD number AT is being typed.
`avsimage --complete --words` is for who installs them.
The answer is a line that says what fits (words, files, directories), a line for each word that does, with its help
after a tab, and a NUL, at which the shell goes on.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Optional

from xcat_avs import modes
from xcat_avs.request import OPTIONS, Option, completed, grouped
from xcat_avs.system.remembered import LONG, Later, Remembered

WORDS, FILES, DIRECTORIES = "words", "files", "directories"
PATHS = {"DIR": DIRECTORIES, "FILE": FILES}  # how a value is called -> what fits it
# The same for values of which there are few; a test compares them with the settings.
CHOICES = {"METHOD": ("auto", "cpio", "tar", "squashfs"), "NAME": ("auto", "gzip", "pigz", "zstd", "xz")}
BREAKS = re.compile(r"[=:]+")  # bash makes a word of its own of these
PLAIN = re.compile(r"[\w.+~-]+")  # a name that is the same with and without quotes
PATIENCE = 0.12  # seconds; the shell waits 0.25, and Python has begun in the meantime


@dataclass(frozen=True)
class Line:
    """A command line, but for the word that is being typed. flag: whose value that word is; "" if it is no value."""

    words: Sequence[str]
    flag: str = ""
    given: dict[str, str] = field(default_factory=dict)  # field of Request -> value
    positional: Sequence[str] = ()

    @classmethod
    def read(cls, before: Sequence[str], after: Sequence[str] = ()) -> Line:
        groups = grouped(completed(before))
        flag = groups.pop()[0] if groups and len(groups[-1]) == 1 and _option(groups[-1][0]).value else ""
        given, positional = dict[str, str](), list[str]()
        for group in (*groups, *grouped(completed(after))):
            name, _, value = group[0].partition("=")
            if group[0].startswith("-"):
                given.update(dict.fromkeys(_fields(name), group[1] if len(group) == 2 else value))
            else:
                positional.append(group[0])
        if positional and "mode" not in given:
            given["mode"] = positional.pop(0)
        return cls(before, flag, given, positional)

    @property
    def mode(self) -> str:
        name = self.given.get("mode", "")
        return modes.ALIASES.get(name, name)

    @property
    def image(self) -> str:
        return self.given.get("profile") or next(iter(self.positional), "")


def _fields(flag: str) -> list[str]:
    return [name for name, option in OPTIONS.items() if flag in option.flags]


def _option(word: str) -> Option:
    return next((OPTIONS[name] for name in _fields(word)), Option(()))


@dataclass(frozen=True)
class Offer:
    """What fits. words: those of the table, with their help. source: what has more of them.

    front: what stands in the same word before them.
    """

    kind: str = WORDS
    words: Sequence[tuple[str, str]] = ()
    source: Optional[Callable[[Line], Remembered]] = None
    column: Callable[[Any], Sequence[str]] = list
    front: str = ""


def offer(line: Line, typed: str) -> Offer:
    """What fits a line in the place of the word that is typed."""
    if "--" in line.words:
        return Offer(FILES)  # a command of its own
    name, equals, value = typed.partition("=")
    if line.flag:
        return _value(line, line.flag, typed)
    if equals and name.startswith("--"):
        found = _value(line, name, value)
        return Offer(found.kind, found.words, found.source, column=found.column, front=f"{name}={found.front}")
    if typed.startswith("-"):
        return Offer(words=_flags(line, typed))
    if not line.mode:
        return Offer(words=tuple(modes.MODES.items()))
    if line.mode not in modes.MODES:
        return Offer()
    if not line.image:
        return Offer(source=_images, column=_both)
    mode = modes.named(line.mode)
    return Offer(PATHS.get(mode.argument if mode else "", WORDS))


def _flags(line: Line, typed: str) -> list[tuple[str, str]]:
    """The options that the mode takes and the line has not; a short one only where it is typed whole."""
    fit = [
        option for name, option in OPTIONS.items()
        if name not in line.given and (not option.modes or line.mode in option.modes)
    ]  # fmt: skip
    return [(flag, option.help) for option in fit for flag in option.flags if flag[:2] == "--" or flag == typed]


def _value(line: Line, flag: str, typed: str) -> Offer:
    """What fits as the value of an option."""
    what = _option(flag).value
    if what == "TAG" and line.mode == "diff" and ":" in typed:
        return Offer(source=_tags, front=f"{typed.partition(':')[0]}:")
    if what in ("TAG", "NAMES"):
        return Offer(source=_tags)
    columns = {"IMAGE": _both, "PROFILE": _column(3), "OSVERS": _column(1), "ARCH": _column(2)}
    if what in columns:
        return Offer(source=_images, column=columns[what])
    words = tuple(modes.MODES.items()) if what == "MODE" else [(word, "") for word in CHOICES.get(what, ())]
    return Offer(PATHS.get(what, WORDS), words)


def _column(number: int) -> Callable[[Any], list[str]]:
    return lambda rows: sorted({row[number] for row in rows})


def _both(rows: Any) -> list[str]:
    """By which names an osimage may be called: the profile, and the full name."""
    return [*_column(3)(rows), *_column(0)(rows)]


def _images(_line: object = None) -> Remembered:
    """Each osimage: name, osvers, osarch, profile."""

    def ask() -> Any:
        from xcat_avs.site import names

        return names.osimages()

    return Remembered(["osimages"], ask)


def _tags(line: Line) -> Remembered:
    """The tags of the image that a line names."""
    narrowed = [line.given.get(name, "") for name in ("osvers", "osarch")]
    store = line.given.get("store", "")

    def ask() -> Any:
        from xcat_avs.site import names

        # xCAT is asked once at most. As a rule that was done when the image was typed.
        known, installdir = _images(), Remembered(["installdir"], names.installdir, LONG)
        asked = not known.known
        if asked:
            known.refresh()
        if not installdir.fresh or installdir.rows == []:
            if asked and names.asks_for_installdir():
                raise Later
            installdir.refresh()
        row = names.only(known.rows, line.image, *narrowed)
        return names.tags(row, store, installdir.rows) if row else []

    return Remembered(["tags", line.image, *narrowed, store], ask)


def joined(words: Sequence[str], at: int) -> tuple[list[str], int, str]:
    """The words of a line of which bash has made more, where that one is which is typed, and what of it bash leaves as it is."""
    found, place, left = list[str](), 0, ""
    for number, word in enumerate(words):
        follows = bool(found) and number > 0 and bool(BREAKS.fullmatch(word) or BREAKS.fullmatch(words[number - 1]))
        before = found.pop() if follows else ""
        found.append(before + word)
        if number == at:
            place, left = len(found) - 1, before + (word if BREAKS.fullmatch(word) else "")
    return found, place, left


def unquoted(word: str) -> str:
    """What bash makes of a word, which it hands over as it is typed; one whose quote is still open is closed."""
    for end in ("", "'", '"'):
        with suppress(ValueError):
            return "".join(shlex.split(word + end)[:1])
    return word


def known_beforehand() -> str:
    """The modes, and the options of each, for bash and zsh: to be put into the scripts where they are installed.

    A machine that is busy does not answer in time, and then they have these.
    """
    lines = [f"_avsimage_modes='{' '.join(modes.MODES)}'\n", "typeset -gA _avsimage_options\n"]
    for mode in ("-", *modes.MODES):
        line = Line((), given={} if mode == "-" else {"mode": mode})
        flags = " ".join(flag for flag, _ in _flags(line, ""))
        lines.append(f"_avsimage_options[{mode}]='{flags}'\n")
    return "".join(lines)


def respond(argv: Sequence[str], say: Callable[[str], None]) -> int:
    """Answer a shell. Returns the exit code; nothing is ever raised, for who is typing wants no messages.

    argv: what follows --complete. say: takes the answer, once.
    """
    try:
        if list(argv) == ["--words"]:
            say(known_beforehand())
        else:
            _respond(argv[0], int(argv[1]), list(argv[2:]) or [""], say)
    except Exception:
        return 1
    return 0


def _respond(shell: str, at: int, words: Sequence[str], say: Callable[[str], None]) -> None:
    words, place, left = joined([*map(unquoted, words)], at) if shell == "bash" else (words, at, "")
    line, typed = Line.read(words[:place], words[place + 1 :]), words[place]
    found = offer(line, typed)

    def tell(rows: Any) -> None:
        words = [*found.words, *((word, "") for word in found.column(rows) if PLAIN.fullmatch(word))]
        fit = [(found.front + word, help) for word, help in words if (found.front + word).startswith(typed)]
        say(f"{found.kind}\n" + "".join(f"{word.removeprefix(left)}\t{help}\n" for word, help in fit) + "\0")

    if found.source is None:
        tell([])
    else:
        _in_time(found.source(line), tell)


def _in_time(memory: Remembered, tell: Callable[[Any], None]) -> None:
    """Tell names that were asked for before, unless new ones come soon. Asking goes on, for the next question."""
    told = list[bool]()

    def now(*_: object) -> None:
        if not told:
            told.append(True)
            with suppress(Exception):  # the shell may have gone on; what is being asked for is for its next question
                tell(memory.rows)

    with memory.turn() as mine:
        if mine and not memory.fresh:
            signal.signal(signal.SIGALRM, now)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            memory.refresh()
            signal.setitimer(signal.ITIMER_REAL, 0)
        now()
