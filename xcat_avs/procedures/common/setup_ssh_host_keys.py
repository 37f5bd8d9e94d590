"""Install the ssh host keys that all nodes share"""

from pathlib import Path

OPTIONS = {
    "directory": ("/etc/xcat/hostkeys", "where they are on this machine: ssh_host_*_key and ssh_host_*_key.pub"),
}
SECRETS = [
    ("ssh-host-key", "/etc/ssh/ssh_host_*_key", "all nodes share them, so that a node that boots is still known")
]


def run(ctx):
    directory = ctx.host_file(Path(ctx.options["directory"]))
    keys = sorted(directory.glob("ssh_host_*_key"))
    if not keys:
        ctx.fail(f"{directory} has no ssh_host_*_key; xCAT makes them there when it is installed, or set directory")
    unpaired = [str(key) for key in keys if not key.with_name(f"{key.name}.pub").is_file()]
    if unpaired:
        ctx.fail(f"there is no .pub beside {', '.join(unpaired)}; `ssh-keygen -y -f KEY >KEY.pub` makes it")
    names = [step.name for step in ctx.recipe.steps]
    later = ctx.recipe.steps[names.index(ctx.procedure.name) + 1 :] if ctx.procedure.name in names else ()
    if any(step.name == "cleanup" and step.options.get("identity") for step in later):
        ctx.fail("the step cleanup would remove the keys again; name setup_ssh_host_keys after it in the recipe")
    for path in ctx.glob("etc/ssh/ssh_host_*key*"):
        path.unlink()  # of other kinds, made by the package's script
    for key in keys:
        ctx.install_file(key, f"/etc/ssh/{key.name}", mode=0o600)
        ctx.install_file(key.with_name(f"{key.name}.pub"), f"/etc/ssh/{key.name}.pub")
