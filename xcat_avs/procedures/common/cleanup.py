"""Remove what a build leaves behind: caches, logs, temporary files, the machine's identity"""

import shutil

OPTIONS = {
    "caches": (
        (
            "var/cache/apt",
            "var/cache/dnf",
            "var/cache/yum",
            "var/cache/ldconfig",
            "var/lib/apt/lists",
            "var/cache/debconf/*-old",
        ),
        "patterns: matching files, and all files in matching directories, are removed",
    ),
    "temporary": (("tmp", "var/tmp"), "directories that are emptied"),
    "logs": (True, "empty the files below /var/log"),
    "identity": (True, "empty machine-id; remove the random seed and the ssh host keys"),
}


def run(ctx):
    def files(*patterns):
        found = (path for pattern in patterns for path in ctx.glob(pattern))
        return [path for path in found if path.is_symlink() or path.is_file()]

    for path in files(*ctx.options["caches"], *(f"{pattern}/**/*" for pattern in ctx.options["caches"])):
        path.unlink()
    for name in ctx.options["temporary"]:
        for path in ctx.glob(f"{name}/*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if ctx.options["logs"]:
        for path in files("var/log/**/*"):
            if not path.is_symlink():
                path.write_bytes(b"")  # truncated: daemons expect theirs with its owner and mode
    if ctx.options["identity"]:
        for path in files("etc/machine-id"):
            if not path.is_symlink():
                path.write_bytes(b"")  # systemd makes one for each node at boot
        for path in files("var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "etc/ssh/ssh_host_*key*"):
            if not path.is_symlink():
                path.unlink()
