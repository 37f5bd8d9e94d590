"""What errors of Subversion's clients, as they print them, are said to mean."""

from __future__ import annotations

import pytest

from xcat_avs.store.fsvs import refusals
from xcat_avs.store.fsvs.subversion import NO_PATH

URL = "https://svn.example/images"
NO_SESSION = f"svn: E170013: Unable to connect to a repository at URL '{URL}'\n"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("svn: E230001: Server SSL certificate verification failed: issuer is not trusted", "(issuer is not trusted)"),
        ("svn: E230001: Server SSL certificate verification failed: certificate has expired", "(certificate has expired)"),
        ("svn: E215004: No more credentials or we tried too many times.\nAuthentication failed", "password that is kept for ann"),
        ("svn: E170001: Can't get password", "password that is kept for ann"),
        ("svn: E215004: Authentication error from server: Password incorrect", "password that is kept for ann"),
        ("svn: E170001: Authorization failed", "forbids this to ann"),
        ("svnmucc: E175013: Access to '/images/!svn/me' forbidden", "forbids this to ann"),
        (f"{NO_SESSION}svn: E160013: '/images' path not found", "has no repository there"),
        (f"{NO_SESSION}svn: E175003: The server at '{URL}' does not support the HTTP/DAV protocol", "has no repository there"),
        (f"{NO_SESSION}svn: E000002: Could not find the requested SVN filesystem", "has no repository there"),
        (f"{NO_SESSION}svn: E210005: No repository found in 'svn://svn.example/images'", "has no repository there"),
        (f"{NO_SESSION}svn: E000013: Could not open the requested SVN filesystem", "the server itself failed"),
        ("svnmucc: E000013: Can't open file '/srv/db/txn-current-lock': Permission denied", "the server itself failed"),
        (f"{NO_SESSION}svn: E175002: Unexpected server error 500 'Internal Server Error' on '/images'", "its error log"),
        ("svnmucc: E170011: Repository moved permanently to 'https://new.example/images'", "to 'https://new.example/images': set"),
        (f"{NO_SESSION}svn: E000111: Error running context: Connection refused", "answer (Error running context: Connection"),
        (f"{NO_SESSION}svn: E670002: Name or service not known", "(Name or service not known)"),
        ("svnmucc: E120106: ra_serf: The server sent a truncated HTTP response body.", "does not answer"),
        ("svn: E210002: Network connection closed unexpectedly", "does not answer"),
        (f"{NO_SESSION}svn: E210002: To better debug SSH connection problems, remove the -q option", "does not answer: is"),
        ("svn: E160013: '/images/!svn/rvr/2/netboot' path not found", ""),
        ("svn: E160004: Corrupt node-revision", ""),
    ],
)  # fmt: skip
def test_meaning(said: str, meant: str) -> None:
    found = refusals.meaning(said, URL, lambda: "ann")
    assert meant in found if meant else found == ""


def test_without_a_password() -> None:
    found = refusals.meaning("svn: E170001: Can't get password", URL, str)
    assert "none is kept" in found
    assert f"`svn info {URL}`" in found


def test_a_server_without_the_repository_is_no_empty_one() -> None:
    """It would be taken for a store that the first create makes."""
    assert NO_PATH.search("svn: E160013: '/images/netboot' path not found")
    assert not NO_PATH.search(f"{NO_SESSION}svn: E160013: '/images' path not found")
