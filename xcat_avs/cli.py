"""The command line: arguments in, text or JSON out, exit codes. It alone imports `typer`."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any, Optional

from xcat_avs import __version__, modes, report
from xcat_avs.errors import AvsError, Interrupted, UsageError, nearest
from xcat_avs.escape import printable, printable_lines
from xcat_avs.modes import Mode
from xcat_avs.request import EVERY_FILE, Request
from xcat_avs.site import Site
from xcat_avs.system import command, mounts
from xcat_avs.system.progress import Progress

# field of Request -> its flags and, where it takes one, the name of its value
FLAGS: Mapping[str, tuple[str, str]] = {
    "tag": ("-t", "TAG"), "revision": ("-r", "REV"), "message": ("-m", "MESSAGE"), "user": ("-u", "USER"),
    "resume": ("-b", ""), "source": ("--from", "DIR"), "base": ("-n", ""), "finish": ("-f", ""), "masquerade": ("-x", "IMAGE"),
    "method": ("--method", "METHOD"), "compress": ("--compress", "NAME"),
    "define": ("--define", ""), "nodeset": ("--nodeset", ""), "live": ("--live", ""), "force": ("--force", ""),
    "deep": ("--deep", ""), "fast": ("--fast", ""), "new_store": ("--new-store", ""),
    "packages": ("--packages", ""), "files": ("--files", "[PATTERN]"), "content": ("--content", "PATH"),
}  # fmt: skip
COMMON = (
    ("-p PROFILE", "the profile, instead of IMAGE"),
    ("-o OSVERS", "narrow a profile down to an osvers"),
    ("-a ARCH", "narrow a profile down to an architecture"),
    ("-s URL", "another store"),
    ("--json", "answer with one JSON document"),
    ("-V|--verbose", "say what is done"),
    ("-h|--help", "this text; with -c MODE that of the mode"),
    ("-v|--version", "the version"),
)
# Flags that the next word is the value of.
VALUED = {flag for flag, value in FLAGS.values() if value.isalpha()} | {"-c", "-p", "-o", "-a", "-s"}
# What names files, and so need not be UTF-8; and the form that its bytes have then.
NAMES = ("source", "content", "files")
AS_BYTES = dict.fromkeys(range(0xDC80, 0xDD00), "?")
NO_THREAD = "can't start new thread"  # of Python
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def usage(mode: Optional[Mode] = None) -> str:
    """The usage of the command, or of one mode."""
    table = modes.table()
    width = 16
    if mode is None:
        longest = max(len(name) for name in table)
        lines = [
            "Usage:",
            "  avsimage -c MODE IMAGE [options]",
            "  avsimage -c MODE -h",
            "  avsimage [-h|--help|-v|--version]",
            "",
        ]
        lines += ["Modes:", *(f"  {name.ljust(longest)}  {item.summary}" for name, item in table.items()), ""]
    else:
        words = [words_of(key, mode) for key in mode.needs]
        lines = [
            "Usage:",
            "  " + " ".join(["avsimage -c", mode.name, "IMAGE" if mode.image else "[IMAGE]", *words, "[options]"]),
            "",
            f"  {mode.summary}",
            "",
        ]
        if mode.takes:
            own = [(words_of(key, mode), text) for key, text in mode.takes.items()]
            width = max(width, *(len(flag) for flag, _ in own))
            lines += [f"Options of {mode.name}:", *(f"  {flag:<{width}}  {text}" for flag, text in own), ""]
    lines += ["IMAGE is a profile (example.prod) or the full name of an osimage.", "", "Options of all modes:"]
    lines += [f"  {flag:<{width}}  {text}" for flag, text in COMMON]
    return "\n".join(lines) + "\n"


def words_of(name: str, mode: Mode) -> str:
    """A field of Request as the usage of a mode has it: its flag and what its value is called."""
    flag, value = FLAGS[name]
    return f"{flag} {mode.values.get(name, value)}".rstrip()


def take_files(argv: list[str]) -> tuple[list[str], list[str]]:
    """The command line without `--files [PATTERN]`, and the patterns; typer has no option whose value may be left out."""
    words, rest, patterns = list(argv), list[str](), list[str]()
    while words:
        word = words.pop(0)
        if word == "--":
            return [*rest, word, *words], patterns
        if word.startswith("--files="):
            patterns.append(word.partition("=")[2])
        elif word == "--files":
            patterns.append(words.pop(0) if words and not words[0].startswith("-") else EVERY_FILE)
        else:
            rest.append(word)
            if word in VALUED and words:
                rest.append(words.pop(0))
    return rest, patterns


def parse(argv: list[str]) -> dict[str, Any]:
    """The command line as a dictionary, nothing checked yet but its grammar. Raises UsageError."""
    import typer

    parsed: dict[str, Any] = {}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

    # Values are lists so that an option given twice is seen and refused, not silently the last.
    @app.command(add_help_option=False)
    def avsimage(
        image: Optional[list[str]] = typer.Argument(None),
        mode: Optional[list[str]] = typer.Option(None, "-c"),
        profile: Optional[list[str]] = typer.Option(None, "-p"),
        osvers: Optional[list[str]] = typer.Option(None, "-o"),
        osarch: Optional[list[str]] = typer.Option(None, "-a"),
        store: Optional[list[str]] = typer.Option(None, "-s"),
        tag: Optional[list[str]] = typer.Option(None, "-t"),
        revision: Optional[list[str]] = typer.Option(None, "-r"),
        message: Optional[list[str]] = typer.Option(None, "-m"),
        user: Optional[list[str]] = typer.Option(None, "-u"),
        source: Optional[list[str]] = typer.Option(None, "--from"),
        masquerade: Optional[list[str]] = typer.Option(None, "-x"),
        method: Optional[list[str]] = typer.Option(None, "--method"),
        compress: Optional[list[str]] = typer.Option(None, "--compress"),
        content: Optional[list[str]] = typer.Option(None, "--content"),
        packages: bool = typer.Option(False, "--packages"),
        resume: bool = typer.Option(False, "-b"),
        base: bool = typer.Option(False, "-n"),
        finish: bool = typer.Option(False, "-f"),
        define: bool = typer.Option(False, "--define"),
        new_store: bool = typer.Option(False, "--new-store"),
        nodeset: bool = typer.Option(False, "--nodeset"),
        live: bool = typer.Option(False, "--live"),
        force: bool = typer.Option(False, "--force"),
        deep: bool = typer.Option(False, "--deep"),
        fast: bool = typer.Option(False, "--fast"),
        json: bool = typer.Option(False, "--json"),
        verbose: bool = typer.Option(False, "-V", "--verbose"),
        help_: bool = typer.Option(False, "-h", "--help"),
        version: bool = typer.Option(False, "-v", "--version"),
    ) -> None:
        parsed.update(locals())

    rest, patterns = take_files(argv)
    try:
        app(args=rest, standalone_mode=False)
    except Exception as err:
        # Errors of the parser; its classes have another home in each version.
        if not hasattr(err, "format_message"):
            raise
        raise UsageError(err.format_message().rstrip(".")) from None
    parsed.pop("parsed", None)
    if patterns and not (parsed["image"] or parsed["profile"]):
        parsed["image"], patterns[0] = [patterns[0]], EVERY_FILE  # the word was no PATTERN but the IMAGE
    return {**parsed, "files": patterns}


def to_request(parsed: Mapping[str, Any]) -> Request:
    """The request, each value given at most once. Raises UsageError."""
    values: dict[str, Any] = {}
    for name, value in parsed.items():
        if name in ("help_", "version"):
            continue
        if isinstance(value, (list, tuple)):
            if len(value) > 1 and name == "image":
                raise UsageError(
                    f"unexpected argument {value[1]!r}; a message of several words is quoted: -m 'MESSAGE'"
                )
            if len(value) > 1:
                raise UsageError(f"{_flag(name)} is given {len(value)} times")
            if value and not value[0].strip():
                raise UsageError(f"an empty value for {_flag(name)}")
            value = value[0] if value else ""
            value = value if name in NAMES else _typed(value)
            if not _is_text(value.translate(AS_BYTES) if name in NAMES else value):
                raise UsageError(f"the value of {_flag(name)} is not UTF-8 text or holds control characters: {value!a}")
        values[name] = "" if value is None else value
    return Request(**values)


def _flag(name: str) -> str:
    """How the user calls a field of Request."""
    others = {"mode": "-c", "image": "IMAGE", "profile": "-p", "osvers": "-o", "osarch": "-a", "store": "-s"}
    return FLAGS[name][0] if name in FLAGS else others[name]


def _typed(value: str) -> str:
    """A value that was typed on a terminal whose encoding is not UTF-8."""
    if value.isprintable() or sys.stderr is None:
        return value
    try:
        return os.fsencode(value).decode(sys.stderr.encoding)
    except (UnicodeError, LookupError):
        return value


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return all(char.isprintable() or char in "\n\t" for char in value)


def find_mode(name: str) -> Mode:
    """The mode of that name or old name. Raises UsageError with the nearest."""
    table = modes.table()
    for mode in table.values():
        if name in (mode.name, mode.alias):
            return mode
    raise UsageError(f"unknown mode {name!r}{nearest(name, table)}; there are {', '.join(table)}")


def check(request: Request, mode: Mode) -> None:
    """What a mode needs is there, what it does not take is not. Raises UsageError."""
    for name, (flag, _) in FLAGS.items():
        if getattr(request, name) and name not in mode.takes:
            raise UsageError(f"mode {mode.name} takes no {flag}")
    for name in mode.needs:
        if not getattr(request, name):
            raise UsageError(f"mode {mode.name} needs {' '.join(FLAGS[name])}")
    if request.image and request.profile:
        raise UsageError(f"IMAGE is given twice: {request.image!r}, and -p {request.profile!r}")
    if mode.image and not (request.image or request.profile):
        raise UsageError(
            f"mode {mode.name} needs the IMAGE, a profile such as example.prod or the full name of an osimage"
        )


def _let_be(_signum: int, _frame: Optional[FrameType]) -> None:
    """Not SIG_IGN: of a signal that has come by then, Python would write a traceback."""


def _raise_interrupted(signum: int, _frame: Optional[FrameType]) -> None:
    for number in SIGNALS:
        signal.signal(number, _let_be)  # the first one counts; cleaning up is not interrupted again
    raise Interrupted(signum)


def _answer(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except io.UnsupportedOperation:
        raise AvsError("the standard output is closed, and the answer goes there") from None
    except OSError as err:
        _drop_stdout()
        reason = "the disk is full" if err.errno == errno.ENOSPC else err.strerror
        raise AvsError(f"cannot write the answer to the standard output: {reason}") from None


def _run(argv: list[str]) -> int:
    mode: Optional[Mode] = None
    try:
        parsed = parse(argv)
        if parsed["version"]:
            _answer(f"avsimage - Version {__version__}\n")
            return 0
        request = to_request(parsed)
        mode = find_mode(request.mode) if request.mode else None
        if parsed["help_"]:
            _answer(usage(mode))
            return 0
        if mode is None:
            raise UsageError("no mode; say what to do with -c MODE")
        check(request, mode)
        return _run_mode(request, mode)
    except UsageError as err:
        _answer(usage(mode))
        sys.stderr.write(f"Error: {err}\n")
        return err.exit_code


def _run_mode(request: Request, mode: Mode) -> int:
    if mode.private and os.geteuid() != 0:
        raise AvsError(f"{mode.name} must run as root: it mounts, and makes files of every owner; use sudo")
    progress = Progress(sys.stderr, request.verbose)
    command.listen(progress.listener)
    site = Site.open(request, progress)
    if mode.private:
        code = mounts.enter_private_namespace()
        if code is not None:
            return code
    result = mode.run(request, site)
    _answer(report.to_json(result) if request.json else report.to_text(result, sys.stdout.isatty()))
    return result.code


def _open_streams() -> None:
    """Have a stdout and a stderr, whatever we were started with, that take every character."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # What is read-only cannot be written: an answer that nobody gets is an error.
            setattr(sys, name, open(os.devnull, "w" if name == "stderr" else "r", encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_stdout() -> None:
    """What could not be written is not tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(argv: list[str]) -> int:
    """Do what a command line asks; returns the exit code: 0, 1, or 128+n after signal n."""
    os.umask(0o022)
    _open_streams()
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                signal.signal(number, _raise_interrupted)
        return _reported(argv)
    except Interrupted as err:
        sys.stderr.write(
            f"\nError: interrupted by {signal.Signals(err.signum).name}; nothing unfinished was committed or published\n"
        )
        return 128 + err.signum


def _reported(argv: list[str]) -> int:
    """Do it, and say what went wrong."""
    try:
        return _run(argv)
    except AvsError as err:
        done = getattr(err, "report", None)
        if done is not None and done.blocks and "--json" not in argv:
            _answer(report.to_text(done) + "\n")
        sys.stderr.write(f"Error: {err}\n")
        return err.exit_code
    except BrokenPipeError:
        _drop_stdout()
        return 128 + signal.SIGPIPE
    except OSError as err:
        what = "the disk is full" if err.errno == errno.ENOSPC else err.strerror or str(err)
        sys.stderr.write(f"Error: {what}{': ' + printable(str(err.filename)) if err.filename else ''}\n")
        return 1
    except (MemoryError, ImportError, SystemError):
        raise  # no defect: __main__ has words for them
    except Exception as err:
        if NO_THREAD in str(err):
            raise MemoryError(NO_THREAD) from None
        sys.stderr.write(printable_lines(traceback.format_exc()))
        sys.stderr.write("Error: this is a defect of avsimage; please report it with the lines above\n")
        return 1


def main() -> None:
    """The command `avsimage`."""
    code = run(sys.argv[1:])
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # all is done and said
    sys.stdout.flush()
    sys.exit(code)
