"""A page of a Python index, with its links leading to the mirror (PEP 503, PEP 691). Pure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from packaging.utils import canonicalize_name

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "text/html"
# What clients ask for, in what an index answers best.
ACCEPT = f"{JSON}, application/vnd.pypi.simple.v1+html;q=0.2, {HTML};q=0.1"
_HREF = re.compile(
    r"""(<a\b[^>]{0,4000}?\bhref\s*=\s*)(?:"([^"<>]{0,4000})"|'([^'<>]{0,4000})')""", re.I
)
_PYPI = re.compile(r"/packages/([0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{60}/[^/?#]+)$")


class NoPage(ValueError):
    """What came is no page of an index."""


def rewritten(
    body: bytes, media: str, url: str, project: str, index: str, number: int
) -> tuple[bytes, str]:
    """The page, and its type.

    Args:
        media: its Content-Type.
        url: where it came from in the end, which its links are relative to.
        project: the normalised name that it has to be about.
        index: the index as the site file names it, ``number`` its place there.

    Raises:
        NoPage: for a login page, or whatever else.
    """
    kind = media.partition(";")[0].strip().lower()
    if kind == JSON or (kind == "application/json" and body.lstrip()[:1] == b"{"):
        return _json(body, url, project, index, number), JSON
    if kind not in (HTML, "application/vnd.pypi.simple.v1+html"):
        raise NoPage(f"it is {kind[:80] or 'of no type'}")
    return _html(body.decode("utf-8", "replace"), url, project, index, number), HTML


def _json(body: bytes, url: str, project: str, index: str, number: int) -> bytes:
    try:
        page: dict[str, Any] = json.loads(body)
        if canonicalize_name(page["name"]) != project:
            raise NoPage(f"it is about {page['name']}")
        for file in page["files"]:
            file["url"] = _link(file["url"], url, index, number)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoPage(f"it is no index: {error}") from error
    return json.dumps(page, separators=(",", ":")).encode()


def _html(text: str, url: str, project: str, index: str, number: int) -> bytes:
    links = 0

    def changed(match: re.Match[str]) -> str:
        nonlocal links
        href = html.unescape(match[2] if match[2] is not None else match[3])
        name = urlsplit(href).path.rpartition("/")[2]
        if name.lower().endswith((".whl", ".tar.gz", ".zip", ".tar.bz2", ".egg", ".exe")):
            links += 1
        return f'{match[1]}"{html.escape(_link(href, url, index, number))}"'

    page = _HREF.sub(changed, text)
    says = f"links for {project}" in re.sub(r"[-_.]+", "-", text[:4000].lower())
    if not links and not says and "pypi:repository-version" not in text[:4000]:
        raise NoPage("it is a web page without links to packages")
    return page.encode()


def _link(href: str, url: str, index: str, number: int) -> str:
    """Relative to ``/pypi/simple/PROJECT/`` of the mirror."""
    there = urlsplit(urljoin(url, href))
    after = f"#{there.fragment}" if there.fragment else ""
    if found := _PYPI.search(there.path):
        return f"../../packages/{found[1]}{after}"
    home = urlsplit(index)
    if (there.scheme, there.netloc) == (home.scheme, home.netloc) and not there.query:
        return f"../../at/{number}{there.path}{after}"
    return there.geturl()


def to_html(page: Mapping[str, Any]) -> bytes:
    """A page of PEP 691 as one of PEP 503."""
    lines = [
        '<!DOCTYPE html><meta name="pypi:repository-version" content="1.0">',
        f"<title>Links for {html.escape(str(page['name']))}</title>",
    ]
    for file in page["files"]:
        digest = (file.get("hashes") or {}).get("sha256")
        about = file.get("core-metadata", file.get("dist-info-metadata"))
        told = about.get("sha256") if isinstance(about, dict) else None
        named = {"href": file["url"] + (f"#sha256={digest}" if digest else "")}
        if needs := file.get("requires-python"):
            named["data-requires-python"] = needs
        if about:
            named["data-core-metadata"] = f"sha256={told}" if told else "true"
            named["data-dist-info-metadata"] = named["data-core-metadata"]
        if yanked := file.get("yanked"):
            named["data-yanked"] = yanked if isinstance(yanked, str) else ""
        words = " ".join(f'{key}="{html.escape(str(value))}"' for key, value in named.items())
        lines.append(f"<a {words}>{html.escape(str(file['filename']))}</a><br>")
    return "\n".join(lines).encode()
