"""The webhook is told once, signed, and costs a run nothing where it cannot be."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pipelines.config import WebhookConfig
from pipelines.errors import ConfigError
from pipelines.reconcile import notify
from pipelines.reconcile.notify import SIGNATURE, Webhook, signature

Serve = Callable[..., tuple[str, list[tuple[dict[str, str], bytes]]]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """A server that answers each request with the next of some statuses; its URL, and what it got."""
    servers: list[HTTPServer] = []

    def start(*statuses: int) -> tuple[str, list[tuple[dict[str, str], bytes]]]:
        got: list[tuple[dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(statuses[len(got) - 1])
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/hook", got

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_what_is_told_is_signed_over_its_bytes(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "shh")
    url, got = serve(204)
    webhook = Webhook.of(WebhookConfig(url=url, secret="${env:HOOK_SECRET}"))
    assert "shh" not in repr(webhook)
    assert webhook.tell({"verdict": "differs", "name": "ü"})
    ((headers, body),) = got
    assert json.loads(body) == {"verdict": "differs", "name": "ü"}
    at = int(headers[SIGNATURE].split(",")[0].removeprefix("t="))
    assert headers[SIGNATURE] == signature("shh", body, at)
    # Computed by another tool: printf '1.{}' | openssl dgst -sha256 -hmac shh
    assert signature("shh", b"{}", 1) == "t=1,v1=a90673f2895c42e3df468499ca588cea93b36c3f386f71fef268d0d9881e262f"


@pytest.mark.parametrize(
    ("statuses", "taken", "asked"),
    [((500, 429, 200), True, 3), ((503, 503, 503), False, 3), ((404,), False, 1), ((200,), True, 1)],
)
def test_what_may_pass_is_tried_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, statuses: tuple[int, ...], taken: bool, asked: int
) -> None:
    url, got = serve(*statuses)
    assert Webhook.of(WebhookConfig(url=url)).tell({}) is taken
    assert len(got) == asked
    assert SIGNATURE not in got[0][0]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_TIMEOUT_SECONDS", 1)
    assert not Webhook.of(WebhookConfig(url="http://127.0.0.1:1/")).tell({})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "ftp://x/"}, "no URL that begins with http"),
        ({"url": "http://x/", "secret": "plain"}, "a secret is not written here"),
    ],
)
def test_what_cannot_be_is_refused_at_load(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WebhookConfig(**given)


def test_a_reference_that_leads_nowhere_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(ConfigError, match=r"reconcile\.webhook\.url: environment variable NO_SUCH is not set"):
        Webhook.of(WebhookConfig(url="${env:NO_SUCH}"))
    monkeypatch.setenv("NO_SUCH", "file:///etc/passwd")
    with pytest.raises(ConfigError, match="does not begin with http"):
        Webhook.of(WebhookConfig(url="${env:NO_SUCH}"))
