"""The section ``channels``: how much the site's own package channels take."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from commons.site.parts import Memory, Section, parse_bytes


class Channels(Section):
    """What one package may be, and what one channel may have in all.

    ``largest``: of a package's file; ``unpacked``: of what is in it; ``size``: of all packages of
    one channel.
    """

    largest: Memory = "2G"
    unpacked: Memory = "8G"
    entries: int = Field(50_000, ge=1, le=1_000_000, description="files of one package")
    size: Memory = "100G"

    @cached_property
    def largest_bytes(self) -> int:
        return parse_bytes(self.largest)

    @cached_property
    def unpacked_bytes(self) -> int:
        return parse_bytes(self.unpacked)

    @cached_property
    def size_bytes(self) -> int:
        return parse_bytes(self.size)
