"""The store benchmark: the classic sequence of avs_image_mgr, avsimage and restic on the same real trees, in turns.

Run as root by hand; see the text of -h.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import trees
from sides import Avsimage, Classic, Ostree, Restic, Sample, Side, Step
from trees import TOP, BenchmarkError

DESCRIPTION = """\
Time a first commit, the commit of a rebuild and of an unchanged one, tags, a checkout, the diff of two tags and
the log: by the commands of avs_image_mgr (rsync and FSVS), by avsimage with FSVS and with OSTree, and by restic as
the limit of a store by content. All work on the same two Debian trees, in turns, and each result is checked outside the clock. Needs root,
fsvs, subversion, ostree, rsync and mmdebstrap (apt-get install fsvs subversion ostree rsync mmdebstrap); the trees are built
once, from the machine's own apt sources. A round takes ten minutes or more, and 30 GB."""
EPILOG = """\
Seconds are medians of wall time, memory is that of the largest process. The exit code is 1 if a result is wrong,
whatever the ratios are. --only takes the measurements {}
and the sides {}; what a measurement builds on is run as well."""

DEFAULT_WORK = Path("/var/tmp/avs-benchmark")
MARK = ".avs-benchmark"
SIDES: Sequence[type[Side]] = (Classic, Avsimage, Ostree, Restic)
PROGRAMS = {"fsvs": "fsvs", "svn": "subversion", "ostree": "ostree", "rsync": "rsync"}
FIRST, SECOND, AGAIN = "version-1", "version-2", "version-2-again"
MANIFEST_FILES, SMALL_FILES, SMALL_MANIFEST = 150_000, 300, 1000
REPOSITORY_TARGET = 1.3
MANIFEST_TARGET = 250 * 2**20
FORGOTTEN = 65  # seconds, see Benchmark._done()
DIGESTS = 500  # files of the manifest pass whose digest is computed again


@dataclass(frozen=True)
class Operation:
    """A row of the table. ratio, ostree: the targets of avsimage with each store against classic; seconds: one of its own.

    against: the operation of classic that it is compared with, where it has none of this name.
    """

    name: str
    title: str
    ratio: Optional[float] = None
    seconds: Optional[float] = None
    ostree: Optional[float] = None
    against: str = ""


OPERATIONS = (
    Operation("first", "first commit", ratio=0.20, ostree=0.08),
    Operation("rebuild", "commit of a rebuild", ratio=0.14, ostree=0.10),
    Operation("unchanged", "unchanged rebuild", ratio=0.06, ostree=0.06),
    Operation("tag", "tag", seconds=0.4),
    Operation("checkout", "checkout of a tag", ratio=0.40, ostree=0.20),
    Operation("built", "tree of the tag just built", ratio=0.08, ostree=0.08, against="checkout"),
    Operation("neighbour", "tree of a neighbouring tag", ratio=0.25, ostree=0.12, against="checkout"),
    Operation("diff", "diff of two tags", ratio=0.03, ostree=0.03),
    Operation("log", "log"),
)
KEPT = ("built", "neighbour")  # the rows of a tree that is kept from one pack to the next
MANIFEST = "manifest"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Benchmark:
    """One run: where it works, what it has measured."""

    def __init__(self, work: Path, sides: Sequence[type[Side]], chosen: Sequence[str], small: bool) -> None:
        self.run, self.trash, self.small, self.count = work / "run", work / "run/trash", small, 0
        self.sides = [side(self.run / side.name) for side in sides]
        self.chosen = chosen
        self.sources: dict[str, Path] = {}
        self.samples: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.wrong: list[str] = []
        self.difference = trees.Difference()

    # -- a round

    def round(self, number: int) -> None:
        """Every operation once by every side, one side after the other, in another order each time."""
        self._empty()
        for side in self.sides:
            side.directory.mkdir(parents=True)
            side.begin()
        order = self.sides if number % 2 == 0 else self.sides[::-1]
        handlers = {"first": self._first, "rebuild": self._rebuild, "unchanged": self._unchanged,
                    "checkout": self._checkout, "diff": self._diff, "log": self._log}  # fmt: skip
        needed = {"first"} if set(self.chosen) <= {"first", MANIFEST} else {"first", "rebuild", *self.chosen}
        needed |= {"checkout"} if needed & {*KEPT} and Classic in map(type, self.sides) else set()
        for name, handler in handlers.items():
            for side in order if name in needed else ():
                handler(side)

    def _empty(self) -> None:
        """Remove what the round before has left, and wait until that is forgotten: see _done()."""
        before = [path for path in (self.trash, *(side.directory for side in self.sides)) if path.exists()]
        for path in before:
            trees.remove(path)
        self.trash.mkdir(parents=True)
        os.sync()
        if before and not self.small:
            time.sleep(FORGOTTEN)

    def _done(self, path: Path) -> None:
        """Take a tree out of the way until the round is over.

        ext4 does not give out an inode again for a minute after it was freed, and makes files many times slower
        meanwhile: whoever is measured after the removal of a tree would pay for it.
        """
        if path.exists():
            self.count += 1
            path.rename(self.trash / str(self.count))

    def _measure(self, name: str, side: Side, steps: Optional[Sequence[Step]]) -> Optional[Sample]:
        """Run the steps on the clock, once nothing is left to be written from before."""
        if steps is None:
            return None
        os.sync()
        sample = side.measure(steps)
        say(f"  {name:<10} {side.name:<9} {sample.seconds:8.2f} s")
        return sample

    def _keep(self, name: str, side: Side, sample: Sample, problems: Sequence[str], known: Any = None) -> None:
        """Keep a sample with the outcome of its check."""
        for problem in problems[:10]:
            say(f"  WRONG: {name} by {side.name}: {problem}")
        self.wrong += [f"{name} by {side.name}: {problem}" for problem in problems]
        record = {
            "seconds": round(sample.seconds, 4),
            "peak_bytes": sample.peak,
            "parts": {part: round(seconds, 4) for part, seconds in sample.parts.items()},
            "repository_bytes": trees.disk_bytes(side.repository),
            "checked": not problems,
            "losses": dict(known or {}),
        }
        self.samples.setdefault(name, {}).setdefault(side.name, []).append(record)

    # -- the operations

    def _first(self, side: Side) -> None:
        self._commit("first", FIRST, side, self.sources["reference"])
        self._done(side.tree)
        self._tag(FIRST, side)

    def _rebuild(self, side: Side) -> None:
        self._commit("rebuild", SECOND, side, self.sources["rebuild"], before=self.sources["reference"])
        self._tag(SECOND, side)
        versions = {"built": (SECOND, "rebuild"), "neighbour": (FIRST, "reference")}
        for name in KEPT if set(self.chosen) & {*KEPT} else ():
            label, source = versions[name]
            sample = self._measure(name, side, side.pack_tree(label))
            if sample is not None:
                found = trees.compare(self.sources[source], side.packed, side.lost, self.sources["reference"])
                self._keep(name, side, sample, found.wrong, found.known)
        self._done(side.tree)
        self._done(side.packed)

    def _unchanged(self, side: Side) -> None:
        self._commit("unchanged", AGAIN, side, self.sources["rebuild"], before=self.sources["reference"])
        self._done(side.tree)

    def _commit(self, name: str, label: str, side: Side, source: Path, before: Optional[Path] = None) -> None:
        """Commit a fresh copy of source, in the state that a build would leave it in. before: the version before it."""
        self._done(side.tree)
        trees.copy(source, side.tree)
        unchanged = name == "unchanged"
        if unchanged and not trees.age(side.tree):
            raise BenchmarkError(f"nothing in {source} is as young as its build")
        revision = side.revision()
        sample = self._measure(name, side, side.commit(label))
        assert sample is not None
        raised = side.revision() - revision
        problems = []
        if unchanged and side.by_contents and raised:
            problems.append(f"{raised} new revisions, and nothing had changed")
        elif not (unchanged and side.by_contents) and raised < 1:
            problems.append("no new revision")
        expected = source if side.by_contents else side.tree
        with self._directory(side, "export") as target:
            side.export(target)
            found = trees.compare(expected, target, side.known, before)
        self._keep(name, side, sample, problems + found.wrong, found.known)
        for copy in side.directory.glob("wc.*"):
            self._done(copy)

    def _tag(self, label: str, side: Side) -> None:
        sample = self._measure("tag", side, side.tag(label))
        if sample is not None:
            self._keep("tag", side, sample, [] if side.tagged(label) else [f"no whole tag {label}"])

    def _checkout(self, side: Side) -> None:
        with self._directory(side, "checkout") as target:
            sample = self._measure("checkout", side, side.checkout(SECOND, target))
            assert sample is not None
            found = trees.compare(self.sources["rebuild"], target, side.lost, self.sources["reference"])
            self._keep("checkout", side, sample, found.wrong, found.known)

    def _diff(self, side: Side) -> None:
        with self._directory(side, "diff") as target:
            sample = self._measure("diff", side, side.diff(FIRST, SECOND, target))
            assert sample is not None
            text = side.diff_text(FIRST, SECOND, sample)
        # `fsvs diff` shows the files of other contents, and only some of what is new or gone.
        paths = self.difference.changed if side.name == "classic" else self.difference.paths()
        self._keep("diff", side, sample, [f"{path} is not in the diff" for path in paths if path not in text])

    def _log(self, side: Side) -> None:
        sample = self._measure("log", side, side.log())
        assert sample is not None
        absent = [label for label in (FIRST, SECOND) if label not in sample.output]
        self._keep("log", side, sample, [f"{label} is not in the log" for label in absent])

    @contextmanager
    def _directory(self, side: Side, name: str) -> Iterator[Path]:
        """An empty directory that is gone afterwards."""
        directory = side.directory / name
        self._done(directory)
        directory.mkdir()
        try:
            yield directory
        finally:
            self._done(directory)

    # -- the manifest pass

    def manifest(self, rounds: int, files: int) -> dict[str, Any]:
        """Seconds and memory of scan and dump on many small files."""
        tree, text = self.run / "many", self.run / "many.manifest"
        trees.many(tree, files)
        side = Avsimage(self.run / "manifest")
        side.directory.mkdir(parents=True)
        samples = []
        for _ in range(rounds):
            sample = self._measure(MANIFEST, side, side.worker("manifest", str(tree), str(text)))
            assert sample is not None
            samples.append(sample)
        problems = _check_manifest(tree, text, files)
        self.wrong += [f"manifest: {problem}" for problem in problems]
        peak = max(sample.peak for sample in samples)
        return {
            "files": files,
            "seconds": statistics.median(sample.seconds for sample in samples),
            "samples": [round(sample.seconds, 4) for sample in samples],
            "peak_bytes": peak,
            "target_peak_bytes": MANIFEST_TARGET,
            "met": peak <= MANIFEST_TARGET,
            "checked": not problems,
        }


def _check_manifest(tree: Path, text: Path, files: int) -> list[str]:
    """That a manifest has every file, and the right digests for some."""
    wanted = {str(path.relative_to(tree)) for path in _picked(tree, files)}
    count = 0
    found = {}
    with open(text, encoding="ascii") as stream:
        for line in stream:
            count += " type=file " in line
            name = line.split(" ", 1)[0][2:]
            if name in wanted:
                found[name] = line.rsplit("sha256digest=", 1)[-1].split()[0]
    problems = [] if count == files else [f"{count} of {files} files"]
    for name in sorted(wanted):
        if found.get(name) != hashlib.sha256((tree / name).read_bytes()).hexdigest():
            problems.append(f"wrong digest of {name}")
    return problems


def _picked(tree: Path, files: int) -> list[Path]:
    numbers = random.Random(2).sample(range(files), min(files, DIGESTS))
    return [tree / f"usr/share/doc{number // 2000}/package{number // 40}/file{number}.txt" for number in numbers]


# -- results


def summary(bench: Benchmark) -> dict[str, Any]:
    """Medians, samples and ratios of every operation."""
    found: dict[str, Any] = {}
    for operation in OPERATIONS:
        if operation.name not in bench.chosen:
            continue
        record: dict[str, Any] = {"title": operation.title, "target_ratio": operation.ratio,
                                  "target_seconds": operation.seconds, "ratio": None, "met": None, "sides": {},
                                  "ostree_target_ratio": operation.ostree, "ostree_ratio": None, "ostree_met": None}  # fmt: skip
        for name, samples in bench.samples.get(operation.name, {}).items():
            record["sides"][name] = {
                "seconds": statistics.median(item["seconds"] for item in samples),
                "peak_bytes": max(item["peak_bytes"] for item in samples),
                "repository_bytes": samples[-1]["repository_bytes"],
                "checked": all(item["checked"] for item in samples),
                "losses": samples[-1]["losses"],
                "samples": samples,
            }
        sides = record["sides"]
        classic = bench.samples.get(operation.against or operation.name, {}).get("classic", [])
        limit = statistics.median(item["seconds"] for item in classic) if classic else 0.0
        if classic and "avsimage" in sides:
            record["ratio"] = round(sides["avsimage"]["seconds"] / limit, 4)
            both = zip(sides["avsimage"]["samples"], classic)
            record["ratios"] = [round(one["seconds"] / other["seconds"], 4) for one, other in both]
            if operation.ratio is not None:
                record["met"] = record["ratio"] <= operation.ratio
        if classic and "ostree" in sides:
            record["ostree_ratio"] = round(sides["ostree"]["seconds"] / limit, 4)
            if operation.ostree is not None:
                record["ostree_met"] = record["ostree_ratio"] <= operation.ostree
        if operation.seconds is not None and "avsimage" in sides:
            record["met"] = sides["avsimage"]["seconds"] <= operation.seconds
        found[operation.name] = record
    return found


def repositories(bench: Benchmark) -> dict[str, Any]:
    """What the repositories take at the end of a round."""
    sizes = {side.name: trees.disk_bytes(side.repository) for side in bench.sides if side.repository.exists()}
    found: dict[str, Any] = {"bytes": sizes, "target_ratio": REPOSITORY_TARGET, "ratio": None, "met": None}
    if sizes.get("classic") and "avsimage" in sizes:
        found["ratio"] = round(sizes["avsimage"] / sizes["classic"], 4)
        found["met"] = found["ratio"] <= REPOSITORY_TARGET
    return found


def versions(sides: Sequence[Side]) -> dict[str, str]:
    """Of the programs that were compared."""
    found = {
        "python": sys.version.split()[0],
        "fsvs": trees.run(["fsvs", "-V"]).splitlines()[0].rsplit("version ", 1)[-1].removeprefix("fsvs-"),
        "svn": trees.run(["svn", "--version", "-q"]).strip(),
        "ostree": trees.run(["ostree", "--version"]).split("'")[1],
        "rsync": trees.run(["rsync", "--version"]).split()[2],
    }
    if any(side.name == "restic" for side in sides):
        found["restic"] = trees.run(["restic", "version"]).split()[1]
    return found


def _seconds(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.2f}"


def _megabytes(value: Optional[float]) -> str:
    return "-" if value is None else f"{value / 2**20:.0f}"


def _met(value: Optional[bool]) -> str:
    return {None: "-", True: "yes", False: "NO"}[value]


def table(document: dict[str, Any]) -> str:
    """The results for people."""
    from xcat_avs.report import LEFT, RIGHT, Table, render

    headers = ("OPERATION", "CLASSIC s", "AVSIMAGE s", "RATIO", "TARGET", "MET", "OSTREE s", "RATIO", "TARGET", "MET",
               "RESTIC s", "PEAK MiB", "CLASSIC MiB", "AVSIMAGE MiB", "OSTREE MiB", "RESTIC MiB")  # fmt: skip
    rows = []
    for record in document["operations"].values():
        sides = record["sides"]
        target = "-"
        if record["target_ratio"] is not None:
            target = f"<= {record['target_ratio']:.2f}"
        elif record["target_seconds"] is not None:
            target = f"<= {record['target_seconds']:g} s"
        present = [sides.get(side.name, {}) for side in SIDES]
        classic, avsimage, ostree, restic = (_seconds(side.get("seconds")) for side in present)
        sizes = [_megabytes(side.get("repository_bytes")) for side in present]
        other = "-" if record["ostree_target_ratio"] is None else f"<= {record['ostree_target_ratio']:.2f}"
        rows.append([record["title"], classic, avsimage, _seconds(record["ratio"]), target, _met(record["met"]),
                     ostree, _seconds(record["ostree_ratio"]), other, _met(record["ostree_met"]),
                     restic, _megabytes(present[1].get("peak_bytes")), *sizes])  # fmt: skip
    kept = document["repository"]
    if kept["bytes"]:
        sizes = [_megabytes(kept["bytes"].get(side.name)) for side in SIDES]
        rows.append(["repository", "-", "-", _seconds(kept["ratio"]), f"<= {kept['target_ratio']:.2f}",
                     _met(kept["met"]), *["-"] * 6, *sizes])  # fmt: skip
    scan = document["manifest"]
    if scan:
        rows.append([f"manifest of {scan['files']} files", "-", _seconds(scan["seconds"]), "-",
                     f"<= {_megabytes(scan['target_peak_bytes'])} MiB", _met(scan["met"]), *["-"] * 5, _megabytes(scan["peak_bytes"]),
                     *["-"] * 4])  # fmt: skip
    return render(Table(headers, rows, [LEFT, *[RIGHT] * 15], rule=True))


# -- the run


def arguments() -> argparse.Namespace:
    names = [item.name for item in OPERATIONS] + [MANIFEST]
    sides = [side.name for side in SIDES]
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG.format(", ".join(names), ", ".join(sides)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="times that all is measured (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE as JSON")
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_WORK, metavar="DIR", help=f"where it works (default: {DEFAULT_WORK})"
    )
    parser.add_argument("--reference", type=Path, metavar="DIR", help="take DIR/rootimg as the reference tree")
    parser.add_argument("--rebuild", type=Path, metavar="DIR", help="take DIR/rootimg as its rebuild")
    parser.add_argument(
        "--small", action="store_true", help="a few hundred generated files, to try the benchmark itself"
    )
    parser.add_argument("--only", default="", metavar="NAME,...", help="only these measurements, by these sides")
    parser.add_argument("--keep", action="store_true", help="leave the repositories of the last round in DIR/run")
    parser.add_argument("--clean", action="store_true", help="remove DIR with the trees, and do nothing else")
    options = parser.parse_args()
    options.names = [name for name in options.only.split(",") if name]
    unknown = set(options.names) - {*names, *sides}
    if unknown:
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join([*names, *sides])}")
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if (options.reference is None) != (options.rebuild is None):
        parser.error("--reference and --rebuild go together")
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no directory for {options.json}")
    options.chosen = [name for name in names if name in options.names] or names
    options.sides = [side for side in SIDES if side.name in options.names] or list(SIDES)
    return options


@contextmanager
def work_directory(work: Path, keep: bool) -> Iterator[None]:
    """The marked work directory, for one run at a time; what the run makes in it is gone afterwards."""
    if work.exists() and any(work.iterdir()) and not (work / MARK).exists():
        raise BenchmarkError(f"{work} is there and was not made by this benchmark; name another directory with --work")
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(work / MARK, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchmarkError(f"another benchmark runs in {work}") from None
        trees.remove(work / "run")
        try:
            yield
        finally:
            if not keep:
                trees.remove(work / "run")


def clean(work: Path) -> None:
    if not (work / MARK).exists():
        raise BenchmarkError(f"{work} was not made by this benchmark")
    trees.remove(work)
    say(f"Removed {work}")


def prepare(options: argparse.Namespace, bench: Benchmark) -> dict[str, Any]:
    """Have both trees; returns what they are."""
    work: Path = options.work
    if options.small:
        trees.generate(work / "run/trees", SMALL_FILES)
        bench.sources = {name: work / "run/trees" / name for name in trees.PACKAGES}
    elif options.reference is not None:
        bench.sources = {"reference": options.reference.absolute(), "rebuild": options.rebuild.absolute()}
    else:
        bench.sources = trees.build(work)
    found: dict[str, Any] = {
        name: trees.check_real(name, tree, not options.small) for name, tree in bench.sources.items()
    }
    bench.difference = trees.difference(bench.sources["reference"], bench.sources["rebuild"])
    counts = {name: len(paths) for name, paths in vars(bench.difference).items()}
    if not all(counts.values()):
        raise BenchmarkError(f"the rebuild does not differ as it should: {counts}")
    return {**found, "difference": counts}


def measure(options: argparse.Namespace) -> int:
    """All of it. Returns the exit code."""
    sides = options.sides
    if Restic in sides and shutil.which("restic") is None:
        say("restic is not installed; going on without it (apt-get install restic)")
        sides = [side for side in sides if side is not Restic]
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            raise BenchmarkError(f"{program} is not installed; apt-get install {package}")
    started = time.time()
    with work_directory(options.work, options.keep):
        bench = Benchmark(options.work, sides, options.chosen, options.small)
        document: dict[str, Any] = {
            "small": options.small,
            "rounds": options.rounds,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "cores": os.cpu_count(),
            "versions": versions(bench.sides),
        }
        scan_only = options.chosen == [MANIFEST]
        document["trees"] = {} if scan_only else prepare(options, bench)
        for number in range(0 if scan_only else options.rounds):
            say(f"Round {number + 1} of {options.rounds}")
            bench.round(number)
        document["operations"] = summary(bench)
        document["repository"] = repositories(bench)
        document["manifest"] = {}
        if MANIFEST in options.chosen:
            document["manifest"] = bench.manifest(options.rounds, SMALL_MANIFEST if options.small else MANIFEST_FILES)
    document["wrong"] = bench.wrong
    document["seconds"] = round(time.time() - started, 1)
    # A process begins with the size of the one that started it: no peak below this one can be seen.
    document["benchmark_peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(table(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for line in bench.wrong[:20]:
        say(f"Error: {line}")
    return 1 if bench.wrong else 0


def _ended(signum: int, _frame: Optional[FrameType]) -> None:
    signal.signal(signum, signal.SIG_IGN)  # cleaning up is not interrupted
    raise SystemExit(128 + signum)


def main() -> int:
    sys.path.insert(0, str(TOP))
    options = arguments()
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, _ended)
    if os.geteuid() != 0:
        say("Error: the benchmark makes files of every owner and must run as root")
        return 1
    try:
        options.work = options.work.absolute()
        if options.clean:
            clean(options.work)
            return 0
        return measure(options)
    except BenchmarkError as err:
        say(f"Error: {err}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
