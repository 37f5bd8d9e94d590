"""What is tried in an image: commands of the user's, and those that its recipe has every build pass."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from xcat_avs.build.failure import TEST
from xcat_avs.build.job import BuildJob
from xcat_avs.build.paths import BuildPaths
from xcat_avs.build.steps import failing, showing
from xcat_avs.errors import AvsError, counted
from xcat_avs.system import command, mounts
from xcat_avs.system.chroot import chroot_mounts
from xcat_avs.system.files import write_atomic
from xcat_avs.system.progress import Progress
from xcat_avs.system.runner import capture
from xcat_avs.system.terminal import on_terminal
from xcat_avs.tree.inside import inside

SHELL = "/bin/sh"
VIEW = "rootimg"  # where the tests of a recipe see the image
NSPAWN, PIPE = "systemd-nspawn", "--pipe"
# Nothing is asked of the machine's systemd, and no file of the image is written.
OPTIONS = ("--quiet", "--register=no", "--keep-unit", "--as-pid2", "--link-journal=no", "--resolv-conf=off", "--timezone=off")  # fmt: skip


def shell(root: Path) -> str:
    """$SHELL where the image has it, else /bin/sh, "" where it has none."""
    for name in (os.environ.get("SHELL", ""), SHELL):
        if name.startswith("/") and os.access(inside(root, name, follow=True), os.X_OK):
            return name
    return ""


def enter(root: Path, what: str, argv: Sequence[str], progress: Progress, apart: bool) -> int:
    """Run a program, or a shell, in a tree that may be changed; returns its exit code, 128+n for a death by signal n.

    what: whose tree it is. apart: see command.attached.
    """
    words = [*argv] or [shell(root)]
    if not argv and not words[0]:
        raise AvsError(f"{what} has no {SHELL}, so there is no shell in it; give a command that it has, after --")
    if not argv:
        progress.say(f"{what}: a shell in a copy of it; what is changed here goes with the shell")
    env = {"HOME": "/root", "SHELL": shell(root) or SHELL}
    container = _container(root, progress)
    if container:
        # A terminal is handed on as one, and streams as they are.
        given = [*([] if on_terminal() else [PIPE]), *(f"--setenv={name}={value}" for name, value in env.items())]
        # The shell says what a container does not tell: that there is no such program, or by which signal it died.
        return _code(command.attached([*container, *given, "--", SHELL, "-c", '"$@"', SHELL, *words], {}, root, apart))
    with chroot_mounts(root):
        return _code(command.attached(["chroot", str(root), *words], env, root, apart))


def _code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _container(root: Path, progress: Progress) -> list[str]:
    """What runs a program in a tree as a container; nothing where this machine has nothing that does."""
    words = [NSPAWN, *OPTIONS, f"--directory={root}"]
    if command.find(NSPAWN) is None:
        return []
    tried = capture([*words, PIPE, "--", SHELL, "-c", ":"], check=False)
    if tried.code == 0:
        return words
    lines = [line for line in tried.stderr.splitlines() if line.strip()]
    progress.verbose(f"{NSPAWN} does not work here, so it is a chroot: {lines[-1] if lines else 'it does not say why'}")
    return []


def work(paths: BuildPaths) -> Path:
    """The directory with what the tests of a recipe have changed in their view of the image."""
    return paths.tree.with_name(TEST)


def run_tests(job: BuildJob) -> None:
    """Run the commands that the recipe has every build pass, on an overlay of its tree. Raises StepFailed.

    One that fails leaves that overlay for a look.
    """
    paths, report, commands = job.paths, job.paths.report(TEST), job.recipe.tests
    for old in (report, paths.step_log(TEST), paths.testing):
        old.unlink(missing_ok=True)
    if not commands:
        return
    log, started = paths.step_log(TEST), time.monotonic()
    runner = job.runner(log)
    with mounts.overlay(paths.root, work(paths), VIEW) as root, chroot_mounts(root):
        for number, line in enumerate(commands, 1):
            write_atomic(paths.testing, line)
            with showing(job.progress, f"{TEST}: {line}", f"{number} of {len(commands)}"), failing(TEST, line, log):
                code = runner.run(["chroot", str(root), SHELL, "-c", line], env={"HOME": "/root"}, check=False)
                if code:
                    raise AvsError(f"it {command.describe(code)}")
    mounts.remove_tree(work(paths))
    paths.testing.unlink()
    seconds = time.monotonic() - started
    report.write_text(f"{counted(len(commands), 'command')} of the recipe passed in {seconds:.0f}s\n", encoding="utf-8")
