"""Add Podman: containers without a daemon"""

OPTIONS = {
    "packages": ((), "packages to install instead of podman and what it runs containers of users with"),
    "socket": (False, "have the API socket of root at boot"),
    "graphroot": (
        "",
        "where root's images and containers are; the default is /var/lib/containers/storage, in a node's memory",
    ),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}
STORAGE = '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "{}"\n'


def run(ctx):
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*(ctx.options["packages"] or ("podman", "fuse-overlayfs", "slirp4netns")))
    if ctx.options["graphroot"]:
        ctx.install_file(STORAGE.format(ctx.options["graphroot"]), "etc/containers/storage.conf")
    if ctx.options["socket"]:
        ctx.service("podman.socket")
