"""Add CernVM-FS, mounted by autofs below /cvmfs"""

OPTIONS = {
    "repositories": ((), "the repositories to mount, for example atlas.cern.ch"),
    "proxy": ("DIRECT", "HTTP proxies, in CernVM-FS's own syntax"),
    "quota": (4000, "megabytes of the cache"),
    "cache": ("", "directory of the cache; its default is /var/lib/cvmfs, in a node's memory"),
    "repository": ("", "a repository of packages that is used for this besides those of the image"),
}


def run(ctx):
    names = ctx.options["repositories"]
    with ctx.repository(ctx.options["repository"]) as lent:
        lent.install_packages("cvmfs", "autofs")
    values = {
        "CVMFS_REPOSITORIES": ",".join(names),
        "CVMFS_HTTP_PROXY": f"'{ctx.options['proxy']}'",
        "CVMFS_QUOTA_LIMIT": ctx.options["quota"],
        "CVMFS_CACHE_BASE": ctx.options["cache"],
    }
    lines = [f"{name}={value}\n" for name, value in values.items() if value]
    ctx.install_file("".join(lines), "etc/cvmfs/default.local")
    # What `cvmfs_config setup` does, which wants to talk to the services of a running machine.
    ctx.install_file("/cvmfs /etc/auto.cvmfs\n", "etc/auto.master.d/cvmfs.autofs")
    text = ctx.read("etc/fuse.conf")
    if "user_allow_other" not in [line.strip() for line in text.splitlines()]:
        ctx.install_file(text + "user_allow_other\n", "etc/fuse.conf")
    ctx.inside("cvmfs").mkdir(exist_ok=True)
    ctx.service("autofs")
