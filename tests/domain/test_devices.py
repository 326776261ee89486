"""Devices are named as their owners know them."""

from __future__ import annotations

import pytest

from domain.devices import device_name

_CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36"
_IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 Version/18.0 Mobile Safari/604.1"
_FIREFOX = "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0"


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (_CHROME, "Chrome on Linux"),
        (_CHROME + " Edg/156.0", "Edge on Linux"),
        (_IPHONE, "Safari on iPhone"),
        (_FIREFOX, "Firefox on Android"),
        ("curl/8.5.0", "curl"),
        ("", ""),
        ("x" * 500, "x" * 40),
    ],
)
def test_a_browser_is_called_by_its_name_and_system(user_agent: str, name: str) -> None:
    assert device_name(user_agent) == name
