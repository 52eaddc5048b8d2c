"""What can go wrong on the way from environment.yml to an image, for the person who builds."""

from __future__ import annotations

from commons.errors import LabError


class BuildError(LabError):
    """An environment cannot be built; the message says why and what to do."""


class SpecError(BuildError):
    """environment.yml or labcommons.yml is wrong; the message names file, line and remedy."""

    status = 400


class ChannelError(BuildError):
    """No place answers for a channel; the message lists what was tried."""


class LockError(BuildError):
    """The packages asked for cannot be had together; the message is the solver's reason."""


class NoSuchPackage(LockError):
    """A package, or a version of it, is not to be had; the message names it, and what is."""


class NoKernel(BuildError):
    """Its packages have no kernel; the message's parameter ``package`` is the one to add."""


class PolicyError(BuildError):
    """The site's rules refuse it; the message names the rule and what would be accepted."""


class ExportError(BuildError):
    """An environment cannot be written in the format asked for; the message says why."""
