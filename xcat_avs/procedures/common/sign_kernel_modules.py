"""Sign the kernel's modules with the site's key"""

import glob
import os
import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path

OPTIONS = {
    "key": (
        "",
        "file of the private key on this machine, PEM; default: [image] module_signing_key; it is never copied into the image",
    ),
    "certificate": ("", "file of its certificate on this machine; default: [image] module_signing_certificate"),
    "hash": ("sha256", "digest of the signatures; the kernel must know it"),
    "sign_file": ("", "program that signs; empty: scripts/sign-file of this machine's kernel packages, or the image's"),
    "modules": (("*",), "patterns of the modules' paths below /lib/modules, such as 5.14*/extra/*"),
    "strip": (False, "remove debugging symbols before"),
}
MAGIC = b"~Module signature appended~\n"
PACKERS = {".ko": "", ".gz": "gzip -n", ".zst": "zstd -q",
           ".xz": "xz --check=crc32 --lzma2=dict=1MiB"}  # fmt: skip  # what kernels can read themselves
BATCH = 200
HOST = ("/usr/src/kernels/*/scripts/sign-file", "/usr/lib/linux-kbuild-*/scripts/sign-file",
        "/usr/src/linux-headers-*/scripts/sign-file", "/usr/lib/modules/*/build/scripts/sign-file")  # fmt: skip


def run(ctx):
    files = {
        name: ctx.options[name] or getattr(ctx.settings, f"module_signing_{name}") for name in ("key", "certificate")
    }
    for name, path in files.items():
        if not path.startswith("/") or not os.path.isfile(path):
            ctx.fail(f"[sign_kernel_modules] {name} = {path} in the recipe is no file of this machine")
        ctx.host_file(Path(path))
        if Path(os.path.realpath(ctx.root)) in Path(os.path.realpath(path)).parents:
            ctx.fail(f"[sign_kernel_modules] {name} = {path} lies in the image; keep it outside")
    modules = find_modules(ctx)
    if not modules:
        ctx.say("no modules in the image: nothing to sign")
        return
    program, changed = sign_file(ctx), 0
    for suffix, packer in PACKERS.items():
        some = [path for path in modules if path.suffix == suffix]
        for at in range(0, len(some), BATCH):
            with tempfile.TemporaryDirectory() as work:
                changed += sign(ctx, program, files, some[at : at + BATCH], packer, Path(work))
    ctx.say(f"signed {len(modules)} modules, {changed} of them changed")


def find_modules(ctx):
    """The modules in the image, no links among them."""
    top = ctx.inside("/lib/modules/x").parent
    found = [Path(directory, name) for directory, _, names in os.walk(top) for name in names]
    found = [path for path in found if re.fullmatch(r".*\.ko(\.gz|\.xz|\.zst)?", path.name) and not path.is_symlink()]
    patterns = ctx.options["modules"]
    return sorted(path for path in found if any(fnmatch(str(path.relative_to(top)), pattern) for pattern in patterns))


def sign_file(ctx):
    """The path of the program that signs."""
    wanted = ctx.options["sign_file"]
    candidates = [wanted] if wanted else [path for pattern in HOST for path in sorted(glob.glob(pattern), reverse=True)]
    if not wanted:
        candidates += [str(path) for pattern in HOST for path in ctx.glob(pattern)]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ctx.fail(
        f"there is no {wanted or 'scripts/sign-file'}; install kernel-devel (linux-kbuild on Debian) on this machine "
        "or in the image, or set [sign_kernel_modules] sign_file"
    )


def sign(ctx, program, files, modules, packer, work):
    """Sign modules, each in the place of what it was; returns how many that changed."""
    plain = {path: work / f"{number}.ko" for number, path in enumerate(modules)}
    unpack(ctx, plain, packer)
    for path in plain.values():
        path.write_bytes(unsigned(path.read_bytes()))
    if ctx.options["strip"]:
        each(ctx, 'strip --strip-debug "$2"', plain)
    words = {
        "PROGRAM": program,
        "HASH": ctx.options["hash"],
        "KEY": files["key"],
        "CERT": files["certificate"],
    }
    each(ctx, '"$PROGRAM" "$HASH" "$KEY" "$CERT" "$2"', plain, words)
    refuse_unsigned(ctx, plain, f"{program} has put no signature on")  # nothing is changed so far
    if packer:
        each(ctx, f'{packer} -c <"$2" >"$2.packed"', plain)
    changed = 0
    for path, signed in plain.items():
        after, status = (Path(f"{signed}.packed") if packer else signed).read_bytes(), path.stat()
        if after != path.read_bytes():
            name = "/" + str(path.relative_to(ctx.root))
            ctx.install_file(after, name, status.st_mode & 0o7777, status.st_uid, status.st_gid)
            changed += 1
    unpack(ctx, plain, packer)  # from the image again, to see what is there now
    refuse_unsigned(ctx, plain, "in the image there is no signature on")
    return changed


def refuse_unsigned(ctx, plain, text):
    missing = [path.name for path, module in plain.items() if not module.read_bytes().endswith(MAGIC)]
    if missing:
        ctx.fail(f"{text} {', '.join(missing)}")


def unpack(ctx, plain, packer):
    """Copy modules out of the image, decompressed."""
    each(ctx, f'{packer.split()[0]} -dc <"$1" >"$2"' if packer else 'cat <"$1" >"$2"', plain)


def each(ctx, script, pairs, env=None):
    """Run a line of shell for each pair of paths, $1 and $2, until one fails."""
    words = [str(path) for pair in pairs.items() for path in pair]
    ctx.run(["sh", "-ec", f"while [ $# -gt 0 ]; do {script}; shift 2; done", "sh", *words], env)


def unsigned(data):
    """A module without its signatures: before the mark are 12 bytes that end with the length of the signature."""
    while data.endswith(MAGIC):
        end = len(data) - len(MAGIC)
        data = data[: end - 12 - int.from_bytes(data[end - 4 : end], "big")]
    return data
