"""The definition after a build: genimage writes into it."""

from __future__ import annotations

from xcat_avs.definitions.osimage import OsImage
from xcat_avs.definitions.protocol import Definitions
from xcat_avs.errors import AvsError
from xcat_avs.system.progress import Progress

# Seconds for reading the definition again: at the end of a build, and of one that was interrupted.
READ_BACK, READ_BACK_INTERRUPTED = 20.0, 5.0
OPTIONS = frozenset({"kernelver", "netdrivers", "nodebootif"})  # what settings have genimage write


def written_back(image: OsImage, definitions: Definitions, progress: Progress, interrupted: bool) -> OsImage:
    """The definition as genimage left it; where xCAT does not tell, as it was read at the start.

    interrupted: nobody is kept waiting for xcatd, which may hang.
    """
    problem = ""
    # xcatd may have gone away meanwhile; its tables have not.
    for bypass in (True,) if interrupted else (False, True):
        try:
            definitions.reload(READ_BACK_INTERRUPTED if interrupted else READ_BACK, bypass)
            break
        except AvsError as err:
            problem = problem or err.text
    else:
        progress.warn(
            f"{image.name}: its definition cannot be read again, what was read at the start counts: {problem}"
        )
        return image
    if problem:
        progress.warn(f"{image.name}: its definition was read without xcatd: {problem}")
    return definitions.osimages().get(image.name, image)


def changes(image: OsImage, after: OsImage, progress: Progress) -> list[str]:
    """What a build changed in its definition; a warning where a value that stood there is another one now."""
    old, new = image.attributes, after.attributes
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    for key in changed:
        if old.get(key) and key not in OPTIONS:
            progress.warn(
                f"{image.name}: {key} was {old[key]!r} when the build began, and is {new.get(key, '')!r} now: genimage writes back what "
                f"it has read, also over what chdef has set meanwhile; set what is meant with `chdef -t osimage {image.name} {key}=VALUE`"
            )
    return [f"{key}: {old.get(key, '')!r} -> {new.get(key, '')!r}" for key in changed]
