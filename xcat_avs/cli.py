"""The command line: arguments in, text or JSON out, exit codes. It alone imports `typer`."""

from __future__ import annotations

import errno
import inspect
import io
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from xcat_avs import __version__, modes, report
from xcat_avs.errors import AvsError, Interrupted, SetupError, UsageError, nearest
from xcat_avs.escape import is_text, masked, printable_lines
from xcat_avs.modes import Mode
from xcat_avs.report import Report
from xcat_avs.request import OPTIONS, Request, completed, current, grouped, parted, placed
from xcat_avs.system import interrupts, mounts, suspend, terminal
from xcat_avs.system.progress import Progress

LONG = [flag for option in OPTIONS.values() for flag in option.flags if flag.startswith("--")]
ALIKE = 0.7  # how much an unknown option has to be like one that there is
AS_BYTES = dict.fromkeys(range(0xDC80, 0xDD00), "?")
DENIED = os.strerror(errno.EACCES)
NO_THREAD = "can't start new thread"  # of Python


@dataclass
class Call:
    """One run of the command: what is asked for, as far as it is read, for the words of an error."""

    request: Request
    mode: Optional[Mode] = None
    progress: Optional[Progress] = None


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """The command line as a dictionary, nothing checked yet but its grammar. Raises UsageError."""
    typer = _typer()
    parsed: dict[str, Any] = {}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(add_help_option=False)(_command(typer, parsed.update))
    before, after = parted(argv)
    words, pattern = current(completed(before))
    try:
        app(args=words, standalone_mode=False)
    except Exception as err:
        # Errors of the parser; its classes have another home in each version.
        if not hasattr(err, "format_message"):
            raise
        raise UsageError(_complaint(err)) from None
    mode = modes.named((parsed["mode"] or parsed["image"] or after or [""])[0])
    parsed["command"] = after if mode and mode.command else []
    parsed["image"] = [*(parsed["image"] or []), *([] if parsed["command"] else after)]
    if parsed["image"] and not parsed["mode"]:  # the mode may be the first word
        parsed.update(mode=parsed["image"][:1], image=parsed["image"][1:])
    if pattern and not (parsed["image"] or parsed["profile"]):
        parsed.update(image=[pattern], match=[])
    return parsed


def _typer() -> Any:
    """The library, without rich: versions of it load that at once where it is there, and take twice as long to start."""
    hidden = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
    try:
        import typer
    finally:
        if hidden:
            del sys.modules["rich"]
    return typer


def _complaint(err: Any) -> str:
    """What the parser says, but for its guesses: it takes any option for the nearest."""
    if not hasattr(err, "possibilities"):
        return str(err.format_message()).rstrip(".")
    return f"there is no option {err.option_name}{nearest(err.option_name, LONG, ALIKE)}"


def mode_of(argv: Sequence[str]) -> Optional[Mode]:
    """The mode of a command line that cannot be parsed, as far as it can be told."""
    words = grouped(completed(argv))
    given = [group[1] for group in words if group[0] in OPTIONS["mode"].flags and len(group) == 2]
    given += [group[0] for group in words if not group[0].startswith("-")]
    return modes.named(given[0]) if given else None


def _command(typer: Any, take: Callable[..., None]) -> Callable[..., None]:
    """The function that typer reads the options from, made of the table of them."""

    def avsimage(**given: Any) -> None:
        take(given)

    # Values are lists so that an option given twice is seen and refused, not silently the last.
    several, keyword = Optional[list[str]], inspect.Parameter.KEYWORD_ONLY
    found = [inspect.Parameter("image", keyword, default=typer.Argument(None), annotation=several)]
    for name, option in OPTIONS.items():
        default, kind = (None, several) if option.value else (False, bool)
        found.append(inspect.Parameter(name, keyword, default=typer.Option(default, *option.flags), annotation=kind))
    avsimage.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
    avsimage.__annotations__ = {item.name: item.annotation for item in found}
    return avsimage


def to_request(parsed: Mapping[str, Any]) -> Request:
    """The request, each value given at most once. Raises UsageError."""
    osvers, osarch = modes.classic(parsed["osvers"] or [], parsed["osarch"] or [])
    given = placed({**parsed, "osvers": osvers, "osarch": osarch})
    values: dict[str, Any] = {"command": tuple(given.pop("command", ()))}
    for name, value in given.items():
        if value is None or isinstance(value, bool):
            values[name] = value or getattr(Request, name)
            continue
        if len(value) > 1 and name == "argument":
            raise UsageError(modes.unexpected(*value))
        if len(value) > 1:
            raise UsageError(f"{_flag(name)} is given {len(value)} times")
        values[name] = _checked(name, value[0]) if value else ""
    return Request(**values)


def _checked(name: str, value: str) -> str:
    """The value of a field as text. Raises UsageError for what is none."""
    path = name == "argument" or (name in OPTIONS and OPTIONS[name].path)
    if not value.strip():
        raise UsageError(f"an empty value for {_flag(name)}")
    value = value if path else terminal.typed(value, getattr(sys.stderr, "encoding", None))
    if not is_text(value.translate(AS_BYTES) if path else value):
        raise UsageError(f"the value of {_flag(name)} is not UTF-8 text or holds control characters: {value!a}")
    return masked(value) if name == "message" else value  # it is stored, and other programs are given it


def _flag(name: str) -> str:
    """How the user calls a field of Request."""
    return OPTIONS[name].flags[0] if name in OPTIONS else name.upper()


def _answer(answer: Union[str, bytes]) -> None:
    try:
        stream: Any = sys.stdout.buffer if isinstance(answer, bytes) else sys.stdout
        stream.write(answer)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except io.UnsupportedOperation:
        raise AvsError("the standard output is closed, and the answer goes there") from None
    except OSError as err:
        _drop_stdout()
        reason = "the disk is full" if err.errno == errno.ENOSPC else err.strerror
        raise AvsError(f"cannot write the answer to the standard output: {reason}") from None


def _run(argv: Sequence[str], call: Call) -> int:
    if not argv:
        _answer(modes.first_words())
        return 0
    call.mode = mode_of(argv)
    request = call.request = to_request(parse(argv))
    if request.version:
        _answer(f"avsimage - Version {__version__}\n")
        return 0
    if request.help:
        _answer(modes.usage(modes.named(request.mode)))
        return 0
    call.mode = None
    if not request.mode:
        raise UsageError("no mode; say what to do with -c MODE")
    mode = call.mode = modes.find(request.mode)
    ignored = modes.refuse_unfit(request, mode)
    if mode.private and os.geteuid() != 0:
        raise SetupError(f"{mode.name} must run as root: it mounts, and makes files of every owner; use sudo")
    progress = call.progress = Progress(sys.stderr, request.verbose)
    for text in ignored:
        progress.warn(text)
    progress.open(mode.name, at_once=mode.private)
    site = mode.open(request, progress)
    if mode.private:
        code = mounts.enter_private_namespace()
        if code is not None:
            return code
    result = mode.run(request, site)
    progress.close()
    _answer(report.to_json(result) if request.json else report.to_output(result, _place(request)))
    return result.code


def _place(request: Request) -> report.Place:
    """Where the answer goes. In a pipe nothing is cut."""
    isatty = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if isatty else 0
    return report.Place(isatty, columns, request.wide)


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


def run(argv: Sequence[str]) -> int:
    """Do what a command line asks; returns the exit code: 0, 1, or 128+n after signal n."""
    os.umask(0o022)
    _open_streams()
    if argv[:1] == ["--complete"]:  # by the scripts that complete words in a shell; no option of the user's
        from xcat_avs.modes import completion

        return completion.respond(argv[1:], _answer)
    call = Call(Request(json=["--json"] in grouped(completed(argv))))
    try:
        interrupts.follow()
        suspend.follow_terminal()
        return _reported(argv, call)
    except Interrupted as err:
        text = f"interrupted by {signal.Signals(err.signum).name}; nothing unfinished was committed or published"
        sys.stderr.write("\n")
        _failed(AvsError(f"{text}{f'; {err.following}' if err.following else ''}"), call)
        return 128 + err.signum


def _reported(argv: Sequence[str], call: Call) -> int:
    """Do it, and say what went wrong."""
    try:
        return _run(argv, call)
    except AvsError as err:
        return _failed(err, call)
    except BrokenPipeError:
        _drop_stdout()
        return 128 + signal.SIGPIPE
    except OSError as err:
        what = "the disk is full" if err.errno == errno.ENOSPC else err.strerror or str(err)
        kind = SetupError if isinstance(err, PermissionError) else AvsError
        return _failed(kind(f"{what}{f': {err.filename}' if err.filename else ''}"), call)
    except (MemoryError, ImportError, SystemError):
        raise  # no defect: __main__ has words for them
    except Exception as err:
        if NO_THREAD in str(err):
            raise MemoryError(NO_THREAD) from None
        sys.stderr.write(printable_lines(traceback.format_exc()))
        return _failed(AvsError("this is a defect of avsimage; please report it with the lines above"), call)


def _failed(err: AvsError, call: Call) -> int:
    """Say what went wrong, and on stdout what was done before, or what can be asked; with --json all in one document."""
    done: Report = getattr(err, "report", Report())
    if os.geteuid() != 0 and DENIED in err.text and "sudo" not in err.text:
        err.text += "; only root, or its owner, may do that: use sudo"
    document = _document(err, call)
    if call.progress:
        call.progress.close()
    try:
        if call.request.json:
            _answer(report.to_json(Report(document={**done.document, **document})))
        elif done.blocks:
            _answer(report.to_text(done, _place(call.request)) + "\n")
    except BrokenPipeError:
        _drop_stdout()
    except AvsError:
        pass  # nobody hears it there; the first error is the one to tell
    look = f"; see {document['next']}" if isinstance(err, UsageError) and not err.next else ""
    check = modes.look_at_all(err, call.mode, call.request)
    sys.stderr.write(f"Error: {err}{look}\n" + (f"  `{check}` looks at all that is needed\n" if check else ""))
    return err.exit_code


def _document(err: AvsError, call: Call) -> dict[str, str]:
    """An error for programs."""
    following = err.next or modes.look_at_all(err, call.mode, call.request)
    if isinstance(err, UsageError) and not following:
        following = f"avsimage -c {call.mode.name} -h" if call.mode else "avsimage -h"
    image = call.request.image or call.request.profile
    return {"error": "\n".join([err.text, *err.tail]), "image": image, "log": err.log or "", "next": following}


def main() -> None:
    """The command `avsimage`."""
    code = run(sys.argv[1:])
    for number in interrupts.SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # all is done and said
    sys.stdout.flush()
    sys.exit(code)
