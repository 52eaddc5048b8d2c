"""The console, as a person's server and its terminals reach it: with the server's own token.

Standard library only, for commands and, in a thread, for the server.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kernels.hostile import parse_json
from kernels.messages import Message, ToldError, persons_language, say, verbatim

TIMEOUT = 20.0  # seconds
_MAX_BYTES = 4 * 2**20
_MAX_VALUES = 100_000


class ConsoleError(ToldError):
    """The console refuses, or does not answer; ``message`` says why and what to do.

    ``code`` is that of the console's refusal.
    """

    def __init__(self, message: Message, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Console:
    """Requests to the console's REST API.

    Args:
        environ: where its address and the token are (LABCOMMONS_CONSOLE_URL, JUPYTERHUB_API_TOKEN).
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._url = environ.get("LABCOMMONS_CONSOLE_URL", "").rstrip("/")
        self._token = environ.get("JUPYTERHUB_API_TOKEN", "")
        self._language = persons_language(environ)

    def ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """What it answers. Raises ConsoleError."""
        if not self._url or not self._token:
            raise ConsoleError(say("no_console"))
        request = urllib.request.Request(  # noqa: S310  (the spawner's address)
            f"{self._url}/api/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"token {self._token}",
                "Content-Type": "application/json",
                "Accept-Language": self._language.replace("_", "-"),
                "Cookie": f"labcommons-lang={self._language}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return _document(answer.read(_MAX_BYTES + 1))
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, ValueError) as error:
            raise ConsoleError(say("console_silent")) from error

    def derive(self, source: str, name: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Ask for one's own copy of an environment with other packages; the build."""
        path = f"environments/{quote(source, safe='')}/{quote(name, safe='')}/derive"
        return self._build(self.ask("POST", path, body))

    def create(self, name: str, spec: str) -> dict[str, Any]:
        """Ask for a personal environment from the text of an environment.yml; the build."""
        body = {"source": "personal", "name": name, "spec": spec}
        return self._build(self.ask("POST", "environments", body))

    def delete(self, name: str) -> dict[str, Any]:
        """Ask for a personal environment to be deleted; the build."""
        return self._build(self.ask("DELETE", f"environments/personal/{quote(name, safe='')}"))

    def build(self, number: str) -> dict[str, Any]:
        """How far a build is."""
        return self._build(self.ask("GET", f"builds/{quote(number, safe='')}"))

    @staticmethod
    def _build(answer: Mapping[str, Any]) -> dict[str, Any]:
        found = answer.get("build")
        if not isinstance(found, dict) or not isinstance(found.get("id"), str):
            raise ConsoleError(say("console_silent"))
        return found


def _document(raw: bytes) -> dict[str, Any]:
    document = parse_json(raw, _MAX_BYTES, values=_MAX_VALUES)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")  # noqa: TRY004  (of what is read)
    return document


def _refusal(error: urllib.error.HTTPError) -> ConsoleError:
    if error.code in (502, 503, 504):
        return ConsoleError(say("console_silent"))
    try:
        document = _document(error.read(_MAX_BYTES + 1))
    except (OSError, ValueError):
        return ConsoleError(say("console_silent"))
    told = document.get("error")
    # The gate, which offers servers a list, says it in its own form.
    told = told if isinstance(told, dict) else document
    words = verbatim(str(told.get("message") or error.code)[:2000])
    return ConsoleError(words, str(told.get("code") or "")[:80])
