"""Add Docker"""

import json

OPTIONS = {
    "packages": (
        (),
        "packages to install; default: docker.io on Debian and Ubuntu, docker-ce with containerd elsewhere",
    ),
    "data_root": ("", "where it keeps images and containers; its default is /var/lib/docker, in a node's memory"),
    "registry_mirrors": ((), "URLs of registries to ask before Docker's own"),
    "repository": (
        "",
        "a repository of packages that is used for this besides those of the image; EL needs one for docker-ce",
    ),
}


def run(ctx):
    deb = ctx.image.version.packages == "deb"
    packages = ("docker.io",) if deb else ("docker-ce", "docker-ce-cli", "containerd.io")
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages(*(ctx.options["packages"] or packages))
    settings = {}
    if ctx.options["data_root"]:
        settings["data-root"] = ctx.options["data_root"]
    if ctx.options["registry_mirrors"]:
        settings["registry-mirrors"] = list(ctx.options["registry_mirrors"])
    if settings:
        ctx.install_file(json.dumps(settings, indent=2) + "\n", "etc/docker/daemon.json")
    ctx.service("docker")
