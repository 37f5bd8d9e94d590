"""`./runtests faults`: the command line, the order of the points, and the table at the end."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Optional

from harness import Node

from faults.kinds import ChangingTree, Clock, ForeignMount, Full, Kill, Kind, ReadOnly
from faults.servers import DaemonDies, ServerKilled
from faults.world import COMMANDS

ENGINES = ("fsvs", "ostree")
PLACES = ("state", "logs", "store", "staging", "install", "tmp")


def kinds(engine: str) -> list[Kind]:
    """Those that try a store of this engine; with FSVS also those that concern none, or its server."""
    each: list[Kind] = [
        *(Kill(name, engine) for name in COMMANDS),
        *(Full(name, engine) for name in PLACES),
        ReadOnly("store read-only", engine),
        Clock("clock set back", engine),
        ForeignMount("foreign mount", engine),
        ChangingTree("changing tree", engine),
    ]
    return [*each, ServerKilled("server killed"), DaemonDies("xcatd dies")] if engine == "fsvs" else each


@dataclass
class Tally:
    """What came of the points of a kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Run:
    """Points of many kinds below one directory, until they are done or the time is over."""

    def __init__(self, top: Path, seed: int, seconds: float) -> None:
        self.top, self.seed, self.deadline = top, seed, time.monotonic() + seconds
        self.worlds = 0

    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def do(self, kind: Kind, numbers: Sequence[int]) -> Tally:
        tally, world, began = Tally(), None, time.monotonic()
        try:
            for number in numbers:
                if self.late():
                    tally.outcomes["not done"] += 1
                    continue
                try:
                    if world is None:
                        self.worlds += 1
                        world = kind.world(self.top / f"world.{self.worlds}")
                    chance = random.Random(f"{self.seed} {kind.name} {number}")
                    tally.outcomes[kind.point(world, chance, number)] += 1
                except Exception as err:
                    tally.outcomes["found"] += 1
                    self.tell(tally, kind, f"point {number}", err)
                    if world is not None:
                        kind.close(world)
                    world = None
            if world is not None:
                try:
                    kind.end(world)
                except AssertionError as err:
                    self.tell(tally, kind, "at the end", err)
        finally:
            if world is not None:
                kind.close(world)
        tally.seconds = time.monotonic() - began
        return tally

    def tell(self, tally: Tally, kind: Kind, where: str, err: Exception) -> None:
        text = f"{kind.name}, {where} (--seed {self.seed} --only '{kind.name}'): {type(err).__name__}: {err}"
        tally.found.append(text)
        print(f"FOUND {text}", flush=True)


def numbers_of(kind: Kind, given: argparse.Namespace) -> Sequence[int]:
    count = max(1, round(given.points * kind.share))
    return [given.point] if given.point is not None else range(count)


def table(tallies: dict[str, Tally]) -> list[str]:
    lines = [f"{'':24}{'points':>8}{'found':>7}{'s':>8}  what came of them"]
    for name, tally in tallies.items():
        points = sum(tally.outcomes.values()) - tally.outcomes["not done"]
        words = ", ".join(f"{count} {what}" for what, count in sorted(tally.outcomes.items()) if count)
        lines.append(f"{name:24}{points:8}{len(tally.found):7}{tally.seconds:8.1f}  {words}")
    total = sum(sum(tally.outcomes.values()) - tally.outcomes["not done"] for tally in tallies.values())
    lines.append(f"{'all':24}{total:8}{sum(len(item.found) for item in tallies.values()):7}")
    return lines


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./runtests faults", description=__doc__)
    parser.add_argument("--points", type=int, default=60, help="points of each command's kills; of others a part (60)")
    parser.add_argument("--seconds", type=float, default=1800, help="no point is begun after that (1800)")
    parser.add_argument("--seed", type=int, default=None, help="as an earlier run printed it")
    parser.add_argument("--engine", choices=(*ENGINES, "both"), default="both", help="of the store (both)")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    parser.add_argument("--point", type=int, default=None, help="just this point of a kind")
    return parser.parse_args(argv)


def stop(signum: int, _frame: Optional[FrameType]) -> None:
    raise SystemExit(128 + signum)  # and what is cleaned up at the end is


def main(argv: Sequence[str]) -> int:
    given = arguments(argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)  # in the background they are ignored, and would be by what is started
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}, load {os.getloadavg()[0]:.1f}", flush=True)
    top = Path(tempfile.mkdtemp(prefix="avs-faults.", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    run, began = Run(top, seed, given.seconds), time.monotonic()
    tallies: dict[str, Any] = {}
    try:
        engines = ENGINES if given.engine == "both" else (given.engine,)
        for kind in (kind for engine in engines for kind in kinds(engine)):
            if given.only in kind.name:
                tallies[kind.name] = run.do(kind, numbers_of(kind, given))
                print(table({kind.name: tallies[kind.name]})[1], flush=True)
    finally:
        Node(top).close()  # where even the beginning of a kind has failed
        with suppress(OSError):
            shutil.rmtree(top)
        print("\n".join(table(tallies)))
        print(f"{time.monotonic() - began:.0f} s, seed {seed}, load {os.getloadavg()[0]:.1f}")
    return 1 if any(tally.found for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
