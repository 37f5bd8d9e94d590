"""Add unfs3, an NFS server in user space, which can serve what lies in memory"""

OPTIONS = {
    "exports": (
        (),
        "directories to serve, each as DIRECTORY:CLIENTS:OPTIONS, for example /scratch:10.0.0.0/8:rw+no_root_squash",
    ),
    "service": ("", "its service; default: unfs3 on Debian and Ubuntu, unfsd elsewhere"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}


def run(ctx):
    lines = []
    for item in ctx.options["exports"]:
        directory, _, rest = item.partition(":")
        clients, _, words = rest.rpartition(":")
        if not directory.startswith("/") or not clients or not words:
            ctx.fail(f"[addon unfs] exports has {item!r}; it takes DIRECTORY:CLIENTS:OPTIONS")
        lines.append(f"{directory} {clients}({words.replace('+', ',')})\n")
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages("unfs3", "rpcbind")
    if lines:
        ctx.install_file("".join(lines), "etc/exports")
    ctx.service("rpcbind")
    deb = ctx.image.version.packages == "deb"
    ctx.service(ctx.options["service"] or ("unfs3" if deb else "unfsd"))
