"""Sign the kernel's modules with the site's key"""

import glob
import os
import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path

OPTIONS = {
    "key": ("", "file of the private key on this machine, PEM; it is never copied into the image"),
    "certificate": ("", "file of its certificate on this machine"),
    "hash": ("sha256", "digest of the signatures; the kernel must know it"),
    "sign_file": ("", "program that signs; empty: scripts/sign-file of this machine's kernel packages, or the image's"),
    "modules": (("*",), "patterns of the modules' paths below /lib/modules, such as 5.14*/extra/*"),
    "strip": (False, "remove debugging symbols before"),
}
MAGIC = b"~Module signature appended~\n"
PACKERS = {
    "": None,
    ".gz": ["gzip", "-n"],
    ".xz": ["xz", "--check=crc32", "--lzma2=dict=1MiB"],  # what kernels can read themselves
    ".zst": ["zstd", "-q"],
}
HOST = ("/usr/src/kernels/*/scripts/sign-file", "/usr/lib/linux-kbuild-*/scripts/sign-file",
        "/usr/src/linux-headers-*/scripts/sign-file", "/usr/lib/modules/*/build/scripts/sign-file")  # fmt: skip


def run(ctx):
    for name in ("key", "certificate"):
        path = ctx.options[name]
        if not path.startswith("/") or not os.path.isfile(path):
            raise RuntimeError(f"[sign_kernel_modules] {name} = {path} in the recipe is no file of this machine")
        if Path(os.path.realpath(ctx.root)) in Path(os.path.realpath(path)).parents:
            raise RuntimeError(f"[sign_kernel_modules] {name} = {path} lies in the image; keep it outside")
    modules = find_modules(ctx)
    if not modules:
        ctx.say("no modules in the image: nothing to sign")
        return
    argv = [sign_file(ctx), ctx.options["hash"], ctx.options["key"], ctx.options["certificate"]]
    with tempfile.TemporaryDirectory() as work:
        changed = sum(sign(ctx, argv, path, Path(work) / "module.ko") for path in modules)
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
    raise RuntimeError(
        f"there is no {wanted or 'scripts/sign-file'}; install kernel-devel (linux-kbuild on Debian) on this machine "
        "or in the image, or set [sign_kernel_modules] sign_file"
    )


def sign(ctx, argv, path, plain):
    """Sign one module in the place of what it was; returns whether that changed it."""
    packer = PACKERS[path.suffix if path.suffix != ".ko" else ""]
    before = path.read_bytes()
    plain.write_bytes(unsigned(unpack(ctx, packer, path, plain)))
    if ctx.options["strip"]:
        ctx.run(["strip", "--strip-debug", str(plain)])
    ctx.run([*argv, str(plain)])
    if packer:
        pipe(ctx, packer, plain, plain.with_suffix(".packed"))
    after = (plain.with_suffix(".packed") if packer else plain).read_bytes()
    if after != before:
        status = path.stat()
        ctx.install_file(after, "/" + str(path.relative_to(ctx.root)), status.st_mode & 0o7777, status.st_uid, status.st_gid)
    if not unpack(ctx, packer, path, plain).endswith(MAGIC):
        raise RuntimeError(f"/{path.relative_to(ctx.root)} has no signature after {argv[0]} has signed it")
    return after != before


def unpack(ctx, packer, path, plain):
    """The module itself, where it is compressed."""
    if packer:
        pipe(ctx, [packer[0], "-dc"], path, plain)
    return (plain if packer else path).read_bytes()


def pipe(ctx, program, source, target):
    ctx.run(["sh", "-c", 'in=$1 out=$2; shift 2; exec "$@" <"$in" >"$out"', "sh", str(source), str(target), *program])


def unsigned(data):
    """A module without its signatures: before the mark are 12 bytes that end with the length of the signature."""
    while data.endswith(MAGIC):
        end = len(data) - len(MAGIC)
        data = data[: end - 12 - int.from_bytes(data[end - 4 : end], "big")]
    return data
