"""Our own database: the one place with SQL."""

from hub_ext.store.database import Store, StoreError
from hub_ext.store.models import (
    Base,
    DirectoryFailures,
    DirectoryPerson,
    EnvironmentVersion,
    GpuDevice,
    GpuNode,
    GpuNotice,
    GpuQuota,
    GpuQuotaChange,
    GpuReservation,
    GpuState,
    GpuUsage,
    GpuWatch,
    Kernel,
    Lease,
    LeaseDevice,
    LeaseState,
)

__all__ = [
    "Base",
    "DirectoryFailures",
    "DirectoryPerson",
    "EnvironmentVersion",
    "GpuDevice",
    "GpuNode",
    "GpuNotice",
    "GpuQuota",
    "GpuQuotaChange",
    "GpuReservation",
    "GpuState",
    "GpuUsage",
    "GpuWatch",
    "Kernel",
    "Lease",
    "LeaseDevice",
    "LeaseState",
    "Store",
    "StoreError",
]
