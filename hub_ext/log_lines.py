"""Lines at warning level of what is meant to be so here: told as information, so that what warns
means something.
"""

from __future__ import annotations

import logging

# As JupyterHub logs them: how the line or its template begins, and why it is no warning.
MEANT = {
    "Allowing service %s to complete OAuth": "our own services are the hub's pages",
    "Service JupyterHub service labcommons requested scopes": "administrators have admin-ui",
    "Service JupyterHub service kernels requested scopes": "the same",
    "User %s is slow to start": "who waits is told at once, and sees the progress",
    "User %s:%s server is slow to stop": "a notebook is given time to end",
    "Received signal %s, initiating shutdown": "somebody stops the hub; servers go on",
    "Failed to connect to %s (%s)": "it is waited for; a wait in vain is an error",
    "403 OPTIONS ": "an open tab asks a server that has stopped; its page knows",
    "405 OPTIONS ": "the same",
    "Adding missing route for %s (%s)": "console and kernels service come up after the hub",
}


class Lowered(logging.Filter):
    """Gives lines that are ``MEANT`` the level of information."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets all pass."""
        if str(record.msg).startswith(tuple(MEANT)):
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True
