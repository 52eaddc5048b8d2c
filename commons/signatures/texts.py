"""What people are told about signatures: the cause, and what to do."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

UNSIGNED = Text("signature_none", N_("It was never signed, as versions from before signatures."))
NO_KEYS = Text(
    "signature_no_keys",
    N_(
        "There is no key to check its signature by: the service “signer” has not told the site's "
        "own, and the site file lists none."
    ),
)
WRONG_KEY = Text(
    "signature_wrong_key",
    N_("No key that counts at this site has signed it; it is said to be of {keys}."),
)
NOT_VALID = Text(
    "signature_key_expired",
    N_("The key {key} has signed it, which counts from {since} until {until} only."),
)
CHANGED = Text(
    "signature_changed", N_("Its signature is not over what the file says now: it was changed.")
)
UNREADABLE = Text("signature_unreadable", N_("Its signature cannot be read: {reason}."))
OTHER_VERSION = Text(
    "signature_other_version", N_("What is signed there is about {other}, another version.")
)
OTHER_IMAGE = Text(
    "signature_other_image", N_("The image is not the one that was signed ({signed}).")
)
OTHER_LAYERS = Text("signature_other_layers", N_("The image has other layers than were signed."))
OTHER_LOCK = Text("signature_other_lock", N_("It was signed with another lock."))
OTHER_FILE = Text("signature_other_file", N_("{file} is not the file that was signed."))
REFUSED = Text(
    "image_not_signed",
    N_(
        "“{name}” {version} cannot be started, as its image is not proven to be the site's own. "
        "{why} Choose another version, or tell an administrator: “labcommons env verify "
        "{name}:{version}” shows it, and “labcommons env build {name}” builds a signed one."
    ),
)
