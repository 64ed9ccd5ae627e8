"""Webhooks: what they say, how they are signed, and which addresses they may go to. Sends nothing.

Signatures follow Standard Webhooks 1.0.0
(standard-webhooks/standard-webhooks@03f5f8c spec/standard-webhooks.md), bodies OpenAI's events.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self
from urllib.parse import urlsplit

Event = Literal["video.completed", "video.failed"]
SECRET_PREFIX = "whsec_"  # noqa: S105  the format's marker, no secret
SECRET_BYTES = range(24, 65)
# All of IPv6 that is routed worldwide (RFC 4291, 2.4), and in it 6to4, which carries IPv4 inside.
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")


@dataclass(frozen=True)
class Endpoint:
    """One receiver.

    Attributes:
        key: names it in the table of deliveries, for as long as its URL stays the same.
        secrets: as bytes, the newest first; each signs.
        allow_private: it may lie on this machine or in a private network.
    """

    key: str
    url: str
    secrets: tuple[bytes, ...] = field(repr=False)
    events: frozenset[Event]
    allow_private: bool

    @classmethod
    def at(cls, url: str, secret: str, events: tuple[Event, ...], *, allow_private: bool) -> Self:
        """Return the receiver at a checked URL. Raises ValueError when the secret is none.

        Args: secret: `whsec_...`, or several of them with spaces between.
        """
        key = hashlib.sha256(url.encode()).hexdigest()[:16]
        return cls(key, url, read_secrets(secret), frozenset(events), allow_private)

    @property
    def host(self) -> str:
        """The name or address in its URL: what logs show, as the path may hold a password."""
        return urlsplit(self.url).hostname or ""

    def refusal(self, address: str) -> str:
        """Return why nothing may be sent to this IP address of the host, or ""."""
        if not is_public(address):
            return "" if self.allow_private else f"{address} is not a public address"
        if urlsplit(self.url).scheme == "http":
            return f"{address} is a public address, and http:// is for private ones"
        return ""

    def headers(self, event_id: str, body: str, now: float) -> dict[str, str]:
        """Return the headers that sign `body`, sent at `now` in Unix seconds."""
        timestamp = str(int(now))
        signed = f"{event_id}.{timestamp}.{body}".encode()
        macs = (hmac.digest(secret, signed, "sha256") for secret in self.secrets)
        return {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs),
        }


def new_event_id() -> str:
    """Return an id for a webhook: the same at each attempt, so that receivers know it again."""
    return f"evt_{secrets.token_hex(12)}"


def event_body(event_id: str, event: Event, job_id: str, at: float) -> str:
    """Return the JSON of an event that happened `at`, in Unix seconds."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
    return json.dumps(
        {
            "id": event_id,
            "object": "event",
            "type": event,
            "created_at": int(at),
            "timestamp": moment.replace("+00:00", "Z"),
            "data": {"id": job_id},
        },
        separators=(",", ":"),
    )


def read_secrets(text: str) -> tuple[bytes, ...]:
    """Return the secrets in `text`. Raises ValueError, which does not show them."""
    wanted = (
        f"must be {SECRET_PREFIX} and the base64 of {SECRET_BYTES.start} to {SECRET_BYTES.stop - 1}"
        f' random bytes; `echo "{SECRET_PREFIX}$(openssl rand -base64 32)"` makes one'
    )
    found = []
    for word in text.split():
        try:
            secret = base64.b64decode(word.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError(wanted) from None
        if not word.startswith(SECRET_PREFIX) or len(secret) not in SECRET_BYTES:
            raise ValueError(wanted)
        found.append(secret)
    if not found:
        raise ValueError(wanted)
    return tuple(found)


def check_url(url: str, *, allow_private: bool) -> None:
    """Raise ValueError, saying why, for a URL that webhooks cannot be sent to.

    Looks no name up: the addresses behind it are checked at each delivery.
    """
    parsed = urlsplit(url)
    try:
        port = parsed.port
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.hostname or port == 0:
        raise ValueError(f"{url!r} is not an address; it looks like https://example.org/hook")
    if parsed.username is not None or parsed.fragment:
        raise ValueError("an address with a user or a #fragment in it cannot be used")
    if allow_private:
        return
    if parsed.scheme == "http":
        raise ValueError(
            "http:// is only for receivers in a private network: use https://, or set "
            "allow_private: true"
        )
    if _is_own_or_private(parsed.hostname):
        raise ValueError(
            f"{parsed.hostname} is on this machine or in a private network; set "
            "allow_private: true if that is meant"
        )


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet at large: not of this machine, a private
    network, the link (where clouds tell their secrets) or a group, nor another address in disguise.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in GLOBAL_UNICAST or ip in SIX_TO_FOUR):
        return False
    return ip.is_global and not ip.is_multicast


def _is_own_or_private(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:  # a name
        return False
