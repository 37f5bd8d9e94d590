"""Data for pages: of an image as large as a real one, with names as hostile as one likes."""

from __future__ import annotations

from typing import Any

from xcat_avs.page import page

MIB = 1 << 20


def data(name: str = "x", count: int = 400) -> dict[str, Any]:
    """What a page is made of. name: is in every text of it."""
    leaf = name.replace("/", "|")
    sizes = {"/": 1000 * MIB, "/usr": 800 * MIB, "/var": 150 * MIB, "/boot": 50 * MIB}
    sizes.update({f"/usr/{leaf} {number}": (90 - number) * MIB for number in range(8)})
    sizes[f"/usr/{leaf} 0/lib"] = 70 * MIB
    return {
        "osimage": name, "revision": {"number": 3}, "inputs": [f"files/{name}"], "report": f"{name}\n  a\tb\n" + "-" * 150,
        "nodes": [{"osimage": name, "tag": name, "nodes": [name], "noderange": name, "nodeset_due": True}],
        "tag": {"name": name, "boots": [
            {"result": name, "why": name, "osimage": name, "archive": name, "seconds": 118.4, "accelerator": name, "needed": 960,
             "units": name, "date": "2026-11-12T10:00:00Z", "user": name},
        ]},
        "survey": {
            "bytes": 1000 * MIB, "sizes": sizes, "problem": "",
            "packages": [[f"{name}-{number}", f"1:{number}-{name}", name, (count - number) * MIB // 80] for number in range(count)],
            "privileges": [(f"/usr/bin/{name}", "setuid 0"), ("/usr/bin/ping", "cap_net_raw=ep")],
            "previous": {
                "tag": name, "packages": [(f"{name}:amd64", "1", "2", "upgraded"), (f"{name}-new:amd64", "", "1", "added")],
                "sizes": {f"/{name}": (90 * MIB, 95 * MIB), "/usr": (800 * MIB, 790 * MIB)},
            },
            "revisions": [
                {"number": number, "date": f"2026-11-{number:02}T10:00:00Z", "author": name, "message": name, "tags": [name],
                 "packages": 380 + number, "bytes": (900 + 7 * number) * MIB, "seconds": 500.0 - number}
                for number in range(12, 0, -1)
            ],
        },
    }  # fmt: skip


def html(name: str = "x", count: int = 400) -> str:
    said = [("Osimage:", name), ("Tag:", f"{name}, made 2026-11-26 by ann"), ("Message:", name)]
    return page.make(f"debian12-x86_64-netboot-{name}", f"tag {name}, as avsimage saw it", said, data(name, count))
