"""What an add-on costs, against the way of avs_image_mgr: a copy of the whole image, compared with it afterwards.

    python tests/benchmarks/addons.py [--rounds N] [--json FILE] [--tree DIR] [--work DIR]

As root. Both ways make the same change (some 60 MB in 1,500 files, of which some are changed and some removed) to a
Debian image of more than 600 MB, which mmdebstrap builds once, and both are written to disk when the clock stops.
What was made is then packed, applied by avsaddons to a copy of the image, and must be what the old way has made.
The exit code says whether that is so, and whether the targets are met.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / "tests/benchmarks")]

import trees  # noqa: E402

DEFAULT_WORK = Path("/var/tmp/avs-benchmark-addons")
TIME_TARGET, DISK_TARGET = 0.2, 0.1  # parts of what the old way takes
NEW_FILES, NEW_BYTES = 1500, 60 * 2**20
CHANGED, REMOVED = 40, 25
STAMP = 1_600_000_000
# The procedure of the add-on: the change that is imported from here.
PROCEDURE = '''"""The change of the benchmark"""
from pathlib import Path
import addons as benchmark
def run(ctx):
    benchmark.change(ctx.root, Path({chosen!r}))
'''
ADDON = "change"
CHOSEN = "chosen.json"


def choose(base: Path, target: Path) -> None:
    """Write which files of the image are changed and removed: looking for them is no part of the change."""
    files = sorted(path for path in (base / "usr/share").rglob("*") if path.is_file() and not path.is_symlink())
    names = [str(path.relative_to(base)) for path in files if path.stat().st_nlink == 1]
    target.write_text(json.dumps({"changed": names[: CHANGED * 50 : 50], "removed": names[7 : REMOVED * 50 : 50]}))


def change(root: Path, chosen: Path) -> None:
    """What is done to the image, the same bytes each time: new files, some changed, some removed, one mode."""
    chance, names = random.Random(7), json.loads(chosen.read_text())
    for number in range(NEW_FILES):
        path = root / f"opt/addon/{number % 40:02d}/file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(NEW_BYTES // NEW_FILES))
        os.utime(path, (STAMP, STAMP))
    for name in names["changed"]:
        with open(root / name, "ab") as stream:
            stream.write(b"changed\n")
        os.utime(root / name, (STAMP, STAMP))
    for name in names["removed"]:
        (root / name).unlink()
    (root / "usr/bin/env").chmod(0o700)


def build(base: Path, work: Path) -> None:
    """Build the add-on as create does: with base as the image, into base/../addons. In a process of its own."""
    from xcat_avs.build.addons import run_addons
    from xcat_avs.build.job import BuildJob
    from xcat_avs.build.paths import BuildPaths
    from xcat_avs.build.plan import planned_addons
    from xcat_avs.definitions.osimage import OsImage
    from xcat_avs.generate.mmdebstrap import Mmdebstrap
    from xcat_avs.recipes.procedure import Layer, find
    from xcat_avs.recipes.recipe import ADDON_OPTIONS, Recipe, Step
    from xcat_avs.settings import Settings
    from xcat_avs.system import mounts
    from xcat_avs.system.progress import Progress

    code = mounts.enter_private_namespace()
    if code is not None:
        sys.exit(code)
    source = work / "procedures"
    source.mkdir(parents=True, exist_ok=True)
    (source / f"{ADDON}.py").write_text(PROCEDURE.format(chosen=str(work / CHOSEN)))
    found = find(ADDON, [Layer("benchmark", source, trusted=True)])
    step = Step(ADDON, found, {name: option.default for name, option in ADDON_OPTIONS.items()})
    recipe = Recipe((), Settings(), (), (step,))
    paths = BuildPaths(base.parent, work / "results", work / "logs")
    for directory in (paths.results, paths.logs):
        directory.mkdir(exist_ok=True)
    image = OsImage("debian12-x86_64-netboot-benchmark", {}, "the benchmark")

    job = BuildJob(
        image=image, recipe=recipe, generator=Mmdebstrap(), source=None, paths=paths, installdir=work / "install",
        progress=Progress(io.StringIO()),
    )  # fmt: skip
    run_addons(job, planned_addons(job, "0" * 64), [])


def pack(tree: Path, target: Path) -> None:
    """Archive the add-on as pack does; tree is disposable."""
    from xcat_avs.pack import addon_archives
    from xcat_avs.system.runner import Runner

    target.mkdir()
    addon_archives.write(
        tree, tree / "rootimg", target, {"AVS_SOURCE": "benchmark", "AVS_TAG": "t"}, Runner(target.parent / "pack.log")
    )


def worker(action: str, *arguments: str) -> None:
    """Run a function of this file in a process of its own."""
    argv = [sys.executable, str(Path(__file__).resolve()), "--worker", action, *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=trees.BUILD_SECONDS)
    if done.returncode:
        raise trees.BenchmarkError(f"{action} failed: {done.stderr[-2000:]}")


def timed(action: Callable[[], None]) -> float:
    """Seconds of an action until it is on the disk."""
    os.sync()
    start = time.monotonic()
    action()
    os.sync()
    return time.monotonic() - start


def run(*argv: str) -> None:
    trees.run(argv)


def disk(path: Path) -> int:
    """Bytes that a tree takes on the disk."""
    return int(trees.run(["du", "-s", "--block-size=1", str(path)]).split()[0])


def old_way(base: Path, work: Path) -> tuple[float, int, dict[str, float]]:
    """Copy, change, compare, take what differs: seconds, bytes on disk, and the seconds of each part."""
    copy, taken = work / "old", work / "old-changes"
    for path in (copy, taken):
        trees.remove(path)

    def compare() -> None:
        # diff -r, as it did, reads all of both; this looks at sizes and times alone, and takes less.
        listing = trees.run(["rsync", "-aHAXn", "--delete", "--out-format=%o %n", f"{copy}/", f"{base}/"])
        names = [line.partition(" ")[2] for line in listing.splitlines() if not line.startswith("del.")]
        (work / "names").write_text("\n".join(names))
        run("rsync", "-aHAX", "--no-recursive", f"--files-from={work / 'names'}", f"{copy}/", f"{taken}/")

    parts = {
        "copy": timed(lambda: run("cp", "-a", str(base), str(copy))),
        "change": timed(lambda: change(copy, work / CHOSEN)),
        "compare": timed(compare),
    }
    return sum(parts.values()), disk(copy) + disk(taken), parts


def new_way(base: Path, work: Path) -> tuple[float, int, dict[str, float]]:
    """An overlay whose upper directory becomes the add-on."""
    trees.remove(base.parent / "addons")
    seconds = timed(lambda: worker("build", str(base), str(work)))
    return seconds, disk(base.parent / "addons"), {}


def check(base: Path, work: Path) -> list[str]:
    """Pack the add-on, apply it to a copy of the base, and compare that with what the old way has made."""
    disposable, node = work / "disposable", work / "node"
    for path in (disposable, node, work / "set"):
        trees.remove(path)
    disposable.mkdir()
    trees.run(["cp", "-a", str(base.parent / "addons"), str(disposable / "addons")])
    (disposable / "rootimg").symlink_to(base)
    worker("pack", str(disposable), str(work / "set"))
    trees.run(["cp", "-a", str(base), str(node)])
    env = {**os.environ, "AVS_ADDONS_ROOT": str(node), "AVS_ADDONS_URL": f"file://{work}/set/addons"}
    script = ["sh", str(TOP / "share/xcat/avs/avsaddons"), ADDON]
    subprocess.run(script, env=env, check=True, stdout=sys.stderr, timeout=trees.LOOK_SECONDS)
    listing = trees.run(
        ["rsync", "-aHAXni", "--checksum", "--delete", "--exclude=/var/lib/avs-addons", f"{work}/old/", f"{node}/"]
    )
    # The old way gives a directory the time of the change; cpio sets none of links.
    return [line for line in listing.splitlines() if not line.startswith((".d..t...... ", ".L..t...... "))]


def table(document: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("", "OLD WAY", "ADD-ON", "RATIO", "TARGET", "")]
    for name, unit, digits in (("seconds", "s", 2), ("bytes", "MB", 1)):
        found = document[name]
        scale = 1e6 if unit == "MB" else 1
        values = [f"{found[side] / scale:.{digits}f} {unit}" for side in ("old", "new")]
        rows.append(
            (name, *values, f"{found['ratio']:.3f}", f"<= {found['target']}", "met" if found["met"] else "MISSED")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def compared(old: list[float], new: list[float], target: float) -> dict[str, Any]:
    """The medians of both sides, and how they compare."""
    one, other = statistics.median(old), statistics.median(new)
    return {
        "old": one,
        "new": other,
        "ratio": other / one,
        "target": target,
        "met": other / one <= target,
        "all": {"old": old, "new": new},
    }


def measure(options: argparse.Namespace) -> int:
    work: Path = options.work
    if os.geteuid() != 0:
        raise trees.BenchmarkError("it has to run as root")
    mark = work / ".avs-benchmark"
    if work.exists() and any(work.iterdir()) and not mark.exists():
        raise trees.BenchmarkError(
            f"{work} is there and was not made by this benchmark; name another directory with --work"
        )
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark.touch()
    source = options.tree
    if source is None:
        source = work / "reference"
        if not source.is_dir():
            print("Building an image by mmdebstrap, once", file=sys.stderr)
            trees.remove(work / "new")
            (work / "new").mkdir()
            trees._mmdebstrap(work / "new", trees.PACKAGES["reference"])
            (work / "new").rename(source)
    size = trees.check_real("the image", source, True)
    place = work / "run"
    trees.remove(place)
    try:
        base = place / "tree/rootimg"
        base.parent.mkdir(parents=True)
        trees.run(["cp", "-a", str(source / "rootimg"), str(base)])
        before = trees.size(base)
        choose(base, place / CHOSEN)
        rounds = []
        for number in range(options.rounds):
            # By turns, so that neither always finds the caches as the other one left them.
            sides = [("old", old_way), ("new", new_way)]
            rounds.append({name: way(base, place) for name, way in (sides if number % 2 == 0 else sides[::-1])})
            print(
                f"round {number + 1}: "
                + ", ".join(f"{name} {found[0]:.2f} s" for name, found in sorted(rounds[-1].items())),
                file=sys.stderr,
            )
        wrong = check(base, place)
        if trees.size(base) != before:
            wrong.append("the base image was changed")
    finally:
        trees.remove(place)
    document: dict[str, Any] = {
        "image": size, "rounds": options.rounds, "cores": os.cpu_count(), "machine": os.uname().release,
        "seconds": compared([item["old"][0] for item in rounds], [item["new"][0] for item in rounds], TIME_TARGET),
        "bytes": compared([item["old"][1] for item in rounds], [item["new"][1] for item in rounds], DISK_TARGET),
        "parts": {name: statistics.median([item["old"][2][name] for item in rounds]) for name in ("copy", "change", "compare")},
        "wrong": wrong,
    }  # fmt: skip
    print(
        f"An add-on over an image of {size['bytes'] / 1e6:.0f} MB in {size['entries']} paths, {options.rounds} rounds, medians\n"
    )
    print(table(document))
    print(
        "\nApplied by avsaddons, it is what the old way makes"
        if not wrong
        else "\n" + "\n".join(["WRONG:", *wrong[:20]])
    )
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0 if not wrong and document["seconds"]["met"] and document["bytes"]["met"] else 1


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        action = {"build": build, "pack": pack}[sys.argv[2]]
        action(*map(Path, sys.argv[3:]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times that all is measured (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE as JSON")
    parser.add_argument(
        "--tree", type=Path, metavar="DIR", help="take DIR/rootimg as the image; it is copied, and left as it is"
    )
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, metavar="DIR", help=f"where it works (default: {DEFAULT_WORK})"
    )
    parser.add_argument("--clean", action="store_true", help="remove DIR with the image, and do nothing else")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    try:
        if options.clean:
            if not (options.work / ".avs-benchmark").exists():
                raise trees.BenchmarkError(f"{options.work} was not made by this benchmark")
            trees.remove(options.work)
            return 0
        return measure(options)
    except trees.BenchmarkError as err:
        print(f"Error: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
