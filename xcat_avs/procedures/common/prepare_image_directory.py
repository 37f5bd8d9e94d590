"""Empty the build directory for a new image root"""


def run(ctx):
    ctx.empty()
