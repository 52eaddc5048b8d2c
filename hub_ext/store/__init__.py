"""Our own database: the one place with SQL."""

from hub_ext.store.database import Store, StoreError
from hub_ext.store.models import (
    Base,
    EnvironmentVersion,
    GpuDevice,
    Kernel,
    Lease,
    LeaseDevice,
    LeaseState,
)

__all__ = [
    "Base",
    "EnvironmentVersion",
    "GpuDevice",
    "Kernel",
    "Lease",
    "LeaseDevice",
    "LeaseState",
    "Store",
    "StoreError",
]
