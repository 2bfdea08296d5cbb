"""Where the gateway asks; asking itself is in test_http."""

import ssl
from typing import Any

from dragomand.gateway.provider import Provider, trust


def test_certificates_of_ones_own(tmp_path: Any) -> None:
    def trusted(base_url: str, ca_file: str | None) -> Any:
        return trust(Provider(base_url=base_url, ca_file=ca_file))

    assert trusted("https://x", None) is True
    assert trusted("http://x", "/a/file") is True
    assert isinstance(trusted("https://x", str(tmp_path / "nowhere")), ssl.SSLContext)
