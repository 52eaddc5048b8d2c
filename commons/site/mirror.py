"""``mirror``: the site's own cache of packages, and where that gets them from."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from commons.site.parts import Memory, Section, parse_bytes

if TYPE_CHECKING:
    from commons.site.environments import Environments

# By this name it is reached in the networks of servers, of builders and of services.
HOST = "mirror"
PORT = 8000
URL = f"http://{HOST}:{PORT}"
PYPI_INDEX = f"{URL}/pypi/simple"
# Where PyPI has its files, as locks keep it.
PYPI_FILES = "https://files.pythonhosted.org"

Preset = Literal["tuna", "ustc", "aliyun", "official"]
# Of each: channels of anaconda.org, those of Anaconda itself (pkgs/main), and PyPI's index.
PRESETS: dict[str, tuple[str, str, str]] = {
    "tuna": (
        "https://mirrors.tuna.tsinghua.edu.cn/anaconda/cloud/{channel}",
        "https://mirrors.tuna.tsinghua.edu.cn/anaconda/{channel}",
        "https://pypi.tuna.tsinghua.edu.cn/simple",
    ),
    "ustc": (
        "https://mirrors.ustc.edu.cn/anaconda/cloud/{channel}",
        "https://mirrors.ustc.edu.cn/anaconda/{channel}",
        "https://mirrors.ustc.edu.cn/pypi/simple",
    ),
    "aliyun": (
        "https://mirrors.aliyun.com/anaconda/cloud/{channel}",
        "https://mirrors.aliyun.com/anaconda/{channel}",
        "https://mirrors.aliyun.com/pypi/simple",
    ),
    "official": (
        "https://conda.anaconda.org/{channel}",
        "https://repo.anaconda.com/{channel}",
        "https://pypi.org/simple",
    ),
}
IMAGES = {"official": "https://registry-1.docker.io"}
CHANNEL = re.compile(r"[A-Za-z0-9][\w.-]{0,80}(/[A-Za-z0-9][\w.-]{0,80})?")
# The site's own channels (docs/channel.md): what somebody outside calls so is not meant.
OWN = re.compile(r"site|(team|course)-.*")
# Two channels behind one name, as conda has it.
DEFAULTS = ("pkgs/main", "pkgs/r")


def _url(text: str, right: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError(f"{text!r} must be one of {', '.join(PRESETS)}, or {right}")
    if parts.username or parts.password:
        raise ValueError(
            f"{parts.hostname}: what wants a login is not for everybody, and so not for the "
            "mirror; leave it out here, and put the login under environments.credentials"
        )
    return text.rstrip("/")


def _conda(text: str) -> str:
    if text in PRESETS:
        return text
    if "{channel}" not in text:
        raise ValueError(f"{text!r} must have {{channel}} where the channel's name belongs")
    return _url(text, "an address such as https://conda.example.org/{channel}")


def _pypi(text: str) -> str:
    if text in PRESETS:
        return text
    return _url(text, "an index such as https://pypi.example.org/simple")


def _images(text: str) -> str:
    if text in ("", *IMAGES):
        return text
    return _url(text, "a registry such as https://registry.example.org")


def _channel(text: str) -> str:
    if OWN.fullmatch(text):
        raise ValueError(f"{text!r} is one of the site's own channels, which is had nowhere else")
    if text == "defaults" or CHANNEL.fullmatch(text):
        return text
    raise ValueError(f"{text!r} must be a channel's name, such as bioconda or pkgs/main")


class Mirror(Section):
    """With this section, and were it empty (``mirror: {}``), there is the service ``mirror``.

    ``conda``, ``pypi``: nearest first, each a preset or an address; ``upstreams`` where they are
    not said. ``channels``: those that go through the cache; without, the site's default channels
    and those of ``environments.mirrors`` that need no login. What ``environments.mirrors`` says of
    a channel is asked before ``conda``.
    """

    upstreams: list[Preset] = Field(["official"], min_length=1, max_length=8)
    conda: list[Annotated[str, AfterValidator(_conda)]] = Field([], max_length=8)
    pypi: list[Annotated[str, AfterValidator(_pypi)]] = Field([], max_length=8)
    channels: list[Annotated[str, AfterValidator(_channel)]] = Field([], max_length=64)
    images: Annotated[str, AfterValidator(_images)] = Field(
        "", description="official (Docker Hub), or a registry; nothing: no images"
    )
    images_port: int = Field(5080, ge=1, le=65535, description="of the machine itself alone")
    size: Memory = Field("100G", description="of all that is kept; the longest unused goes first")
    free: Memory = Field("5G", description="stays free on the disk")

    @cached_property
    def size_bytes(self) -> int:
        return parse_bytes(self.size)

    @cached_property
    def free_bytes(self) -> int:
        return parse_bytes(self.free)

    @property
    def images_url(self) -> str:
        return IMAGES.get(self.images, self.images)

    def indexes(self, written: Environments) -> tuple[str, ...]:
        """PyPI's, nearest first; an index that the site names itself comes before all."""
        own = [written.pip_index] if _is_open(written.pip_index, written) else []
        said = [*own, *(self.pypi or self.upstreams)]
        return tuple(dict.fromkeys(PRESETS[one][2] if one in PRESETS else one.rstrip("/")
                                   for one in said))  # fmt: skip

    def places(self, written: Environments) -> dict[str, tuple[str, ...]]:
        """The channels that go through the cache, each with where it is had, nearest first."""
        names = self.channels or [
            name
            for name in dict.fromkeys([*written.channels, *written.mirrors])
            if name == "defaults" or (CHANNEL.fullmatch(name) and not OWN.fullmatch(name))
        ]
        found: dict[str, tuple[str, ...]] = {}
        for name in names:
            own = written.mirrors.get(name, [])
            if not all(_is_open(place, written) for place in own):
                continue
            for part in DEFAULTS if name == "defaults" else (name,):
                last = f"/{part.rpartition('/')[2]}" if part != name else ""
                said = [place.rstrip("/") + last for place in own]
                said += [_place(one, part) for one in self.conda or self.upstreams]
                found[part] = tuple(dict.fromkeys(said))
        return found


def _place(one: str, channel: str) -> str:
    if one in PRESETS:
        one = PRESETS[one][1 if channel.startswith("pkgs/") else 0]
    return one.replace("{channel}", channel)


def _is_open(place: str, written: Environments) -> bool:
    """Whether a place is on the network and asks for no login, so that anybody may have of it."""
    parts = urlsplit(place)
    logins = {urlsplit(f"//{one}").hostname for one in written.credentials}
    return parts.scheme in ("http", "https") and parts.hostname not in logins


def pip_words(index: str) -> dict[str, str]:
    """Variables that pip and uv want beside the mirror's index; none for another one.

    What is fetched is compared with a lock's or an index's digest, not with a certificate; and many
    who ask for one large wheel wait until it is there.
    """
    if index != PYPI_INDEX:
        return {}
    return {"PIP_TRUSTED_HOST": HOST, "PIP_DEFAULT_TIMEOUT": "600", "UV_HTTP_TIMEOUT": "600"}


def behind(mirror: Mirror, written: Environments) -> Environments:
    """What builds and servers go by: the cache in the place of what it stands for.

    Names of origin stay in locks. A channel that wants a login is fetched as before.
    """
    channels = mirror.places(written)
    ours = {name: [f"{URL}/conda/{name}"] for name in channels}
    if DEFAULTS[0] in channels and "defaults" in (*mirror.channels, *written.mirrors):
        ours = {name: places for name, places in ours.items() if name not in DEFAULTS}
        ours["defaults"] = [f"{URL}/conda/pkgs"]
    changed: dict[str, object] = {"mirrors": {**written.mirrors, **ours}}
    if not written.pip_index or _is_open(written.pip_index, written):
        changed |= {"pip_index": PYPI_INDEX, "pip_files": written.pip_files or PYPI_FILES}
    return written.model_copy(update=changed)
