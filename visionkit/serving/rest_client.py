"""TF Serving's REST interface, asked with `requests`; no TensorFlow."""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections.abc import Sequence

import numpy as np

from visionkit.serving.retries import CallError

BUSY = (429, 503)
"""HTTP statuses of a server that has no room now, or no version yet."""


class RestTransport:
    """One model behind `http://` or `https://`. Threads may share it.

    Args:
        url: Up to and without `/v1`, e.g. "http://host:8501".
        model: Its name on the server.
        which: "", "/versions/3" or "/labels/stable".
        timeout: Seconds for one attempt.
        headers: Sent with every request.
    """

    def __init__(self, url: str, model: str, which: str, timeout: float, headers: dict):
        name = urllib.parse.quote(model, safe="")
        self.path = f"{url.rstrip('/')}/v1/models/{name}{which}"
        self.timeout = timeout
        self.headers = headers
        self.local = threading.local()

    def predict(self, signature: str, name: str, images: Sequence[bytes]) -> dict:
        """Outputs by name, as nested lists; the first dimension is the batch."""
        encoded = [{"b64": base64.b64encode(i).decode("ascii")} for i in images]
        body = {"signature_name": signature, "inputs": {name: encoded}}
        outputs = self._ask("POST", ":predict", json.dumps(body))["outputs"]
        return {key: _plain(value) for key, value in outputs.items()}

    def metadata(self) -> dict:
        """Signature -> its SignatureDef as TF Serving writes it in JSON."""
        answer = self._ask("GET", "/metadata")
        return answer["metadata"]["signature_def"]["signature_def"]

    def status(self) -> list[dict]:
        """The versions, each with "version", "state" and "status"."""
        return self._ask("GET", "")["model_version_status"]

    def close(self) -> None:
        """Close this thread's connections."""
        if session := getattr(self.local, "session", None):
            session.close()

    def _session(self):
        import requests

        # requests does not promise that threads may share a session.
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
            self.local.session.headers.update(self.headers)
            if "Authorization" in self.local.session.headers:
                # An entry of ~/.netrc would replace it.
                self.local.session.auth = lambda request: request
        return self.local.session

    def _ask(self, verb: str, action: str, body: str | None = None) -> dict:
        import requests

        url = self.path + action
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            answer = self._session().request(
                verb, url, data=body, headers=headers, timeout=self.timeout
            )
        except requests.ReadTimeout as error:
            raise CallError(
                f"{url} did not answer within {self.timeout} s", None
            ) from error
        except requests.RequestException as error:
            raise CallError(
                f"{url} cannot be reached: {error}", None, _passes(error)
            ) from error
        if answer.status_code != 200:
            raise _refusal(url, answer)
        try:
            # Class names are bytes, of any encoding.
            return json.loads(answer.content.decode("utf-8", "surrogateescape"))
        except ValueError as error:
            raise CallError(
                f"{url} answered what is no JSON: {answer.content[:80]!r}. Is it the "
                "REST port of TF Serving?",
                answer.status_code,
            ) from error


def _passes(error: Exception) -> bool:
    """Whether a connection failed in a way that gets better by itself."""
    from requests import exceptions

    # Not made in time, or cut off, before or within the answer. A certificate that is
    # refused stays so.
    lost = exceptions.ConnectionError, exceptions.ChunkedEncodingError
    return isinstance(error, lost) and not isinstance(error, exceptions.SSLError)


def _refusal(url: str, answer) -> CallError:
    try:
        message = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    try:
        retry_after = float(answer.headers.get("Retry-After", 0))
    except ValueError:  # a date
        retry_after = 0.0
    status = answer.status_code
    return CallError(
        f"{url} answered {status}: {message}",
        status,
        status in BUSY,
        retry_after,
        too_large=status == 413,
    )


def _plain(value):
    """Strings as bytes in an object array, as gRPC gives them; the rest as it is."""
    if _leaf(value) is str:
        array = np.array(value, object)
        flat = [text.encode("utf-8", "surrogateescape") for text in array.flat]
        return np.array([*flat, None], object)[:-1].reshape(array.shape)
    return value


def _leaf(value) -> type:
    while isinstance(value, list) and value:
        value = value[0]
    return type(value)
