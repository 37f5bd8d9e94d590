"""Set up the automounter with the site's maps"""

import os

OPTIONS = {
    "maps": (("auto.*", "auto.master.d/*.autofs"), "patterns of site files to put into /etc"),
}


def run(ctx):
    ctx.install_packages("autofs")
    found = {}
    for pattern in ctx.options["maps"]:
        for path in ctx.site_files(pattern):
            directory = os.path.dirname(pattern)
            found[os.path.join("/etc", directory, path.name)] = path
    if not found:
        ctx.say("the site has no maps of these names: /etc/auto.* is left as the package brought it")
    for target, path in found.items():
        # An executable map is a program that autofs runs.
        ctx.install_file(path, target, mode=0o755 if os.access(path, os.X_OK) else 0o644)
    ctx.service("autofs")
