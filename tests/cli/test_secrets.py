"""The secrets gate as a user meets it, and passwords in URLs."""

from __future__ import annotations

import json

import pytest

from cli.conftest import PROD, Installation

pytestmark = pytest.mark.slow

RECIPE = "install/custom/avs/images/example.prod/recipe.conf"
STEPS = "[recipe]\nsteps = prepare_image_directory, generate_image\n"
HASH = "root:$6$sesame$sesame:19000:0:99999:7:::\n"


def kinds(document: dict[str, list[dict[str, str]]]) -> list[tuple[str, str, str]]:
    return [(item["kind"], item["path"], item["by"].rpartition("/")[2]) for item in document["secrets"]]


def test_a_secret_is_told_at_commit_and_refused_at_pack(avs: Installation) -> None:
    avs.put(RECIPE, STEPS)
    avs.tree()
    avs.put("source/rootimg/etc/shadow", HASH)
    avs.put("source/rootimg/root/.netrc", "password sesame\n")
    served = avs.install / "netboot"
    made = avs.create("--json")
    assert made.code == 0, made.err
    shadow, netrc = ("password-hash", "/etc/shadow", ""), ("client-credentials", "/root/.netrc", "")
    assert kinds(json.loads(made.out)) == [shadow, netrc]
    assert f"Warning: {PROD}: password-hash in /etc/shadow: the hash of a password" in made.err
    assert avs("-c", "tag", "example.prod", "-t", "v1").code == 0
    shown = avs("-c", "show", "example.prod", "-t", "v1")
    assert "Secrets in the image:\n  password-hash       /etc/shadow\n" in shown.out
    refused = avs("-c", "pack", "example.prod", "-t", "v1")
    assert refused.code == 1
    assert "holds secrets; nothing was published" in refused.error
    assert "client-credentials  /root/.netrc" in refused.err
    document = json.loads(avs("-c", "pack", "example.prod", "-t", "v1", "--json").out)
    assert kinds(document) == [shadow, netrc]
    assert "holds secrets" in document["error"]
    assert not (served / "debian12/x86_64/example.prod").exists()

    # Allowed by avs.conf, by the recipe, and left out by the exlist.
    avs.setting("secrets", "password-hash /etc/shadow = the operators' own")
    avs.put(RECIPE, f"{STEPS}[secrets]\nclient-credentials /root = a test\n")
    packed = avs("-c", "pack", "example.prod", "-t", "v1", "--json")
    assert packed.code == 0, packed.err
    assert kinds(json.loads(packed.out)) == [(*shadow[:2], "avs.conf"), (*netrc[:2], "recipe.conf")]
    assert "Warning" not in packed.err
    assert b"netrc" not in (served / "debian12/x86_64/example.prod/avs.json").read_bytes(), "everybody reads that"
    as_other = avs("-c", "pack", "example.prod", "-t", "v1", "-x", "example.test")
    assert as_other.code == 0, as_other.err
    assert "password-hash       /etc/shadow  allowed: the operators' own (" in as_other.out
    avs.put(RECIPE, STEPS)
    again = avs("-c", "pack", "example.prod", "-t", "v1", "--force")
    assert "client-credentials  /root/.netrc" in again.err
    assert "password-hash       /etc/shadow  allowed" not in again.err
    avs.put(RECIPE, f"{STEPS}[pack]\nrefuse_secrets = no\n")
    warned = avs("-c", "pack", "example.prod", "-t", "v1", "--force")
    assert warned.code == 0, warned.err
    assert f"Warning: {PROD}: client-credentials in /root/.netrc" in warned.err

    # A site may refuse at commit as well; a kind that there is not is known before any work.
    avs.put(RECIPE, f"{STEPS}[image]\nrefuse_secrets = yes\n")
    refused = avs.create()
    assert "holds secrets; nothing was committed" in refused.error
    avs.put(RECIPE, f"{STEPS}[secrets]\npasword-hash /etc/shadow = a test\n")
    for argv in (("create", "example.prod", "--from", str(avs.top / "source")), ("pack", "example.prod", "-t", "v1")):
        assert "unknown kind of secret 'pasword-hash' (did you mean password-hash" in avs("-c", *argv).error
    for text in (made, refused, shown, packed, warned):
        assert "sesame" not in text.out + text.err
    assert [path for path in (avs.top / "logs").rglob("*") if path.is_file() and b"sesame" in path.read_bytes()] == []


def test_what_a_procedure_puts_in_is_allowed_by_its_name(avs: Installation) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
    avs.put("keys/ssh_host_rsa_key", key, 0o600)
    avs.put("keys/ssh_host_rsa_key.pub", "ssh-rsa AAAA\n")
    options = f"[setup_ssh_host_keys]\ndirectory = {avs.top}/keys\n"
    avs.put(RECIPE, STEPS.replace("generate_image", "generate_image, setup_ssh_host_keys") + options)
    made = avs.create("-f", "--json")
    assert made.code == 0, made.err
    document = json.loads(made.out)
    wanted = [("ssh-host-key", "/etc/ssh/ssh_host_rsa_key", "procedure setup_ssh_host_keys")]
    assert kinds(document) == kinds(document["packed"]) == wanted
    assert "ssh-host-key" not in made.err


def test_passwords_in_urls(avs: Installation, built: Installation) -> None:
    url, shown = "https://ann:sesame@svn.invalid/images", "https://ann:***@svn.invalid/images"
    for argv in (("env", "example.prod"), ("log", "example.prod"), ("pack", "example.prod", "-t", "v1")):
        answer = avs("-c", *argv, "-s", url)
        assert answer.code == 1
        assert shown in answer.error
        assert "svn info https://ann@svn.invalid/images" in answer.error
        assert "sesame" not in answer.out + answer.err
    avs.setting("paths", f"store = {url}")
    assert shown in avs("-c", "log", "example.prod", "--json").out

    # In a definition, an option, a message, and what a step prints.
    built.put(RECIPE, STEPS.replace("generate_image", "generate_image, site"))
    site = '"""Site"""\nOPTIONS = {"url": ("", "u")}\ndef run(ctx):\n    print(ctx.options["url"])\n    ctx.report(ctx.options["url"])\n'
    built.put("install/custom/avs/procedures/common/site.py", site)
    with open(built.top / RECIPE, "a") as stream:
        stream.write(f"[site]\nurl = {url}\n")
    stanza = built.top / "images.stanza"
    stanza.write_text(
        stanza.read_text().replace("    osarch=x86_64\n", f"    osarch=x86_64\n    otherpkgdir={url}\n", 1)
    )
    answers = [
        built.create("-V", "-m", f"from {url}"), built("-c", "tag", "example.prod", "-t", "v2", "-m", url),
        built("-c", "show", "example.prod"), built("-c", "log", "example.prod", "--json"), built("-c", "steps", "example.prod", "--json"),
        built("-c", "diff", "example.prod", "-t", "v1:v2", "--json"), built("-c", "pack", "example.prod", "-t", "v2", "-V"),
        built("-c", "list-tags", "example.prod"),
    ]  # fmt: skip
    for answer in answers:
        assert answer.code == 0, answer.err
        assert "sesame" not in answer.out + answer.err
    assert [number for number in (0, 3, 4) if shown not in answers[number].out] == []
    kept = [built.top / name for name in ("state", "logs", "repo", "install/netboot")]
    found = [path for top in kept for path in top.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    assert found == []
