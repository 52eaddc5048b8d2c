"""What JupyterHub itself says on pages, in English, for the catalogue: by its text, or by its form.

What its REST API refuses with is in ``jupyterhub_refusals``.
"""

from __future__ import annotations

import re

from commons.i18n import N_, Gettext, in_context
from hub_ext.jupyterhub_refusals import FORMS as REFUSALS
from hub_ext.jupyterhub_refusals import by_status, plain

SENTENCES = (
    N_("Invalid username or password"),
    N_("Login form invalid or expired. Try again."),
    N_("Server requested"),
    N_("Spawning server..."),
    N_("Spawn failed"),
    N_("Spawn cancelled"),
    N_("Active user limit exceeded. Try again in a few minutes."),
    N_("Named servers are not enabled."),
    N_("No access to resources or resources not found"),
    N_("Missing or invalid credentials."),
    N_("Share not found or expired"),
    N_("You can't share with yourself!"),
)
# Sentences with a name in them. In English ours are shown as well: they are the better ones.
FORMS = tuple(
    (re.compile(form, re.DOTALL), text)
    for form, text in (
        (r"No such user:? (?P<name>.+)", N_("There is no person “{name}” here.")),
        (
            r"(?P<name>\S+) has no such server (?P<server>.*)",
            N_("“{name}” has no server “{server}”."),
        ),
        (r"(?P<name>\S+) is already running", N_("The server “{name}” is running already.")),
        (
            r"(?P<name>\S+) is pending (?P<what>\w+)",
            N_("The server “{name}” is being started or stopped just now."),
        ),
        (r"(?P<name>\S+) is not starting\.\.\.", N_("The server “{name}” is not being started.")),
        (r"Invalid user-option name (?P<name>.+)", N_("“{name}” is no option of a server.")),
        (
            r"Unhandled error starting server (?P<name>.+)",
            N_("The server “{name}” was not started; the reason is in the hub's log."),
        ),
        (r"Invalid share code: (?P<name>.+)", N_("The invitation “{name}” is not valid.")),
        (
            r"auth has expired for (?P<name>.+), login again",
            N_("The login of “{name}” has expired. Sign in again."),
        ),
        (
            r"(?P<name>.+)'s authentication has expired",
            N_("The login of “{name}” has expired. Sign in again."),
        ),
        (
            r"Too many users trying to log in right now\..+",
            N_("Too many people sign in just now. Try again in a minute."),
        ),
        (
            r"Spawner failed to start \[status=(?P<status>.*)\]\..+",
            N_(
                "The server ended while it was started (status {status}). The reason is in the "
                "hub's log."
            ),
        ),
        (
            r"User (?P<name>\S+) already has the maximum of (?P<count>\S+) named servers\..*",
            N_(
                "“{name}” has {count} servers beside the first already, which is the most. "
                "Remove one before you make another."
            ),
        ),
        (
            r"Action is not authorized with current scopes; requires any of \[(?P<names>.*)\]",
            N_("This needs one of the scopes: {names}."),
        ),
        (r"Server at (?P<address>\S+)", N_("Server at {address}")),
        (r"JupyterHub service (?P<name>\S+)", N_("The page “{name}”")),
    )
)
LONGEST = 1000  # characters of a sentence that are looked at: it may repeat what somebody sent
# What its frame of every page says: what stands in ``page.html``, and what is put there.
FRAME = (
    ("JupyterHub requires JavaScript.", N_("These pages need JavaScript.")),
    ("Please enable it to proceed.", N_("Switch it on in the browser's settings.")),
    ('aria-label="Close"', N_("Close")),
    ("{{ title }}</h2>", N_("Error")),
    ("{{ btn_label }}</button>", N_("OK")),
    ("The error</div>", ""),
)
# What JupyterHub notes about tokens that it makes, and the login page's client.
NOTES = (
    N_("Requested via api"),
    N_("Requested via token page"),
    N_("Requested via deprecated api"),
    N_("generated at startup"),
    N_("from config"),
    N_("command-line generated"),
)
# What a scope allows (jupyterhub.scopes.scope_definitions), on the page that asks for consent.
SCOPES = (
    N_("Identify the owner of the requesting entity."),
    N_("Your own resources"),
    N_("Anything you have access to"),
    N_("Access the admin page."),
    N_(
        "Read, modify, create, and delete users and their authentication state, not "
        "including their servers or tokens. This is an extremely privileged scope and "
        "should be considered tantamount to superuser."
    ),
    N_("Read a user’s authentication state."),
    N_(
        "Read and write permissions to user models (excluding servers, tokens and "
        "authentication state)."
    ),
    N_("Delete users."),
    N_("List users, including at least their names."),
    N_("Read user models (including the URL of the default server if it is running)."),
    N_("Read names of users."),
    N_("Read users’ group membership."),
    N_("Read time of last user activity."),
    N_("Read role assignments."),
    N_("Read user role assignments."),
    N_("Read service role assignments."),
    N_("Read group role assignments."),
    N_("Update time of last user activity."),
    N_("Read, start, stop, create and delete user servers and their state."),
    N_("Read and write users’ server state."),
    N_("Start and stop user servers."),
    N_("Read users’ names and their server models (excluding the server state)."),
    N_("Start and edit users' servers. (added in JupyterHub 6)"),
    N_("Stop and delete users' servers."),
    N_("Read, write, create and delete user tokens."),
    N_("Read user tokens."),
    N_("Read and write group information, create and delete groups."),
    N_(
        "Read and write group information, including adding/removing any users to/from "
        "groups. Note: adding users to groups may affect permissions."
    ),
    N_("List groups, including at least their names."),
    N_("Read group models."),
    N_("Read group names."),
    N_("Delete groups."),
    N_("Create, read, update, delete services, not including services defined from config files."),
    N_("List services, including at least their names."),
    N_("Read service models."),
    N_("Read service names."),
    N_("Read detailed information about the Hub."),
    N_("Access user servers via API or browser."),
    N_("Access services via API or browser."),
    N_("Read and revoke a user's access to shared servers."),
    N_("Read servers shared with a user."),
    N_("Read and revoke a group's access to shared servers."),
    N_("Read servers shared with a group."),
    N_("Read information about shared access to servers."),
    N_("Manage access to shared servers."),
    N_(
        "Read information about the proxy’s routing table, sync the Hub with the proxy "
        "and notify the Hub about a new proxy."
    ),
    N_("Shutdown the hub."),
    N_("Read prometheus metrics."),
)


def translated(said: str, gettext: Gettext) -> str:
    """A sentence of JupyterHub's in a language, or as it is."""
    ours = in_context(gettext, said)
    if ours != said or len(said) > LONGEST:
        return ours
    for form, text in (*FORMS, *REFUSALS):
        if match := form.fullmatch(said.strip()):
            values = {name: plain(value) for name, value in match.groupdict().items()}
            return gettext(text).format_map(values)
    return said


def refusal(said: str, status: int, gettext: Gettext) -> str:
    """What REST refuses with, wholly in a language that is not English."""
    if not said:
        return by_status(status, gettext)
    said = said[:LONGEST]
    ours = translated(said, gettext)
    if ours != said:
        return ours
    words = gettext(N_("JupyterHub refused this, in its own words: “{said}”"))
    return words.format(said=said)


def in_frame(source: str) -> str:
    """A template; JupyterHub's ``page.html`` then asks the catalogue."""
    if FRAME[0][0] not in source:
        return source
    for theirs, ours in FRAME:
        words = f'{{{{ _("{ours}") }}}}' if ours else ""
        before, quote, after = theirs.partition('="')
        end = "</" + theirs.rpartition("</")[2] if "</" in theirs else ""
        source = source.replace(theirs, f'{before}="{words}"' if quote and after else words + end)
    return source


def is_known(said: str) -> bool:
    """Whether ``translated`` has words of ours for it, or the catalogue has it."""
    return said in SENTENCES or any(form.fullmatch(said.strip()) for form, _ in (*FORMS, *REFUSALS))
