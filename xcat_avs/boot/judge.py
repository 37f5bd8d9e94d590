"""What the console of a machine says of a boot: what became of it, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

BOOTED, NO_INIT, INIT_ENDED, NO_ROOT_MODULE, NO_ROOT, NO_MODULES, CORRUPT, MEMORY, PANIC, EMERGENCY, UNIT, SILENT, LATE, MUCH, ENDED = (
    "booted", "no init", "init ended", "no module of the root's file system", "no root", "kernel without its modules",
    "corrupt archive", "out of memory", "kernel panic", "emergency mode", "failed unit", "silence", "time limit", "endless output", "ended",
)  # fmt: skip
COLOUR = r"(?:\x1b\[[0-9;]*m)*"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1bc?|\r")
# By default: a login prompt, or a target of systemd that has one.
SUCCESS = rf"(?:^|\n|\r)[^\n\r]*\blogin:\s*$|Reached target {COLOUR}(?:(?:multi-user|graphical)\.target|Multi-User System|Graphical Interface)"
# After these nothing better comes.
FATAL = (
    r"Kernel panic - not syncing|Initramfs unpacking failed: (?!Decoding failed)|You are in emergency mode|"
    r"Entering emergency mode|Give root password for maintenance|Press Enter for emergency shell|\(initramfs\) *$|"
    r"System is deadlocked on memory|SQUASHFS error: (?:zlib|xz|zstd|lz4|Failed)"
)
UNIT_FAILED = re.compile(r"\[FAILED\] Failed to (?:start|mount|listen on|activate|set up) (.+?)\.?\s*$", re.MULTILINE)
UP = re.compile(
    r"Startup finished in|Reached target (?:(?:multi-user|graphical)\.target|Multi-User System|Graphical Interface)"
)
ROOT_FILES = r"squashfs|overlay|loop|tmpfs|iso9660|isofs|ext4|xfs|btrfs"
# What went wrong -> what the console says then; the first that is found counts, for others follow from it.
CAUSES = (
    (MEMORY, r"Initramfs unpacking failed: write error|Out of memory(?: and no|: Kill)|deadlocked on memory|No space left on device|"
             r"Cannot allocate memory|invoked oom-killer"),
    (CORRUPT, r"Initramfs unpacking failed: (?!Decoding failed)|SQUASHFS error|invalid compressed (?:data|format)|crc error|"
              r"unexpected end of (?:file|input|archive|data)|(?:corrupt|short) (?:input|data|archive|read)|invalid (?:magic|tar magic)|"
              r"not in (?:gzip|xz) format|premature end of|[Uu]nexpected EOF|data is corrupt|corrupted data"),
    (NO_MODULES, r"could not open moddep file|can't change directory to '/?lib/modules|version magic .* should be|"
                 r"[Ii]nvalid module format|disagrees about version of symbol|modules\.dep(?:\.bin)?'?: No such file"),
    (NO_ROOT_MODULE, rf"unknown filesystem type|can't setup loop device|failed to set ?up loop device|mount(?:ing .* failed)?: No such device|"
                     rf"[Mm]odule (?:{ROOT_FILES}) not found|Failed to find module '(?:{ROOT_FILES})'|"
                     r"Unable to mount root fs on unknown-block\((?!0,0)"),
    (NO_INIT, r"No working init found|Failed to execute /\S+ \(error|Requested init \S+ failed|rdinit=\S+ failed|"
              r"No init found|can't execute '/\S*init'|switch_root: failed to execute|init not found|Switch root target contains no usable init"),
    (INIT_ENDED, r"Attempted to kill init"),
    (NO_ROOT, r"ALERT! .* does not exist|Cannot open root device|Unable to mount root fs|Could not boot|Failed to mount /?sysroot|Failed to mount \S+ as root"),
    (PANIC, r"Kernel panic - not syncing"),
    (EMERGENCY, r"emergency mode|emergency shell|for maintenance|\(initramfs\)"),
)  # fmt: skip
WORDS = {
    NO_INIT: "the image has no init that can be run: install systemd-sysv, or what else makes /sbin/init",
    INIT_ENDED: "the init of the image ended, which nothing can go on without",
    NO_ROOT_MODULE: "the initrd has no module for the file system of the root: build it with that (squashfs, overlay, loop)",
    NO_ROOT: "the initrd found no root to mount: it lacks the driver of the disk or of the network, or was told another root",
    NO_MODULES: "the kernel is without its modules: kernel, initrd and /lib/modules are of different releases, or there are none",
    CORRUPT: "the archive is corrupt: what was unpacked is not whole; pack it again with --force",
    MEMORY: "the memory did not suffice",
    PANIC: "the kernel panicked",
    EMERGENCY: "it came up in emergency mode only",
    ENDED: "the virtual machine ended before it was up",
}


@dataclass(frozen=True)
class Heard:
    """The console up to the end of a boot. reached: what said that it is up, "" where nothing did.

    ended: whether the machine has ended by itself; late: whether its time was over; much: whether it did not stop talking.
    """

    text: str
    reached: str = ""
    ended: bool = False
    late: bool = False
    much: bool = False


@dataclass(frozen=True)
class Verdict:
    """kind: BOOTED, or what went wrong; words: the same for people. failed: the units that failed on the way."""

    kind: str
    words: str
    failed: Sequence[str] = ()


def plain(text: str) -> str:
    """What a console shows, without colours and moves of the cursor."""
    return ESCAPE.sub("", text)


def failed_units(text: str) -> list[str]:
    """The units that failed on the way, as systemd names them: `ssh.service - OpenBSD Secure Shell server`, or by the latter alone."""
    return list(dict.fromkeys(UNIT_FAILED.findall(plain(text))))


def named(failed: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Those of the failed units that a setting means, by name or by description."""
    return [
        unit for unit in failed if any(fnmatchcase(part, item) for part in unit.split(" - ", 1) for item in patterns)
    ]


def judge(heard: Heard, initramfs: bool, units: Sequence[str] = ()) -> Verdict:
    """What became of a boot. initramfs: the archive itself was the initrd. units: patterns of those that must not fail."""
    text = plain(heard.text)
    failed = failed_units(text)
    if heard.reached:
        wrong = named(failed, units)
        if wrong:
            return Verdict(UNIT, f"{', '.join(wrong)} failed, and [boot] units says that it must not", failed)
        return Verdict(BOOTED, heard.reached, failed)
    kind, line = next(_causes(text, initramfs), ("", ""))
    if not kind and not text.strip():
        kind, words = (
            SILENT,
            "nothing was said on the console: the kernel is none of this architecture, or has no serial console",
        )
    elif not kind and heard.late:
        kind, words = LATE, "what [boot] success asks for was not seen within its time"
    elif not kind and heard.much:
        kind, words = MUCH, "the console does not stop, and what [boot] success asks for was not in it"
    else:
        kind = kind or ENDED
        words = f"{WORDS[kind]} ({line})" if line else WORDS[kind]
    return Verdict(kind, words, failed)


def _causes(text: str, initramfs: bool) -> Iterator[tuple[str, str]]:
    """What may have been the cause, the deepest first, with the line that says so."""
    for kind, pattern in CAUSES:
        match = re.search(pattern, text)
        if match is None:
            continue
        line = text[text.rfind("\n", 0, match.start()) + 1 :].split("\n", 1)[0].strip()
        # Where the archive is the root, a kernel that finds no init in it looks for another root.
        yield (NO_INIT if kind == NO_ROOT and initramfs else kind), re.sub(r"^\[ *[0-9.]+\] *", "", line)
