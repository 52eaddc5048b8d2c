"""The offline channel: a small conda channel made of PyPI wheels and Debian's Pythons.

For sites where no conda channel answers. It holds what the environments here ask for, and grows
when they ask for more: made once, reused from then on, also by the next environment. What nobody
needs any more goes when it gets too large.
"""

from environments.offline.growth import update
from environments.offline.index import index_digest
from environments.offline.note import holds, may_hold
from environments.offline.requirements import (
    pypi_requirements,
    python_minor,
    pythons_part,
    remarks,
)
from environments.offline.room import Room, named_in, size, touch, trim

__all__ = [
    "Room",
    "holds",
    "index_digest",
    "may_hold",
    "named_in",
    "pypi_requirements",
    "python_minor",
    "pythons_part",
    "remarks",
    "size",
    "touch",
    "trim",
    "update",
]
