"""Install the packages of the definition, or copy the tree of --from"""


def run(ctx):
    ctx.generate()
