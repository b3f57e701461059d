"""Addresses of servers that speak HTTP, as settings: shown to everybody, so they hold nothing secret."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def require_http(address: str) -> str:
    """The address, if it is one of a server that speaks HTTP and holds nothing that must not be shown.

    Raises:
        ValueError: it has another scheme or no host, or a name and password, a query or a fragment in it. The text
            does not repeat it.
    """
    try:
        parts = urlsplit(address)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("not an address such as http://127.0.0.1:8081")
    if "@" in parts.netloc:
        raise ValueError("an address is shown to everybody: name and password have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("an address with a query or a fragment; it ends with its path")
    return address


def require_each_http(addresses: str) -> str:
    """Several of them, with commas in between.

    Raises:
        ValueError: see `require_http`.
    """
    for address in addresses.split(","):
        require_http(address.strip())
    return addresses


HttpAddress = Annotated[str, AfterValidator(require_http)]
HttpAddresses = Annotated[str, AfterValidator(require_each_http)]
