"""Whether the address of an endpoint belongs to the user's own network or to somebody else's service."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

# Names that no public resolver answers: RFC 6761, RFC 6762, RFC 8375, Kubernetes, and usual names of office networks.
_PRIVATE_NAME = re.compile(r"(^|\.)(localhost|local|internal|intranet|corp|lan|home|localdomain|home\.arpa|svc)\.?$")


def endpoint_host(endpoint: str) -> str:
    """The host of an address with or without scheme, user, port and path, in small letters; IPv6 without brackets."""
    text = endpoint.strip()
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        try:
            parts = urlsplit(text if re.match(r"^[A-Za-z][A-Za-z0-9+.\-]*://", text) else f"//{text}")
            return (parts.hostname or "").casefold()
        except ValueError:
            return ""
    return text.casefold()


def is_loopback(endpoint: str) -> bool:
    """True for an address of this machine that no other machine has."""
    host = endpoint_host(endpoint)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_private_address(endpoint: str) -> bool:
    """True for this machine, a private or shared network (100.64.0.0/10 too), and names without a public domain."""
    host = endpoint_host(endpoint)
    try:
        return not ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return bool(host) and ("." not in host.rstrip(".") or bool(_PRIVATE_NAME.search(host)))
