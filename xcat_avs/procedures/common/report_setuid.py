"""List the programs that run with the rights of their owner: setuid, setgid, capabilities"""

from fnmatch import fnmatch

OPTIONS = {
    "allowed": ((), "patterns of paths (usr/bin/su): any other such program is an error; none: all are listed only"),
}


def run(ctx):
    found = ctx.privileged()
    ctx.report(*(f"{path}: {rights}" for path, rights in found))
    allowed = ctx.options["allowed"]
    refused = [path for path, _ in found if not any(fnmatch(path.lstrip("/"), pattern) for pattern in allowed)]
    if allowed and refused:
        ctx.fail(f"not in allowed: {', '.join(refused)}; remove the rights, or add them in the recipe")
