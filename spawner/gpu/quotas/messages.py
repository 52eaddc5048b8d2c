"""What is said of quotas and reservations that cannot be used: after the key that it is about."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

# -- of any document --------------------------------------------------------------------------

NOT_A_MAPPING = Text("not_a_mapping", N_("must be a mapping of keys"))
NOT_A_LIST = Text("not_a_list", N_("must be a list"))
NOT_TRUE_OR_FALSE = Text("not_true_or_false", N_("must be true or false"))
NOT_TEXT = Text("not_text", N_("must be text"))
KEY_MISSING = Text("key_missing", N_("is missing"))
KEY_NOT_HERE = Text("key_not_here", N_("there is no such key here"))
NOT_ONE_OF = Text("not_one_of", N_("must be one of {expected}"))
DID_YOU_MEAN = Text("did_you_mean", N_("Did you mean “{near}”?"))
KNOWN_NAMES = Text("known_names", N_("Known: {names}."))
NO_NAMES = Text("no_names", N_("There are none."))

# -- of the quotas document -------------------------------------------------------------------

NOT_A_COUNT = Text("not_a_count", N_("must be a whole number from 0 to 100000"))
NOT_A_NUMBER = Text("not_a_number", N_("must be a number"))
NOT_AN_AMOUNT = Text("not_an_amount", N_("must be a number from 0 to 100000000"))
NOT_A_SHARE = Text("not_a_share", N_("must be a number above 0, up to 1000000; 1 is usual"))
NOT_A_PERCENTAGE = Text("not_a_percentage", N_("must be a percentage from 0 to 100"))
NOT_A_TIME_ZONE = Text("not_a_time_zone", N_("is not a time zone; write for example Europe/Berlin"))
NOT_A_LABEL = Text("not_a_label", N_("must be a short name without control characters"))
NOT_A_NAME = Text("not_a_name", N_("is not a name"))
NOT_A_SUBJECT = Text(
    "not_a_subject", N_("is not a subject; write default, settings, or one of: {known}")
)
BUDGET_RULE = Text(
    "budget_rule",
    N_("needs either window (day, week, month, total) or half_life (such as 7d)"),
)
USUAL_TOO_LONG = Text("usual_too_long", N_("default_time_limit must not be longer than time_limit"))
BORROWING_ALONE = Text(
    "borrowing_alone", N_("borrowing_limit and lending_limit need nominal and cohort beside them")
)
NEEDS_TIME_LIMIT = Text(
    "needs_time_limit",
    N_(
        "has a budget, so each request needs a time limit: set default_time_limit here or under "
        "default, else requests without one are refused"
    ),
)
ENDLESS = Text(
    "no_time_limit",
    N_(
        "has no time limit: leases of those who have none of their own have no end, and a request "
        "for many GPUs may never start; set default_time_limit, such as 8h"
    ),
)
FOR_GROUPS = Text("for_groups", N_("is for groups and courses; a person has max_gpus and budget"))
KEY_UNKNOWN = Text("key_unknown", N_("there is no such key here."))
PERSON_UNKNOWN = Text("person_unknown", N_("nobody of this name has been here."))
MODEL_UNKNOWN = Text("model_unknown", N_("there is no GPU type “{name}” now."))
DOCUMENT_TOO_LONG = Text("document_too_long", N_("the document is longer than 512 KiB"))
DOCUMENT_TOO_DEEP = Text("document_too_deep", N_("nested too deeply; make it flatter"))
DOCUMENT_ALIASES = Text(
    "document_aliases", N_("aliases (*name) are not read here; write the keys out")
)
DOCUMENT_HEAD = Text("document_head", N_("must be a mapping that begins with “version: 1”"))
NOT_YAML = Text("not_yaml", N_("not valid YAML"), when={"words": N_("not valid YAML: {words}")})
