"""Ten people in one document of a shared server: how long an edit of one takes to the nine others.

Runs with the server's own Python, in its container, and prints JSON: ``edits.py URL EDITS``. Each
is a client of its own, with a document of its own, as a browser's page is; what a page then
does to show it is not in the figure.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
import urllib.request
from typing import Any

from pycrdt import (
    Doc,
    Text,
    YMessageType,
    create_sync_message,
    create_update_message,
    handle_sync_message,
)
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

PEOPLE = 10
PAUSE = 0.1  # seconds between two edits
PATIENCE = 30  # seconds
HEADERS = {"Authorization": f"token {os.environ['JUPYTERHUB_API_TOKEN']}"}


class Person:
    """A client with a copy of the document; ``seen``: when each word came."""

    def __init__(self) -> None:
        self.doc = Doc()
        self.text = self.doc.get("source", type=Text)
        self.seen: dict[str, float] = {}
        self.synced = asyncio.Event()
        self.text.observe(self._note)

    def _note(self, event: Any) -> None:
        now = time.perf_counter()
        for part in event.delta:
            for word in str(part.get("insert", "")).split(";"):
                self.seen.setdefault(word, now)

    async def enter(self, url: str, room: str) -> None:
        """Open the document, and have all of it."""
        address = f"{url.replace('http', 'ws', 1)}api/collaboration/room/{room}"
        self.socket = await websocket_connect(HTTPRequest(address, headers=HEADERS))
        self.listening = asyncio.create_task(self._listen())
        await self.socket.write_message(create_sync_message(self.doc), binary=True)
        await asyncio.wait_for(self.synced.wait(), PATIENCE)

    async def _listen(self) -> None:
        while (message := await self.socket.read_message()) is not None:
            if message[0] == YMessageType.SYNC:
                reply = handle_sync_message(message[1:], self.doc)
                if reply is not None:
                    await self.socket.write_message(reply, binary=True)
                self.synced.set()


def ask(address: str, body: object) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(address, data, HEADERS, method="PUT")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


async def main(url: str, edits: int) -> None:
    ask(f"{url}api/contents/edits.txt", {"type": "file", "format": "text", "content": ""})
    found = ask(f"{url}api/collaboration/session/edits.txt", {"format": "text", "type": "file"})
    room = f"{found['format']}:{found['type']}:{found['fileId']}?sessionId={found['sessionId']}"
    people = [Person() for _ in range(PEOPLE)]
    for one in people:
        await one.enter(url, room)
    writer, others, updates = people[0], people[1:], list[bytes]()
    writer.doc.observe(lambda event: updates.append(event.update))
    taken = []
    for number in range(edits):
        word, began = f"word{number}", time.perf_counter()
        writer.text += f"{word};"
        while updates:
            await writer.socket.write_message(create_update_message(updates.pop(0)), binary=True)
        async with asyncio.timeout(PATIENCE):
            while any(word not in one.seen for one in others):
                await asyncio.sleep(0.0005)
        taken += sorted(one.seen[word] - began for one in others)
        await asyncio.sleep(PAUSE)
    taken.sort()
    told = {
        "median": statistics.median(taken),
        "95 %": taken[int(len(taken) * 0.95)],
        "last": taken[-1],
    }
    print(json.dumps({name: round(1000 * seconds, 1) for name, seconds in told.items()}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
