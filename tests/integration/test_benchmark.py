"""The store benchmark runs, and its checks see a wrong result. What it measures here is not looked at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SECONDS = 900
OPERATIONS = ["first", "rebuild", "unchanged", "tag", "checkout", "built", "neighbour", "diff", "log"]
KEPT = {"built", "neighbour"}  # which only this program has, beside a checkout by classic


def benchmark(*options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(BENCHMARKS / "store.py"), *options]
    return subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)


def check_side(operation: str, found: dict[str, Any]) -> None:
    """One side's result of one operation, from one round."""
    samples = found["samples"]
    assert len(samples) == (2 if operation == "tag" else 1)  # each version gets a tag
    assert found["checked"] is True
    for sample in samples:
        assert sample["checked"] is True
        assert sample["seconds"] > 0
        assert sample["seconds"] == pytest.approx(sum(sample["parts"].values()), abs=0.01)
        assert sample["peak_bytes"] > 0
        assert sample["repository_bytes"] > 0
    seconds = [sample["seconds"] for sample in samples]
    assert min(seconds) <= found["seconds"] <= max(seconds)


def test_benchmark_measures_and_checks(tmp_path: Path) -> None:
    work, answer = tmp_path / "work", tmp_path / "answer.json"
    # restic, which is no part of what the tests need, is left to who measures with it.
    sides = "classic,avsimage,ostree"
    done = benchmark("--small", "--only", sides, "--rounds", "1", "--work", str(work), "--json", str(answer))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(answer.read_text(encoding="utf-8"))
    assert document["wrong"] == []
    assert document["small"] is True
    assert (document["rounds"], document["cores"]) == (1, os.cpu_count())
    assert set(document["versions"]) == {"python", "fsvs", "svn", "ostree", "rsync"}

    assert set(document["trees"]) == {"reference", "rebuild", "difference"}
    for name in ("reference", "rebuild"):
        size = document["trees"][name]
        assert size["entries"] > size["files"] > 250
        assert size["bytes"] > 400_000
    assert all(document["trees"]["difference"][kind] > 0 for kind in ("added", "removed", "changed"))

    assert list(document["operations"]) == OPERATIONS
    for operation, record in document["operations"].items():
        wanted = {"avsimage", "ostree"} if operation in KEPT else {"classic", "avsimage", "ostree"}
        assert set(record["sides"]) == wanted, operation
        for found in record["sides"].values():
            check_side(operation, found)
        classic = document["operations"]["checkout" if operation in KEPT else operation]["sides"]["classic"]
        assert record["ratio"] == pytest.approx(record["sides"]["avsimage"]["seconds"] / classic["seconds"], rel=0.01)
        assert len(record["ratios"]) == len(classic["samples"])
        assert record["title"] in done.stdout
    repository = document["repository"]
    assert repository["ratio"] == pytest.approx(
        repository["bytes"]["avsimage"] / repository["bytes"]["classic"], rel=0.01
    )
    assert document["manifest"]["checked"] is True
    assert document["manifest"]["peak_bytes"] > 0
    assert len(document["manifest"]["samples"]) == 1
    # What a run makes is gone; the work directory is marked as the benchmark's own.
    assert [path.name for path in work.iterdir()] == [".avs-benchmark"]

    assert benchmark("--clean", "--work", str(work)).returncode == 0
    assert not work.exists()


def test_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine\n")
    for option in ("--small", "--clean"):
        done = benchmark(option, "--work", str(tmp_path))
        assert done.returncode == 1
        assert "was not made by this benchmark" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def touch(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def rewrite(root: Path) -> None:
    """Other contents of the same size and time."""
    (root / "etc/a").write_text("2\n")
    touch(root / "etc/a", 1000)


def drop(root: Path) -> None:
    (root / "etc/b").unlink()
    touch(root / "etc", 1000)


def add(root: Path) -> None:
    (root / "etc/c").write_text("1\n")
    touch(root / "etc", 1000)


# What is done to a tree that should be equal, and what the check must say.
HARM: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "nothing": (lambda root: None, []),
    "contents": (rewrite, ["etc/a: contents"]),
    "mode": (lambda root: (root / "etc/a").chmod(0o600), ["etc/a: modes"]),
    "owner": (lambda root: os.chown(root / "etc/a", 4242, -1), ["etc/a: owners"]),
    "group": (lambda root: os.chown(root / "etc/a", -1, 4242), ["etc/a: groups"]),
    "time": (lambda root: touch(root / "etc/a", 5000), ["etc/a: times"]),
    "missing": (drop, ["etc/b: missing"]),
    "too much": (add, ["etc/c: too much"]),
}


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trees

    return trees


def make_tree(top: Path) -> Path:
    root = top / "rootimg/etc"
    root.mkdir(parents=True)
    for name in ("a", "b"):
        (root / name).write_text("1\n")
    for path in (root / "a", root / "b", root, root.parent):
        touch(path, 1000)
    return top


@pytest.mark.parametrize("name", HARM)
def test_check_of_a_tree_sees(name: str, trees: Any, tmp_path: Path) -> None:
    one, other = make_tree(tmp_path / "one"), make_tree(tmp_path / "other")
    act, wanted = HARM[name]
    act(other / "rootimg")
    assert trees.compare(one, other, ()).wrong == wanted


def test_check_knows_what_a_store_drops_and_counts_it(trees: Any, tmp_path: Path) -> None:
    one, other = make_tree(tmp_path / "one"), make_tree(tmp_path / "other")
    os.mkfifo(one / "rootimg/etc/fifo")
    os.setxattr(one / "rootimg/etc/a", "user.kept", b"1")
    for path in ("rootimg/etc/hard", "rootimg/etc/hard2"):
        os.link(one / "rootimg/etc/b", one / path)
        shutil.copy2(other / "rootimg/etc/b", other / path)
    for tree in (one, other):
        touch(tree / "rootimg/etc", 1000)
    known = ("xattrs", "hard links", "FIFOs and sockets")
    found = trees.compare(one, other, known)
    assert (found.wrong, dict(found.known)) == ([], {"xattrs": 1, "hard links": 2, "FIFOs and sockets": 1})
    assert len(trees.compare(one, other, ()).wrong) == 4


def test_time_of_the_version_before_is_right_for_what_did_not_change(trees: Any, tmp_path: Path) -> None:
    before, source, stored = (make_tree(tmp_path / name) for name in ("before", "source", "stored"))
    for path in ("rootimg/etc/a", "rootimg/etc/b"):
        touch(source / path, 3000)
    assert trees.compare(source, stored, (), before).wrong == []
    # A file that did change may not have the old time.
    for tree in (source, stored):
        (tree / "rootimg/etc/a").write_text("2\n")
    touch(source / "rootimg/etc/a", 3000)
    touch(stored / "rootimg/etc/a", 1000)
    assert trees.compare(source, stored, (), before).wrong == ["etc/a: times"]
