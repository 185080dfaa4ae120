"""Tell a webhook how a reconciliation ended: JSON, signed, so that the receiver knows who sent it and that it is whole.

`X-Rejoin-Signature: t=<seconds>,v1=<hex>` where v1 is HMAC-SHA256, by the shared secret, of `<seconds>.<body>`. A receiver
computes the same over the bytes that it got, and refuses a time that is too long ago.
"""

import hashlib
import hmac
import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from pipelines.config import WebhookConfig
from pipelines.errors import ConfigError
from pipelines.references import resolve

SIGNATURE = "X-Rejoin-Signature"
_TIMEOUT_SECONDS = 10

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where to POST, with references looked up: before the run begins, so that one that is missing is told at once."""

    url: str = field(repr=False)
    secret: str | None = field(repr=False)
    when: str

    @classmethod
    def of(cls, config: WebhookConfig) -> "Webhook":
        """Raises ConfigError for a reference that leads nowhere, or an address that is none."""
        url = resolve(config.url, "reconcile.webhook.url")
        if not url.startswith(("http://", "https://")):
            raise ConfigError("reconcile.webhook.url: does not begin with http:// or https://")
        secret = None if config.secret is None else resolve(config.secret, "reconcile.webhook.secret")
        return cls(url=url, secret=secret, when=config.when)

    def tell(self, told: dict[str, Any]) -> bool:
        """POST; whether it was taken. A receiver that is down costs the run nothing but a warning: the exit code, and the
        history, say the same. Tried three times where another time may help."""
        body = json.dumps(told, sort_keys=True, default=str).encode()
        request = urllib.request.Request(self.url, data=body, method="POST")  # noqa: S310  # http(s) only, see `of`
        request.add_header("Content-Type", "application/json")
        if self.secret is not None:
            request.add_header(SIGNATURE, signature(self.secret, body, int(time.time())))
        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(3),
            wait=wait_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        try:
            for attempt in attempts:
                with attempt, urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310  # as above
                    pass
        except (OSError, ValueError, http.client.HTTPException) as error:
            log.warning("the webhook was not told of this reconciliation", problem=str(error) or type(error).__name__)
            return False
        return True


def signature(secret: str, body: bytes, at: int) -> str:
    """The header's value; `at` is in seconds since the epoch."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS
    return isinstance(error, OSError)
