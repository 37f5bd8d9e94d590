"""Check that every kernel has what its modules need"""

import gzip
import lzma
import os
import re
import struct
import tempfile
from pathlib import Path

OPTIONS = {
    "strict": (True, "fail where there is nothing to check a kernel's modules against; else say so"),
    "ignore": ((), "kernels that are not looked at, by their version"),
}
MODULE = re.compile(r".*\.ko(\.gz|\.xz|\.zst)?")
PROBLEM = re.compile(r"(\S+) (needs unknown symbol|disagrees about version of symbol) (\S+)")
MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"BZh": "bzip2",
}
UNPACK = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}


def run(ctx):
    versions = kernels(ctx)
    if not versions:
        ctx.say("no kernel in the image: nothing to check")
    for version in versions:
        if not ctx.inside(f"/lib/modules/{version}/modules.dep").is_file():
            ctx.fail(f"kernel {version} has no /lib/modules/{version}/modules.dep; run depmod {version} in the image")
        with tempfile.TemporaryDirectory() as work:
            check(ctx, version, Path(work))


def kernels(ctx):
    """The versions of the kernels in the image; a directory that has only extra modules is of a kernel elsewhere."""
    boot, modules = ctx.inside("/boot/x").parent, ctx.inside("/lib/modules/x").parent
    found = {path.parent.name for path in modules.glob("*/*") if path.name in ("kernel", "modules.builtin", "vmlinuz")}
    for name in os.listdir(boot) if boot.is_dir() else ():
        match = re.fullmatch(r"vmlinu[xz]-(\d.*?)(\.gz|\.xz)?", name)
        if match and "rescue" not in name:
            found.add(match.group(1))
    return sorted(found - set(ctx.options["ignore"]))


def check(ctx, version, work):
    exports = find_exports(ctx, version, work)
    if exports is None:
        text = f"kernel {version}: neither System.map nor symvers nor the kernel itself says which symbols it has"
        if ctx.options["strict"]:
            ctx.fail(f"{text}; install its headers, or set [check_kernel_symbols] strict = no")
        ctx.say(f"{text}: NOT CHECKED")
        return
    count = link_modules(ctx, ctx.inside(f"/lib/modules/{version}"), work / "lib/modules" / version)
    start = ctx.log.stat().st_size
    # What it would write goes nowhere, but its warnings to the log.
    ctx.run(["sh", "-c", 'exec depmod "$@" >/dev/null', "sh", "-e", "-n", "-b", str(work), *exports, version])
    output = ctx.log.read_bytes()[start:].decode(errors="replace")
    problems = sorted({(os.path.basename(module), symbol) for module, _, symbol in PROBLEM.findall(output)})
    if problems:
        modules = list(dict.fromkeys(module for module, _ in problems))
        text = ", ".join(f"{module} needs {symbol}" for module, symbol in problems[:20])
        more = f" and {len(problems) - 20} more, see the log" if len(problems) > 20 else ""
        ctx.fail(f"kernel {version}: {len(modules)} modules have unresolved symbols: {text}{more}")
    ctx.say(f"kernel {version}: {count} modules have all their symbols, by {exports[0]} {os.path.basename(exports[1])}")


def target(ctx, path):
    """What a path of the image leads to in the image, or None."""
    for _ in range(20):
        if not path.is_symlink():
            return path if path.is_file() else None
        above = "/" + str(path.parent.relative_to(ctx.root))
        path = ctx.inside(os.path.join(above, os.readlink(path)))
    return None


def link_modules(ctx, top, farm):
    """Lay links to the modules out as depmod wants them; weak-updates are links that would lead it to the host."""
    count = 0
    for directory, _, names in os.walk(top):
        for name in names:
            source, relative = target(ctx, Path(directory, name)), os.path.relpath(os.path.join(directory, name), top)
            match = MODULE.fullmatch(name)
            if source is None or not (match or name in ("modules.order", "modules.builtin", "modules.builtin.modinfo")):
                continue
            count += match is not None
            (farm / relative).parent.mkdir(parents=True, exist_ok=True)
            if match and match.group(1):  # not every depmod reads every compression
                plain = farm / relative[: -len(match.group(1))]
                ctx.run(
                    ["sh", "-c", 'exec "$1" -dc <"$2" >"$3"', "sh", UNPACK[match.group(1)], str(source), str(plain)]
                )
            else:
                (farm / relative).symlink_to(source)
    return count


def find_exports(ctx, version, work):
    """What depmod is told of the kernel's own symbols: options of it, or None."""
    for name in (f"/boot/System.map-{version}", f"/lib/modules/{version}/System.map"):
        path = target(ctx, ctx.inside(name))
        if path and b" __ksymtab_" in path.read_bytes():  # Debian ships a stub
            return ["-F", str(path)]
    symvers = [
        f"/boot/symvers-{version}",
        f"/lib/modules/{version}/symvers",
        f"/lib/modules/{version}/build/Module.symvers",
    ]
    symvers += [f"/usr/src/kernels/{version}/Module.symvers", f"/usr/src/linux-headers-{version}/Module.symvers"]
    for name in [f"{name}{suffix}" for name in symvers for suffix in ("", ".gz", ".xz")]:
        path = target(ctx, ctx.inside(name))
        if path:
            (work / "Module.symvers").write_bytes(unpack(path.read_bytes()))
            return ["-E", str(work / "Module.symvers")]
    for name in (f"/boot/vmlinuz-{version}", f"/lib/modules/{version}/vmlinuz"):
        path = target(ctx, ctx.inside(name))
        names = exported(ctx, path.read_bytes(), work) if path else []
        if names:
            (work / "System.map").write_text("".join(f"ffffffff81000000 r __ksymtab_{name}\n" for name in names))
            return ["-F", str(work / "System.map")]
    return None


def unpack(data):
    return (
        gzip.decompress(data) if data[:2] == b"\x1f\x8b" else lzma.decompress(data) if data[:5] == b"\xfd7zXZ" else data
    )


def exported(ctx, image, work):
    """The names that the kernel in a bzImage exports: by the tables of the ELF file that is packed in it."""
    if image[0x202:0x206] != b"HdrS":
        return []
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    packed = image[start : start + length - 4]  # the last four bytes are its size when unpacked
    program = next((program for magic, program in MAGICS.items() if packed.startswith(magic)), None)
    if program is None:
        return []
    (work / "packed").write_bytes(packed)
    script = 'exec "$1" -dc <"$2" >"$3"'
    if ctx.run(["sh", "-c", script, "sh", program, str(work / "packed"), str(work / "vmlinux")], check=False):
        ctx.say(f"the kernel cannot be unpacked; is {program} installed on this machine?")
        return []
    elf = (work / "vmlinux").read_bytes()
    return symbols(elf) if elf[:6] == b"\x7fELF\2\1" else []


def symbols(elf):
    """The names in the tables of exports of a 64-bit vmlinux."""
    (table,), (size, count, names) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<II4Q", elf, table + size * number) for number in range(count)]
    sections = {string(elf, headers[names][4] + header[0]): header[3:6] for header in headers}
    strings = sections.get("__ksymtab_strings")
    found = []
    for address, offset, length in [
        sections[name] for name in ("__ksymtab", "__ksymtab_gpl") if strings and name in sections
    ]:
        # Entries are distances: of the value, the name and, since 5.4, the name space.
        for entry in (12, 8):
            places = [address + at + struct.unpack_from("<i", elf, offset + at)[0] for at in range(4, length, entry)]
            if all(strings[0] <= place < strings[0] + strings[2] for place in places):
                found += [string(elf, place - strings[0] + strings[1]) for place in places]
                break
        else:
            return []
    return found


def string(elf, at):
    return elf[at : elf.index(b"\0", at)].decode("ascii", "replace")
