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
        "patterns whose files are removed",
    ),
    "temporary": (("tmp", "var/tmp"), "directories that are emptied"),
    "logs": (True, "empty the files below /var/log"),
    "identity": (True, "empty machine-id; remove the random seed and the ssh host keys"),
}


def run(ctx):
    for pattern in ctx.options["caches"]:
        for path in ctx.root.glob(pattern):
            for file in [path] if not path.is_dir() else path.rglob("*"):
                if file.is_symlink() or file.is_file():
                    file.unlink()
    for name in ctx.options["temporary"]:
        directory = ctx.root / name
        if directory.is_dir() and not directory.is_symlink():
            for path in directory.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if ctx.options["logs"]:
        for path in (ctx.root / "var/log").rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.write_bytes(b"")  # truncated: daemons expect theirs with its owner and mode
    if ctx.options["identity"]:
        machine_id = ctx.root / "etc/machine-id"
        if machine_id.exists() and not machine_id.is_symlink():
            machine_id.write_bytes(b"")  # systemd makes one for each node at boot
        names = ["var/lib/dbus/machine-id", "var/lib/systemd/random-seed"]
        keys = (ctx.root / "etc/ssh").glob("ssh_host_*key*")
        for path in [*(ctx.root / name for name in names), *keys]:
            if path.is_file() and not path.is_symlink():
                path.unlink()
