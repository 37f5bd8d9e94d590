"""A tree in which anything may be changed, while the one that it shows stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xcat_avs.system import mounts
from xcat_avs.system.runner import Runner
from xcat_avs.tree import delta
from xcat_avs.tree.manifest import Entry, Manifest


@contextmanager
def copy(tree: Path, found: Manifest, work: Path, runner: Runner, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield an overlay of the tree; a real copy where an overlay would hide something. What is changed in it goes with work.

    found: its manifest. work: a private directory, not there yet, which the caller removes. say: takes what is unusual.
    """
    hidden = [path for path, entry in found.items() if _hidden_by_overlay(entry)]
    if not hidden:
        with mounts.overlay(tree, work / "overlay") as view:
            yield view
        return
    say(f"taking a copy of the checkout: an overlay of it would hide {hidden[0]!a}")
    work.mkdir(parents=True, mode=0o700)
    target = work / "copy"
    runner.run(["cp", "-a", "--reflink=auto", "--", str(tree), str(target)])
    yield target


def _hidden_by_overlay(entry: Entry) -> bool:
    """Whether an overlay over a tree with this would not show it: the marks that overlays make themselves."""
    return (entry.type == "char" and entry.device == (0, 0)) or any(
        name.startswith(delta.OVERLAY) for name, _ in entry.xattrs
    )
