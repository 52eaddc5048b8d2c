"""``ssh``: whether people reach their servers by SSH, and within which limits."""

from __future__ import annotations

from pydantic import Field

from commons.site.parts import Section


class Ssh(Section):
    """With this section, and were it empty (``ssh: {}``), there is the service ``ssh``."""

    port: int = Field(2222, ge=1, le=65535, description="published on the machine")
    host: str = Field(
        "",
        pattern=r"^([A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)?$",
        description="what people connect to, where it is not the host of site.public_url",
    )
    directory_keys: bool = Field(True, description="keys of the directory are taken, too")
    own_keys: bool = Field(True, description="people may add keys of their own")
    start_servers: bool = Field(True, description="a server that does not run is started")
    sessions: int = Field(20, ge=1, le=200, description="connections of one person at once")
    all_sessions: int = Field(1000, ge=1, le=20_000, description="connections of all people")
