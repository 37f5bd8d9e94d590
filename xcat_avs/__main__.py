"""`python3 -m xcat_avs`, and the command `avsimage`: what has to be settled before anything else is loaded."""

from __future__ import annotations

import os
import signal
import sys

SPARE = 1 << 20  # bytes, given back where memory ends: the words of the error need some

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is begun yet: Ctrl-C just ends it, without a traceback


def main() -> None:
    """The command `avsimage`."""
    spare = [bytearray(SPARE)]
    try:
        _take_bytes_as_they_are()
        from xcat_avs.cli import main as run

        run()
    except ModuleNotFoundError as err:
        sys.exit(f"Error: the Python module {err.name} is missing for {sys.executable}; install avsimage anew")
    except OSError as err:
        sys.exit(f"Error: avsimage cannot be started: {err}")
    except (ImportError, MemoryError, SystemError) as err:  # what Python does without memory
        spare.clear()
        sys.exit(f"Error: there is not enough memory; is it limited (ulimit -v)? {err or ''}".rstrip())


def _take_bytes_as_they_are() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding.

    Names in an image are bytes, and which they are may not depend on who looks: in ISO-8859-1 each would be another
    text. What goes to the terminal keeps the encoding that the locale has.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    if sys.stderr is not None and "PYTHONIOENCODING" not in os.environ:
        os.environ["PYTHONIOENCODING"] = f"{sys.stderr.encoding}:backslashreplace"
    program = ["-m", "xcat_avs"] if __name__ == "__main__" else [sys.argv[0]]
    flags = ["-I"] if sys.flags.isolated else []
    os.execv(sys.executable, [sys.executable, *flags, "-X", "utf8", *program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
