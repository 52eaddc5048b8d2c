"""What JupyterHub's REST API refuses with, in English, for the catalogue: by its form.

Everything that its source says has a form here or in ``jupyterhub_words``; a test reads the source.
"""

from __future__ import annotations

import re

from commons.i18n import N_, Gettext

# The first that fits is said.
FORMS = tuple(
    (re.compile(form, re.DOTALL), text)
    for form, text in (
        # -- of the body and the parameters of a request
        (
            r"Invalid JSON in body of request|need JSON body|Request body must be JSON dict|"
            r"Body must be a JSON (?:dict or empty|object)|body must be a json dict",
            N_("The body must be a JSON object."),
        ),
        (
            r"Invalid JSON (?:data|keys): (?P<given>.*)",
            N_("The body has fields that are not known here: {given}"),
        ),
        (r"Unexpected fields: (?P<given>.*), supported fields: .*",
         N_("The body has fields that are not known here: {given}")),
        (
            r"(?:token )?(?P<field>\S+) must be null or a list of strings, not (?P<given>.*)",
            N_("“{field}” must be null or a list of texts; it is: {given}"),
        ),
        (
            r"(?:token )?(?P<field>\S+) must be (?:null or integer|a positive integer or null), "
            r"not (?P<given>.*)",
            N_("“{field}” must be null or a whole number of seconds above 0; it is: {given}"),
        ),
        (
            r"(?:token )?(?P<field>expires_in): (?P<given>.*) must not exceed (?P<most>.*)",
            N_("“{field}” may be {most} seconds at most; it is: {given}"),
        ),
        (
            r"(?P<field>sort) must be 'id', 'name', or 'last_activity', not (?P<given>.*)",
            N_("“{field}” must be id, name or last_activity; it is: {given}"),
        ),
        (
            r"Unrecognized (?P<field>state) filter: (?P<given>.*)",
            N_("“{field}” must be ready, active or inactive; it is: {given}"),
        ),
        (
            r"(?P<field>\S+) must be true or false, got (?P<given>.*)",
            N_("“{field}” must be true or false; it is: {given}"),
        ),
        (r"(?P<field>user_options) must be (?:an object or null|a dict)",
         N_("“{field}” must be a JSON object or null.")),
        (r"(?P<field>display_name) must be a string", N_("“{field}” must be a text.")),
        (
            r"(?P<field>group names|usernames|Service name|\S+\.\S+) must be (?P<type>.*), "
            r"not:? (?P<given>.*)",
            N_("“{field}” must be of the type {type}; it is: {given}"),
        ),
        (r"(?P<field>servers) must be a dict of the form .*",
         N_("“{field}” must be a JSON object: by each server's name its last_activity.")),
        (r"body must contain at least one of `last_activity` or `servers`",
         N_("“last_activity” or “servers” is missing in the body.")),
        (r"Invalid argument type, offset and limit must be integers",
         N_("“offset” and “limit” must be whole numbers.")),
        (r"Not a valid timestamp: (?P<given>.*)", N_("This is no time: {given}")),
        (r"Rejecting activity from more than an hour in the future: (?P<given>.*)",
         N_("This time is more than an hour ahead: {given}. Set the clock.")),
        (r"Must specify at least one field to modify\.", N_("The body names nothing to change.")),
        (r"Must specify at least one user to create|Must specify users to (?:add|delete)",
         N_("“usernames” or “users” is missing in the body.")),
        (r"Must specify at least one group to create", N_("“groups” is missing in the body.")),
        (r"Must specify properties", N_("“properties” is missing in the body.")),
        # -- of people and groups
        (r"No such group: (?P<name>.+)", N_("There is no group “{name}” here.")),
        (r"User (?P<name>\S+) already exists.*", N_("The person “{name}” is here already.")),
        (r"All (?P<count>\S+) users already exist", N_("All {count} people are here already.")),
        (r"Group (?P<name>\S+) already exists", N_("The group “{name}” is here already.")),
        (r"Group management via API is disabled",
         N_("Groups come from the directory and cannot be changed here.")),
        (r"Invalid usernames?: (?P<name>.+)", N_("“{name}” cannot be a login name.")),
        (r"Failed to create user:? (?P<name>[^\s:]+)(?:: (?P<why>.*))?",
         N_("The person “{name}” was not added; the reason is in the hub's log.")),
        (r"Only admins can grant admin permissions|Only admins can modify other admins",
         N_("Only administrators can change who is an administrator.")),
        (r"Cannot delete yourself!", N_("Nobody can delete themselves.")),
        (r"(?P<name>\S+)'s server is in the process of stopping, please wait\.",
         N_("The server “{name}” is being started or stopped just now.")),
        (r"\w+ (?P<name>\S+) not found or no permissions to generate tokens",
         N_("“{name}” is not here, or you may not make tokens for that name.")),
        # -- of servers
        (r"User (?P<name>\S+) already has (?:a default server|server (?P<server>.*))",
         N_("“{name}” has this server already.")),
        (r"User (?P<name>\S+) has no such server (?P<server>.*)",
         N_("“{name}” has no server “{server}”.")),
        (r"(?P<name>\S+) has no server named (?P<server>.*)",
         N_("“{name}” has no server “{server}”.")),
        (r"No such server (?P<server>\S+) for user (?P<name>.*)",
         N_("“{name}” has no server “{server}”.")),
        (r"No such server: (?P<name>[^/]+)/(?P<server>.*)",
         N_("“{name}” has no server “{server}”.")),
        (r"(?P<name>\S+) is active\. Please stop it before modifying it\.",
         N_("The server “{name}” is running. Stop it before you change it.")),
        (r"Cannot delete the default server",
         N_("The first server cannot be removed; it can be stopped.")),
        (r"Cannot stop a server while it is being renamed",
         N_("The server is being renamed just now. Try again in a minute.")),
        (r"Invalid server_name(?: \(may not contain '/'\))?: (?P<name>.*)",
         N_("“{name}” cannot be the name of a server: lower-case letters, digits and -.")),
        (r"Invalid display_name: (?P<name>.*)", N_("“{name}” cannot be the title of a server.")),
        (r"Starting invalid server_name (?P<name>.*) is disabled, contact your administrator",
         N_("The server “{name}” has a name that is not allowed any more. Ask an administrator.")),
        (r"Redirect loop detected\..*",
         N_("The address leads in a circle. Stop the server and start it again.")),
        (r"admin access to user servers disabled",
         N_("Administrators may not open people's servers here.")),
        (r"Invalid user options", N_("The server's options are wrong.")),
        # -- of tokens, scopes and roles
        (r"No such token (?P<token>\S+) for user (?P<name>.*)",
         N_("“{name}” has no token “{token}”.")),
        (r"Failed to create token", N_("The token was not made. Try again.")),
        (r"Can only assign one of scopes or roles when creating tokens\.",
         N_("Give a token “scopes” or “roles”, not both.")),
        (r"No such role: (?P<name>.*)", N_("There is no role “{name}” here.")),
        (r"Not assigning requested scopes (?P<names>.*) not held by (?P<name>.*)",
         N_("These scopes can be given only by who has them: {names}")),
        (r"Draft scope 'all' is now called 'inherit'",
         N_("The scope “all” is called “inherit” now.")),
        (r"Scope filter (?P<filter>.*) '.*' in scope '(?P<name>.*)' .*does not exist",
         N_("The scope “{name}” has a filter that is not known: {filter}")),
        (r"Scope (?P<name>\S+) .*does not exist", N_("There is no scope “{name}”.")),
        (r"Access to metrics requires scope (?P<names>.*)",
         N_("This needs one of the scopes: {names}.")),
        (r"Need scope (?P<names>\S+) to share with .*",
         N_("This needs one of the scopes: {names}.")),
        (r"Do not have permission to grant share with scope (?P<names>.*)",
         N_("These scopes can be given only by who has them: {names}")),
        (r"'_xsrf' argument missing from \S+|'_xsrf' argument invalid|"
         r"XSRF cookie does not match \S+ argument",
         N_("No page of this site has asked for this. Open the page anew and try again.")),
        # -- of shared servers
        (r"No such share for (?:user|group) (?P<name>\S+) on (?P<server>.*)",
         N_("The server “{server}” is not shared with “{name}”.")),
        (r"No matching code found|No code found matching id=.*",
         N_("Share not found or expired")),
        (r"!(?P<filter>\S+) not allowed on sharing (?P<name>[^,]+), only .*",
         N_("The scope “{name}” has a filter that is not known: {filter}")),
        (r"Must specify scopes to grant\.", N_("“scopes” is missing in the body.")),
        # -- of services
        (r"No such service: (?P<name>.*)|Service (?P<other>\S+) does not exist",
         N_("There is no such service here.")),
        (r"Service (?P<name>\S+) already exists", N_("The service “{name}” is here already.")),
        (r"Service (?P<name>\S+) is not modifiable at runtime|"
         r"Can not create managed service .* at runtime",
         N_("This service is changed in the configuration alone.")),
        (r"Failed to (?:create|remove) service .*",
         N_("The service was not changed; the reason is in the hub's log.")),
        (r"Invalid service data", N_("The description of the service is wrong.")),
        (r"OAuth configuration error",
         N_("The login of this service is not set up correctly. Ask an administrator.")),
        (r"You do not have permission to access (?P<name>.*)", N_("You may not open “{name}”.")),
        (r"Deprecated endpoint .* is removed in JupyterHub 2\.0\..*",
         N_("This address is gone. Tokens are made at /hub/api/users/NAME/tokens.")),
    )
)  # fmt: skip
# What is said where JupyterHub says nothing, by the status of the answer.
STATUSES = {
    400: N_("The request cannot be understood."),
    401: N_("Missing or invalid credentials."),
    403: N_("You may not do this"),
    404: N_("No access to resources or resources not found"),
    405: N_("This address does not know this method."),
    429: N_("Too many at once"),
    503: N_("Not available just now"),
}
_OTHERS = N_("This did not work")
_BROKEN = N_("Something went wrong here")
_CLASS = re.compile(r"<class '([\w.]+)'>")


def plain(value: str | None) -> str:
    """A value in a sentence, without Python's marks around it."""
    return _CLASS.sub(r"\1", value or "").strip("'\"")


def by_status(status: int, gettext: Gettext) -> str:
    """A sentence for a status that comes without one."""
    return gettext(STATUSES.get(status, _BROKEN if status >= 500 else _OTHERS))
