"""What the REST client sends, and which failures it takes for passing ones."""

import pytest
import requests
from requests.adapters import BaseAdapter

from visionkit.serving.rest_client import RestTransport
from visionkit.serving.retries import CallError


class Failing(BaseAdapter):
    """Keeps the request and raises."""

    def __init__(self, error):
        super().__init__()
        self.error, self.sent = error, None

    def send(self, request, **_):
        self.sent = request
        raise self.error("it broke")

    def close(self):
        pass


def ask(error, headers):
    """The request that was sent, and whether its failure is one to try again."""
    transport = RestTransport("http://host", "dogs", "", 1, headers)
    adapter = Failing(error)
    transport._session().mount("http://", adapter)
    with pytest.raises(CallError) as caught:
        transport.status()
    return adapter.sent, caught.value.retriable


@pytest.mark.parametrize(
    ("error", "retriable"),
    [
        (requests.ConnectTimeout, True),
        (requests.ConnectionError, True),
        (requests.exceptions.ChunkedEncodingError, True),
        (requests.exceptions.SSLError, False),
        (requests.ReadTimeout, False),
        (requests.TooManyRedirects, False),
    ],
)
def test_only_a_lost_connection_is_tried_again(error, retriable):
    assert ask(error, {})[1] is retriable


def test_a_netrc_entry_does_not_replace_the_authorization(tmp_path, monkeypatch):
    file = tmp_path / "netrc"
    file.write_text("machine host login me password mine\n")
    monkeypatch.setenv("NETRC", str(file))
    sent, _ = ask(requests.ConnectionError, {"authorization": "Bearer token"})
    assert sent.headers["Authorization"] == "Bearer token"
    sent, _ = ask(requests.ConnectionError, {})
    assert sent.headers["Authorization"].startswith("Basic ")
