"""What the service itself tells people; all else the hub says."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

ONLY_SERVERS = Text(
    "ssh_only_servers",
    N_("From here only your own servers can be reached, such as {example}; see {url}"),
)
TOO_MANY = Text(
    "ssh_too_many", N_("You have {most} connections by SSH already. End one of them first.")
)
FULL = Text("ssh_full", N_("There are too many connections by SSH just now. Try again later."))
HUB_SILENT = Text("ssh_hub_silent", N_("The hub does not answer. Try again in a minute."))
TOO_LONG = Text(
    "ssh_too_long", N_("The server has not started within {minutes} minutes. Try again later.")
)
NO_ANSWER = Text(
    "ssh_no_answer",
    N_("The server does not take connections by SSH. Stop it in the browser, and start it anew."),
)
CLOSING = Text("ssh_closing", N_("The service for SSH is restarted. Connect again."))
