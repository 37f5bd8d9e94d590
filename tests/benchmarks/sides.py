"""The stores that the benchmark compares: what each runs for an operation, and how its result is looked at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Optional

from trees import TOP, WORKER, BenchmarkError, run

STEP_SECONDS = 1800  # no step takes longer; it is ended
OSVERS, ARCH, PROFILE = "debian12", "x86_64", "benchmark.prod"
IMAGE = f"{OSVERS}-{ARCH}-netboot-{PROFILE}"
PLACE = f"netboot/{OSVERS}/{ARCH}/{PROFILE}"
AUTHOR = "benchmark"
# What FSVS drops, by the kinds of trees.compare().
FSVS_LOSSES = ("xattrs", "ACLs", "hard links", "FIFOs and sockets")


@dataclass(frozen=True)
class Step:
    """One command. part: its name in the JSON."""

    part: str
    argv: Sequence[str]
    cwd: Path
    stdin: str = ""


@dataclass
class Sample:
    """One measured operation. seconds: wall. peak: bytes of memory of its largest process."""

    seconds: float = 0.0
    peak: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    output: str = ""  # what the last step printed


@dataclass
class Side:
    """A store below directory, which the benchmark empties before a round."""

    directory: Path
    name: ClassVar[str] = ""
    known: ClassVar[Sequence[str]] = ()  # losses that are expected of its exports
    lost: ClassVar[Sequence[str]] = ()  # and of its checkouts
    by_contents: ClassVar[bool] = True  # no revision where only times are others

    @property
    def repository(self) -> Path:
        return self.directory / "repo"

    @property
    def tree(self) -> Path:
        """Where the tree that is committed is put."""
        return self.directory / "tree"

    def environment(self) -> dict[str, str]:
        """Built from nothing, as the program's own is."""
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "HOME": str(self.directory)}
        return {**env, "PATH": env["PATH"] + ":/usr/sbin:/sbin"}

    def measure(self, steps: Sequence[Step]) -> Sample:
        """Run steps and take their time and memory. Raises BenchmarkError if one fails."""
        sample = Sample()
        env = self.environment()
        for step in steps:
            started = time.monotonic()
            peak = self._run(step, env)
            seconds = time.monotonic() - started
            sample.parts[step.part] = sample.parts.get(step.part, 0.0) + seconds
            sample.seconds += seconds
            sample.peak = max(sample.peak, peak)
        sample.output = self._out.read_text(encoding="utf-8", errors="surrogateescape")
        return sample

    @property
    def _out(self) -> Path:
        return self.directory / "out"

    def _run(self, step: Step, env: Mapping[str, str]) -> int:
        """One step; returns its peak memory in bytes, its children's included."""
        with open(self._out, "wb") as out, open(self.directory / "err", "wb") as err:
            process = subprocess.Popen(
                step.argv, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=step.cwd, env=env, start_new_session=True
            )  # fmt: skip
        late = threading.Timer(STEP_SECONDS, _kill, [process.pid])
        late.start()
        try:
            assert process.stdin is not None
            try:
                process.stdin.write(step.stdin.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass  # its exit code says why it did not read
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill(process.pid)
            raise
        finally:
            late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            text = "".join((self.directory / name).read_text(errors="replace")[-2000:] for name in ("out", "err"))
            raise BenchmarkError(f"{self.name}: {' '.join(step.argv)[:300]} gave {process.returncode}: {text}")
        return int(usage.ru_maxrss) * 1024

    # What a side runs for an operation; label: the name of a version. None: it has no such operation.

    def begin(self) -> None:
        """Make what has to be there before the first commit; not measured."""

    def commit(self, label: str) -> list[Step]:
        """Store self.tree as the newest version."""
        raise NotImplementedError

    def tag(self, label: str) -> Optional[list[Step]]:
        return None

    def checkout(self, label: str, target: Path) -> list[Step]:
        """Write the tree of a tag into the directory target, which is there and empty."""
        raise NotImplementedError

    def pack_tree(self, label: str) -> Optional[list[Step]]:
        """Have the tree of a tag where it is kept from one pack to the next."""
        return None

    @property
    def packed(self) -> Path:
        """Where that is."""
        return self.directory / "packed"

    def diff(self, old: str, new: str, target: Path) -> list[Step]:
        """target: a directory that is there and empty, for who needs one."""
        raise NotImplementedError

    def log(self) -> list[Step]:
        raise NotImplementedError

    # Looks at the results, outside the clock and not by the code that is measured.

    def revision(self) -> int:
        """The number of the newest revision."""
        raise NotImplementedError

    def export(self, target: Path) -> None:
        """The newest version, by another way than checkout where there is one."""
        raise NotImplementedError

    def tagged(self, label: str) -> bool:
        """Whether a tag is there, and holds what trunk does."""
        raise NotImplementedError

    def diff_text(self, old: str, new: str, sample: Sample) -> str:
        """All that a diff says."""
        return sample.output


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # it is gone


class _Subversion(Side):
    """What both sides on FSVS have in common: looks at a repository by svn."""

    @property
    def url(self) -> str:
        return f"file://{self.repository}/{PLACE}"

    def revision(self) -> int:
        return int(run(["svnlook", "youngest", str(self.repository)])) if self.repository.exists() else 0

    def export(self, target: Path) -> None:
        state = self.directory / "export"
        for name in ("conf", "waa"):
            (state / name).mkdir(parents=True, exist_ok=True)
        step = ["env", f"FSVS_CONF={state / 'conf'}", f"FSVS_WAA={state / 'waa'}", "fsvs", "-q", "export"]
        run([*step, f"{self.url}/trunk"], cwd=target)

    def tagged(self, label: str) -> bool:
        listed = run(["svn", "ls", f"{self.url}/tags@HEAD"]).split("\n")
        other = run(["svn", "diff", "--summarize", f"{self.url}/trunk@HEAD", f"{self.url}/tags/{label}@HEAD"])
        return f"{label}/" in listed and other == ""


class Classic(_Subversion):
    """The commands of avs_image_mgr, with the defaults of Subversion and FSVS."""

    name = "classic"
    known = lost = (*FSVS_LOSSES, "times")  # rsync without -t: files get the time at which they were copied

    def environment(self) -> dict[str, str]:
        state = {"FSVS_CONF": str(self.directory / "conf"), "FSVS_WAA": str(self.directory / "waa")}
        return {**super().environment(), **state}

    def begin(self) -> None:
        for name in ("conf", "waa"):
            (self.directory / name).mkdir()
        run(["svnadmin", "create", str(self.repository)])
        run(
            [
                "svn",
                "mkdir",
                "-q",
                "--parents",
                "-m",
                "layout",
                *(f"{self.url}/{x}" for x in ("trunk", "tags", "branches")),
            ]
        )

    def _working_copy(self, url: str, directory: Path) -> list[Step]:
        return [
            Step("urls", ["fsvs", "urls", "load"], directory, url + "\n"),
            Step("checkout", ["fsvs", "checkout", url], directory),
        ]

    def commit(self, label: str) -> list[Step]:
        copy = self.directory / f"wc.{label}"
        copy.mkdir()
        message = f"{AUTHOR}; Image rebuild completed\n{label}"
        return [
            *self._working_copy(f"{self.url}/trunk", copy),
            Step("rsync", ["rsync", "-crlpgoDS", "--delete", f"{self.tree}/", f"{copy}/"], copy),
            Step("ci", ["fsvs", "-C", "-o", "empty_commit=no", "ci", "-m", message], copy),
        ]

    def tag(self, label: str) -> list[Step]:
        argv = ["svn", "cp", "-q", "-m", f"tag {label}", f"{self.url}/trunk", f"{self.url}/tags/{label}"]
        return [Step("svn cp", argv, self.directory)]

    def checkout(self, label: str, target: Path) -> list[Step]:
        return self._working_copy(f"{self.url}/tags/{label}", target)

    def diff(self, old: str, new: str, target: Path) -> list[Step]:
        return [
            *self._working_copy(f"{self.url}/tags/{old}", target),
            Step("urls", ["fsvs", "urls", "load"], target, f"{self.url}/tags/{new}\n"),
            Step("sync-repos", ["fsvs", "-q", "sync-repos"], target),
            Step("diff", ["fsvs", "diff", "-R", "."], target),
        ]

    def log(self) -> list[Step]:
        return [Step("svn log", ["svn", "log", f"{self.url}/trunk"], self.directory)]


class Avsimage(_Subversion):
    """This program: the store's functions as the modes call them, and the command line."""

    name = "avsimage"
    scheme = "file://"
    known: ClassVar[Sequence[str]] = FSVS_LOSSES  # an export by FSVS alone; a checkout brings back what FSVS drops

    @property
    def tree(self) -> Path:
        return self.directory / "state/builds" / IMAGE / "tree"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "AVS_CONF": str(self.directory / "avs.conf"), "PYTHONPATH": str(TOP)}

    def begin(self) -> None:
        definitions = self.directory / "osimages.stanza"
        definitions.write_text(
            f"{IMAGE}:\n    objtype=osimage\n    osvers={OSVERS}\n    osarch={ARCH}\n    profile={PROFILE}\n    provmethod=netboot\n",
            encoding="utf-8",
        )
        paths = {name: self.directory / name for name in ("state", "logs", "installdir", "tftpdir")}
        lines = [
            "[xcat]",
            "use = no",
            f"definitions = {definitions}",
            "[paths]",
            f"store = {self.scheme}{self.repository}",
        ]
        lines += [f"{name} = {path}" for name, path in paths.items()]
        (self.directory / "avs.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def worker(self, *words: str) -> list[Step]:
        return [Step(words[0], [sys.executable, str(WORKER), *words], self.directory)]

    def mode(self, *words: str) -> list[Step]:
        return [Step(words[0], [sys.executable, "-m", "xcat_avs", "-c", *words], self.directory)]

    def commit(self, label: str) -> list[Step]:
        message = f"{AUTHOR}; Image rebuild completed\n{label}"
        return self.worker("commit", PROFILE, str(self.tree), AUTHOR, message)

    def tag(self, label: str) -> list[Step]:
        return self.mode("tag", PROFILE, "-t", label)

    def checkout(self, label: str, target: Path) -> list[Step]:
        return self.worker("checkout", PROFILE, label, str(target))

    def pack_tree(self, label: str) -> list[Step]:
        return self.worker("pack_tree", PROFILE, label)

    @property
    def packed(self) -> Path:
        return self.directory / "state/checkouts" / IMAGE / "tree"

    def diff(self, old: str, new: str, target: Path) -> list[Step]:
        return self.mode("diff", PROFILE, "-t", f"{old}:{new}")

    def log(self) -> list[Step]:
        return self.mode("log", PROFILE)

    def diff_text(self, old: str, new: str, sample: Sample) -> str:
        # People may be shown a summary; programs get all.
        steps = self.mode("diff", PROFILE, "-t", f"{old}:{new}", "--json")
        return "\n".join(_strings(json.loads(self.measure(steps).output)))


class Ostree(Avsimage):
    """This program with its store by OSTree."""

    name = "ostree"
    scheme = "ostree:"
    known = ("times", "hard links", "devices", "FIFOs and sockets")  # a checkout by OSTree alone

    def _sum(self, ref: str) -> str:
        return run(["ostree", "rev-parse", f"--repo={self.repository}", f"{PLACE}/{ref}"]).strip()

    def revision(self) -> int:
        revisions = self.repository / "refs/heads" / PLACE / "revisions"
        return len(list(revisions.iterdir())) if revisions.is_dir() else 0

    def export(self, target: Path) -> None:
        words = ["--force-copy", "--union", "--fsync=no", f"{PLACE}/trunk", str(target)]
        run(["ostree", "checkout", f"--repo={self.repository}", *words])

    def tagged(self, label: str) -> bool:
        trunk, tag = (run(["ostree", "ls", f"--repo={self.repository}", "-d", "-C", self._sum(ref), "/"])
                      for ref in ("trunk", f"tags/{label}"))  # fmt: skip
        return trunk == tag


def _strings(value: Any) -> list[str]:
    """All strings of a JSON document, keys included."""
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *_strings(item)]]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [value] if isinstance(value, str) else []


class Restic(Side):
    """A store by content, for the limits; its versions have tags from the start."""

    name = "restic"
    by_contents = False

    def environment(self) -> dict[str, str]:
        own = {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self.directory / "cache"),
        }
        return {**super().environment(), **own}

    def begin(self) -> None:
        self._restic("init")

    def _restic(self, *words: str) -> str:
        return self.measure([Step(words[0], ["restic", "-q", *words], self.directory)]).output

    def commit(self, label: str) -> list[Step]:
        return [Step("backup", ["restic", "-q", "backup", "--host", "benchmark", "--tag", label, "rootimg"], self.tree)]

    def _snapshots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._restic("snapshots", "--json"))
        return sorted(found, key=lambda item: str(item["time"]))

    def _snapshot(self, label: str) -> str:
        return str(next(item["id"] for item in self._snapshots() if item["tags"] == [label]))

    def checkout(self, label: str, target: Path) -> list[Step]:
        argv = ["restic", "-q", "restore", self._snapshot(label), "--target", str(target)]
        return [Step("restore", argv, self.directory)]

    def diff(self, old: str, new: str, target: Path) -> list[Step]:
        argv = ["restic", "diff", self._snapshot(old), self._snapshot(new)]
        return [Step("diff", argv, self.directory)]

    def log(self) -> list[Step]:
        return [Step("snapshots", ["restic", "snapshots"], self.directory)]

    def revision(self) -> int:
        return len(self._snapshots())

    def export(self, target: Path) -> None:
        self._restic("restore", str(self._snapshots()[-1]["id"]), "--target", str(target))
