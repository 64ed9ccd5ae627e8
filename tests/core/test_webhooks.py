import base64
import json
import time

import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from deployments.core.config import ServiceConfig, WebhookConfig
from deployments.core.webhooks import Endpoint, event_body, is_public

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEXT = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
URL = "https://example.org/hook?key=1"


def endpoint(secret: str = SECRET, url: str = URL, *, allow_private: bool = False) -> Endpoint:
    return WebhookConfig(url=url, secret=secret, allow_private=allow_private).endpoint({})


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The reference library accepts it, for this body and no other."""
    body = event_body("evt_1", "video.completed", "video_1", 1700000000.25)
    headers = endpoint().headers("evt_1", body, time.time())
    assert Webhook(SECRET).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace("video_1", "video_2"), headers)


def test_the_signature_does_not_change() -> None:
    """Computed once with openssl: HMAC-SHA256 of `evt_1.1700000000.{}`."""
    signature = endpoint().headers("evt_1", "{}", 1700000000.9)["webhook-signature"]
    assert signature == "v1,bXtchBV0Hi1flm60IFUb87JKA3d/Yvv8UoEjbNotegk="


def test_while_a_secret_is_replaced_both_sign() -> None:
    """A receiver with either is served."""
    headers = endpoint(f"{NEXT} {SECRET}").headers("evt_1", "{}", time.time())
    for secret in (SECRET, NEXT):
        Webhook(secret).verify("{}", headers)


def test_the_body_has_the_shape_of_openais_events() -> None:
    """Only the id is told; the rest is asked for with the receiver's own rights."""
    assert json.loads(event_body("evt_1", "video.failed", "video_1", 1700000000.25)) == {
        "id": "evt_1",
        "object": "event",
        "type": "video.failed",
        "created_at": 1700000000,
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "data": {"id": "video_1"},
    }


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",  # noqa: S104  refused, not bound
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00::1",
        "ff02::1",
    ],
)
def test_an_address_that_is_not_of_the_internet_is_refused(address: str) -> None:
    """In any spelling that a resolver may give."""
    assert not is_public(address)
    assert "not a public address" in endpoint().refusal(address)
    assert endpoint(allow_private=True).refusal(address) == ""


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111"])
def test_a_public_address_is_served_over_https_alone(address: str) -> None:
    """`allow_private` opens http:// for one's own network, not for the internet."""
    assert endpoint().refusal(address) == ""
    plain = endpoint(url="http://example.org", allow_private=True)
    assert "http:// is for private ones" in plain.refusal(address)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"url": "http://example.org/hook"}, "use https://, or set allow_private: true"),
        ({"url": "https://127.0.0.1/hook"}, "127.0.0.1 is on this machine or in a private"),
        ({"url": "https://localhost/hook"}, "localhost is on this machine"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "::ffff:10.0.0.1 is on this machine or in a"),
        ({"url": "https://169.254.169.254/latest"}, "set allow_private: true if that is meant"),
        ({"url": "ftp://example.org"}, "it looks like https://example.org/hook"),
        ({"url": "https://user:pass@example.org"}, "a user or a #fragment"),
        ({"url": "https://example.org:99999"}, "Port out of range"),
        ({"secret": "hush"}, "secret must be whsec_ and the base64 of 24 to 64 random bytes"),
        ({"secret": "whsec_c2hvcnQ="}, "openssl rand"),
        ({"secret": ""}, "give either secret or secret_env"),
        ({"secret_env": "HOOK_SECRET"}, "give either secret or secret_env"),
        ({"events": []}, "events"),
        ({"events": ["video.started"]}, "'video.completed' or 'video.failed'"),
    ],
)
def test_a_receiver_that_cannot_work_is_refused_by_the_config(
    changes: dict[str, object], complaint: str
) -> None:
    """At the start, in a sentence; and no secret is in it."""
    values = {"url": URL, "secret": SECRET} | changes
    with pytest.raises(ValidationError) as refused:
        ServiceConfig.model_validate({"webhooks": [values]})
    assert complaint in str(refused.value)
    assert "webhooks.0" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_secret_may_stand_in_the_environment() -> None:
    """Then it is in no file, nor on the dashboard; a missing one is named."""
    webhook = WebhookConfig(url=URL, secret_env="HOOK_SECRET")
    assert webhook.endpoint({"HOOK_SECRET": SECRET}).secrets == (bytes(range(32)),)
    with pytest.raises(ValueError, match=r"\$HOOK_SECRET must be whsec_"):
        webhook.endpoint({})


def test_a_secret_is_not_shown() -> None:
    """Neither by the config nor by what is made of it."""
    webhook = WebhookConfig(url=URL, secret=SECRET)
    shown = repr(webhook) + repr(endpoint()) + str(webhook.model_dump())
    assert SECRET not in shown
    assert repr(bytes(range(32))) not in shown
