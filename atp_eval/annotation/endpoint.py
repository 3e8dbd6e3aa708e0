"""Any OpenAI-compatible chat endpoint, bounded in time, size and tries; its key goes to no file and no other address.

What goes wrong once is asked again (429, 5xx, timeouts); what would go wrong each time stops everything (401, 403, 404,
redirects); what is wrong with one request fails that request (other 4xx, answers that are no chat completion).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx

from atp_eval.errors import UserError

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
HOPELESS = {401, 403, 404, 405}
LONGEST_REPLY = 2**20  # bytes
LONGEST_WAIT = 60.0  # seconds between two tries, whatever the endpoint asks for
LOCAL = {"localhost", "127.0.0.1", "::1"}


class Reply(NamedTuple):
    """What the model said, and the tokens that the endpoint counted; None where it does not say."""

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


class RequestFailed(Exception):
    """One request brought no answer; its text says why. Others may."""


class Endpoint:
    """POSTs to `url`/chat/completions. timeout: seconds for a whole reply; retries: tries after the first.

    extra: fields of the request's body that are set, or left out where None. Raises UserError for a URL that cannot be
    one. `halt` ends waiting for another try.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 1.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.url, self.model, self.timeout, self.retries, self.backoff = (
            url.rstrip("/"),
            model,
            timeout,
            retries,
            backoff,
        )
        self.extra = dict(extra or {})
        self.halt = threading.Event()
        self._key = key
        parts = parsed(url)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A proxy that the environment names is for what is elsewhere.
        self._client = httpx.Client(
            headers=headers, timeout=timeout, follow_redirects=False, trust_env=parts.host not in LOCAL
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """A request's body: temperature 0, a short answer, and what `extra` says otherwise."""
        plain = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 300}
        return {name: value for name, value in {**plain, **self.extra}.items() if value is not None}

    def ask(self, messages: list[dict[str, Any]]) -> Reply:
        """Raises RequestFailed where this request is lost, UserError where each would be."""
        data = json.dumps(self.body(messages)).encode("ascii")
        for left in range(self.retries, -1, -1):
            wait, why = None, ""
            try:
                status, wait, text = self._post(data)
                if status < 300:
                    return reply(text)
                why = f"HTTP {status}{': ' + excerpt(text) if text.strip() else ''}"
                if status < 400:
                    raise UserError(f"{self.url} redirects ({why}); give the address that answers as --judge-url")
                if status in HOPELESS:
                    raise UserError(f"{self.url} refuses model {self.model!r}: {why}. Check --judge-url, --judge-model "
                                    "and --judge-key-env.")  # fmt: skip
                if status not in RETRIED:
                    raise RequestFailed(why)
            except (httpx.TimeoutException, TimeoutError):
                why = f"no whole answer in {self.timeout:g} s"
            except httpx.TransportError as error:
                why = self._hide(str(error)) or type(error).__name__
            if not left:
                break
            pause = self.backoff * 2.0 ** (self.retries - left) if wait is None else wait
            if self.halt.wait(min(pause, LONGEST_WAIT)):
                break
        raise RequestFailed(f"{why}, tried {f'{self.retries + 1} times' if self.retries else 'once'}")

    def _post(self, data: bytes) -> tuple[int, float | None, str]:
        """Status, the seconds that the endpoint asks to wait, and the body, with the key out of it."""
        until = time.monotonic() + self.timeout
        headers = {"Content-Type": "application/json"}
        with self._client.stream("POST", f"{self.url}/chat/completions", content=data, headers=headers) as response:
            pieces, size = [], 0
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > LONGEST_REPLY:
                    raise RequestFailed(f"a reply of more than {LONGEST_REPLY:,} bytes")
                if time.monotonic() > until:  # bytes that drip in never time out one by one
                    raise TimeoutError
            asked = response.headers.get("Retry-After", "")
            wait = float(asked) if asked.replace(".", "", 1).isdigit() else None
            return response.status_code, wait, self._hide(b"".join(pieces).decode("utf-8", "replace"))

    def _hide(self, text: str) -> str:
        """Text without the key, should the endpoint say it back."""
        return text.replace(self._key, "[key]") if self._key else text


def parsed(url: str) -> httpx.URL:
    """Raises UserError for what is no plain http(s) address."""
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise UserError(f"--judge-url {url!r} is no address: {error}") from None
    if parts.userinfo:
        raise UserError(
            "--judge-url holds a password: put the key into an environment variable, --judge-key-env names it"
        )
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise UserError(f"--judge-url {url!r}: give an address such as http://localhost:8000/v1")
    return parts


def reply(text: str) -> Reply:
    """The answer out of a chat completion. Raises RequestFailed where the text is none."""
    try:
        data = json.loads(text)
        said = data["choices"][0]["message"]["content"]
        usage = data.get("usage") or {}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise RequestFailed(f"no chat completion: {excerpt(text) or 'an empty reply'}") from None
    if not isinstance(said, str):
        raise RequestFailed("no chat completion: its content is no text")
    return Reply(said, *(count(usage, name) for name in ("prompt_tokens", "completion_tokens")))


def count(usage: object, name: str) -> int | None:
    """A number of tokens, where there is one."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def excerpt(text: str, longest: int = 120) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}…"
