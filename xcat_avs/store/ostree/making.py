"""Make an OSTree repository."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.errors import AvsError, CommandError
from xcat_avs.store.ostree import ground
from xcat_avs.system import command
from xcat_avs.system.runner import Runner
from xcat_avs.system.scratch import made_whole

BARE, ARCHIVE = "bare", "archive"


def make(path: Path, what: str, settings: Sequence[tuple[str, str]], runner: Runner, mode: str = BARE) -> None:
    """Make a repository, of which nobody sees half.

    what: how it is called in an error. settings: key and value of its configuration.
    """
    command.need("ostree")
    cannot = f"cannot make {what}: "
    try:
        with made_whole(path, "config") as temporary:
            why = ground.unfit(temporary) if mode == BARE else ""
            if why:
                raise AvsError(f"{cannot}{path.parent}: {why}")
            runner.capture(["ostree", "init", f"--repo={temporary}", f"--mode={mode}"])
            for key, value in settings:
                runner.capture(["ostree", "config", f"--repo={temporary}", "set", key, value])
            if mode == ARCHIVE:  # whose empty directory says who may read it
                status = path.stat()
                os.chown(temporary, status.st_uid, status.st_gid)
                temporary.chmod(stat.S_IMODE(status.st_mode))
    except OSError as err:
        raise AvsError(f"{cannot}{err.filename or path}: {err.strerror}") from None
    except CommandError as err:
        raise err.prefixed(cannot) from None
