"""The audit trail: events, and the chains of lines that they are written to."""

from commons.audit.chain import Chain
from commons.audit.events import ACTIONS, ECS_VERSION, Outcome, make_event
from commons.audit.trail import AuditTrail, record_command

__all__ = [
    "ACTIONS",
    "ECS_VERSION",
    "AuditTrail",
    "Chain",
    "Outcome",
    "make_event",
    "record_command",
]
