"""Write /etc/fstab of a node whose root is in memory"""

import time

OPTIONS = {
    "name": ("", "what the root file system is called in df and mount; default: the profile"),
    "date": (
        False,
        "add the date to the name; then a rebuild on another day makes a new revision, though nothing changed",
    ),
    "root_size": (
        "",
        "largest size of the root file system, such as 4g or 50%; default: [image] root_size, else half of the memory",
    ),
    "shm_size": ("", "largest size of /dev/shm; default: half of the memory"),
    "tmp_size": ("", "have /tmp as a file system of its own, of at most that size"),
    "append": ("fstab", "site file whose lines are added, such as the cluster's NFS mounts"),
}


def run(ctx):
    options = ctx.options
    name = options["name"] or ctx.image.profile
    if options["date"]:
        name += time.strftime("_%Y-%m-%d")
    table = [
        (name, "/", "tmpfs", with_size("rw", options["root_size"] or ctx.settings.root_size)),
        ("proc", "/proc", "proc", "defaults"),
        ("sysfs", "/sys", "sysfs", "defaults"),
        ("devpts", "/dev/pts", "devpts", "gid=5,mode=620"),
        ("tmpfs", "/dev/shm", "tmpfs", with_size("defaults", options["shm_size"])),
    ]
    if options["tmp_size"]:
        table.append(("tmpfs", "/tmp", "tmpfs", with_size("mode=1777", options["tmp_size"])))
    for row in table:
        if any(len(word.split()) != 1 for word in row):
            ctx.fail(f"[setup_fstab] {' '.join(row)!r}: names and sizes must be one word")
    text = "".join(f"{device:<15} {point:<9} {kind:<7} {rest} 0 0\n" for device, point, kind, rest in table)
    site = ctx.site_file(options["append"]) if options["append"] else None
    if site:
        text += site.read_text(encoding="utf-8")
    ctx.install_file(text, "/etc/fstab")


def with_size(words, size):
    return f"{words},size={size}" if size else words
