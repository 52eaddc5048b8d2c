"""Our own database: the one place with SQL."""

from hub_ext.store.database import Store, StoreError
from hub_ext.store.environments import BuildState, EnvironmentBuild, TierEnvironment
from hub_ext.store.models import (
    Base,
    DirectoryFailures,
    DirectoryPerson,
    EnvironmentVersion,
    GpuDevice,
    KernelUsage,
    Lease,
    LeaseDevice,
    LeaseState,
    RegisteredEnvironment,
    RegistrySource,
)

__all__ = [
    "Base",
    "BuildState",
    "DirectoryFailures",
    "DirectoryPerson",
    "EnvironmentBuild",
    "EnvironmentVersion",
    "GpuDevice",
    "KernelUsage",
    "Lease",
    "LeaseDevice",
    "LeaseState",
    "RegisteredEnvironment",
    "RegistrySource",
    "Store",
    "StoreError",
    "TierEnvironment",
]
