"""What is said of the directory: to a person who logs in, and to administrators who check it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from commons import notices
from commons.i18n import N_, NN_, NP_
from commons.messages import Locale, Text

from .standing import Standing


def moment(at: Any, locale: Locale) -> str:
    """Seconds since 1970, by the reader's clock."""
    return notices.moment(
        datetime.fromtimestamp(float(at), UTC).replace(tzinfo=None), locale.timezone
    )


# -- to a person who logs in ------------------------------------------------------------------

WRONG_CREDENTIALS = Text(
    "wrong_credentials", N_("Unknown name or wrong password. Please check both and try again.")
)
TOO_MANY_ATTEMPTS = Text(
    "too_many_attempts",
    N_("Too many failed logins. Please try again in {minutes} minutes."),
)
BARRED = {
    Standing.DISABLED: Text(
        "account_disabled", N_("Your account is disabled. Please ask the administrators.")
    ),
    Standing.EXPIRED: Text(
        "account_expired", N_("Your account has expired. Please ask the administrators.")
    ),
    Standing.LOCKED: Text(
        "account_locked",
        N_(
            "Your account is locked after too many wrong passwords. "
            "Please wait, or ask the administrators."
        ),
    ),
    Standing.MUST_CHANGE: Text(
        "password_must_change",
        N_("Your password must be changed before you can log in here. Please change it first."),
    ),
    Standing.PASSWORD_EXPIRED: Text(
        "password_expired", N_("Your password has expired. Please change it first.")
    ),
    Standing.NOT_NOW: Text(
        "account_not_now", N_("Your account may not log in at this time or from this place.")
    ),
}
SHUT_OUT = Text(
    "account_blocked",
    N_("An administrator of this site has blocked your account: {reason}"),
    when={
        "until": N_(
            "An administrator of this site has blocked your account until {until}: {reason}"
        )
    },
    shown={"until": moment},
)
NAME_UNUSABLE = Text(
    "account_name_unusable",
    N_(
        "Your name in the directory cannot be used on this site: a name begins with a letter a-z "
        "or a digit, then has only these and . _ - and at most 64 characters. Please ask the "
        "administrators."
    ),
)
NOT_ONE_VALUE = Text(
    "account_not_one_value",
    N_(
        "Your directory entry must have exactly one value of {attribute}, and has {count}. "
        "Please ask the administrators to correct it."
    ),
)
VALUE_UNREADABLE = Text(
    "account_value_unreadable",
    N_(
        "Your directory entry has a {attribute} that cannot be read. "
        "Please ask the administrators to correct it."
    ),
)
VALUE_NOT_ACCEPTED = Text(
    "account_value_not_accepted",
    N_(
        "Your directory entry has a {attribute} that this site does not accept. "
        "Please ask the administrators to correct it."
    ),
)
ACCOUNT_GONE = Text("account_gone", N_("Your account is no longer in the directory."))
IN_NO_GROUP = Text(
    "account_in_no_group",
    N_(
        "Your account is fine, but it is in none of the groups that may use this site. "
        "Please ask the administrators to be added to one."
    ),
)
DENIED = Text(
    "account_denied",
    N_("Your account is in a group that may not use this site. Please ask the administrators."),
)
NAME_TAKEN = Text(
    "name_taken",
    N_(
        "Your name was used on this site by another person before. "
        "Please ask the administrators to free it."
    ),
)
UNAVAILABLE = Text(
    "directory_unavailable",
    N_(
        "The directory cannot be reached, so nobody can log in at the moment. "
        "Running servers go on. Please try again in a few minutes."
    ),
)


# -- to administrators who check it: what was found, and (``…_REMEDY``) what to do ------------


def _quoted(value: Any, locale: Locale) -> str:
    return repr(value)


NO_SERVER = Text("directory_no_server", N_("DNS names no server"))
NO_SERVER_REMEDY = Text(
    "directory_no_server_remedy",
    N_("check the SRV records _ldaps._tcp.{domain} and _ldap._tcp"),
)
# The cause is in the words of TLS, of the directory, or for the log: English.
SERVER_FAILED = Text("directory_server_failed", N_("{cause}"))
TLS_VERIFIED = Text("directory_tls_verified", N_("{version}, chain and host name verified"))
CERTIFICATE_DAYS = Text(
    "directory_certificate_days",
    NN_("valid for one more day", "valid for {count} more days"),
)
CERTIFICATE_REMEDY = Text(
    "directory_certificate_remedy", N_("renew it, or nobody can log in afterwards")
)
BOUND_AS = Text("directory_bound_as", N_("as {dn}"))
ANONYMOUS = Text("directory_anonymous", N_("anonymous"))
ANONYMOUS_REMEDY = Text("directory_anonymous_remedy", N_("give the hub an account: set bind_dn"))
BASE_READ = Text("directory_base_read", N_("{base} can be read"))
BASE_UNREADABLE = Text("directory_base_unreadable", N_("{base} does not exist, or may not be read"))
BASE_REMEDY = Text(
    "directory_base_remedy", N_("check the base DN and what the service account may read")
)
GROUP_ABSENT = Text(
    "directory_group_absent",
    N_("{group} ({named}) is not in the directory, or may not be read"),
    shown={"group": _quoted},
)
GROUP_REMEDY = Text(
    "directory_group_remedy",
    N_("correct its name in the site file, or let the service account read it"),
)
NOBODY = Text(
    "directory_nobody",
    N_("no single entry answers to {user} below {base}"),
    shown={"user": _quoted},
)
NOBODY_REMEDY = Text("directory_nobody_remedy", N_("check the name and the filter {filter}"))
# A value of the directory, or several.
VALUE = Text("directory_value", N_("{value}"))
VALUES_AND_MORE = Text("directory_values_and_more", N_("{value} and {count} more"))
NONE = Text("directory_none", NP_("groups of a person", "none"))
NO_ID = Text("directory_no_id", N_("no single {attribute}"))
NO_ID_REMEDY = Text(
    "directory_no_id_remedy",
    N_(
        "let the service account read it: without it, a name that is given to another person "
        "gives them the first one's home"
    ),
)
NO_STANDING = Text("directory_no_standing", N_("nothing tells whether it is disabled or expired"))
NO_STANDING_REMEDY = Text(
    "directory_no_standing_remedy",
    N_("let the service account read {attributes}, where the directory has them"),
)
WOULD_BE_REFUSED = Text("directory_would_be_refused", N_("would be refused: {outcome}"))
WOULD_BE_LET_IN = Text(
    "directory_would_be_let_in", N_("would be let in as {name}, with the right password")
)
YES = Text("directory_yes", N_("yes"))
NO = Text("directory_no", N_("no"))
