"""The mirror of a repository that a web server hands out: of mode archive, for by http ostree pulls from no other."""

from __future__ import annotations

from pathlib import Path

from xcat_avs.errors import AvsError
from xcat_avs.store.ostree.making import ARCHIVE, make
from xcat_avs.store.ostree.repository import OWN, Repository
from xcat_avs.system.runner import Runner

KEY = "mirror"  # of our section of the repository's configuration: the directory
OURS = "netboot/"
# zlib's fastest: half the time of its default, and some percent larger.
SETTINGS = (("archive.zlib-level", "1"), ("core.min-free-space-percent", "0"))


def named(source: Repository) -> str:
    """The directory of the mirror; "" where the repository has none."""
    return source.config().get(OWN, KEY, fallback="")


def update(source: Repository, runner: Runner) -> None:
    """Bring the mirror, where the configuration names one, to what the repository holds.

    What is stored is stored: where this fails there is a warning, and the next time brings what is missing.
    """
    path = named(source)
    if not path or KEY in source.cache:  # it has failed in this run
        return
    try:
        _bring(source, _mirror(path, runner), runner)
    except (AvsError, OSError) as err:
        why = f"{err.filename}: {err.strerror}" if isinstance(err, OSError) else str(err)
        source.cache[KEY] = path
        if runner.progress:
            runner.progress.warn(f"what is stored is not in the mirror {path} of {source.url} yet, so other machines do not see it: {why}. "
                                 "The next create, tag or prune brings it there")  # fmt: skip


def _mirror(text: str, runner: Runner) -> Repository:
    """The mirror, which is made where it is not there. Raises AvsError for one that cannot be it."""
    found = Repository(Path(text), modes=("archive", "archive-z2"))
    if not found.path.is_absolute():
        raise AvsError("it has to be an absolute path")
    if not found.path.is_dir():  # whoever may enter it reads password hashes
        raise AvsError(
            f"there is no such directory; `install -d -m 750 -g www-data {found.path}` makes one that the group of a web server may enter"
        )
    if found.absent():
        make(found.path, f"the mirror {found.path}", SETTINGS, runner, ARCHIVE)
    found.config()
    return found


def _bring(source: Repository, mirror: Repository, runner: Runner) -> None:
    def ostree(*words: str) -> None:
        runner.capture(["ostree", words[0], f"--repo={mirror.path}", *words[1:]])

    wanted = {name: sum for name, sum in source.all_refs() if name.startswith(OURS)}
    there = {name: sum for name, sum in mirror.all_refs() if name.startswith(OURS)}
    new = [name for name, sum in wanted.items() if there.get(name) != sum]
    gone = there.keys() - wanted.keys()
    if new:
        ostree("pull-local", str(source.path), *new)
    for name in gone:
        mirror.drop_ref(name)
    if new or gone or not (mirror.path / "summary").exists():
        ostree("summary", "--update")
    if gone:
        ostree("prune", "--refs-only", "--depth=0")
