"""The end of a server's own log, for its owner, where the server ended without anybody stopping it.

What it says is its owner's, and hostile to everybody else: it is shown as text, within bounds, and
without what opens something (people send such pages to others who are to help).
"""

from __future__ import annotations

import re
from collections.abc import Collection

LINES, LINE, MOST = 40, 400, 8000  # lines, characters of a line and of all
# Ends after which nobody knows more than the server itself may have said.
CAUSES = ("start_failed", "ended", "killed", "out_of_memory")
HIDDEN = "[hidden]"
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")
_SECRETS = re.compile(
    r"""(?ix)
      (?P<before> \b[\w-]*(?:token|passw(?:or)?d|secret|api[_-]?key|code|state)["']?\s*[=:]\s*["']?
        | \bauthorization["']?\s*[=:]\s*["']?(?:\w+\s+)?
        | (?<=://)[^\s/:@]*: (?=[^\s/@]+@) )
      [^\s"'&,;@]+
    | \b[0-9a-f]{32,}\b | \beyJ[\w-]{10,}\.[\w.-]+ """
)


def cleaned(output: str, secrets: Collection[str] = ()) -> str:
    """The last lines of an output as plain text; ``secrets`` are hidden wherever they stand."""
    for secret in secrets:
        if secret:
            output = output.replace(secret, HIDDEN)
    lines = []
    for line in _ESCAPES.sub("", output).splitlines()[-LINES:]:
        text = "".join(one if one.isprintable() else " " for one in line[: 2 * LINE]).rstrip()
        lines.append(_SECRETS.sub(_hide, text)[:LINE])
    return "\n".join(lines)[-MOST:].strip("\n")


def _hide(match: re.Match[str]) -> str:
    return (match["before"] or "") + HIDDEN
