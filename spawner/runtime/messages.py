"""What people are told of what runs containers; agent and hub both have it."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

_ASKED = N_("The agent does not understand what it was asked: {reason}.")
AGENT_FAILED = Text("agent_failed", N_("The agent failed. Tell an administrator."))
AGENT_NOT_UNDERSTOOD = Text(
    "agent_not_understood",
    N_("The agent's answer to “{call}” cannot be understood. Tell an administrator."),
)
NO_SUCH_CALL = Text("no_such_call", _ASKED)
NOT_YOUR_CALL = Text("not_your_call", _ASKED)
NOT_UNDERSTOOD = Text("not_understood", _ASKED)
TOO_MUCH_SAID = Text(
    "too_much_said",
    N_(
        "The build printed more than a build may print. Ask for fewer packages, or tell an "
        "administrator."
    ),
)
AGENT_SILENT = Text(
    "agent_silent",
    N_("The agent does not answer ({reason}). Running servers go on; try again in a minute."),
)
ENGINE_REFUSED = Text("engine_refused", N_("Docker refused: {reason}. Tell an administrator."))
ENGINE_FULL = Text(
    "engine_full",
    N_(
        "A disk that Docker needs is full ({reason}): nothing can be started here, and what runs "
        "goes on. Tell an administrator."
    ),
)
ENGINE_SILENT = Text(
    "engine_silent",
    N_("Docker does not answer ({reason}). Running servers go on; try again in a minute."),
)
FOLDER_NOT_MADE = Text(
    "folder_not_made",
    N_("The folder of “{scope}” could not be made: {reason}. Tell an administrator."),
)
LIMIT_NOT_SET = Text(
    "limit_not_set",
    N_("The limit of “{folder}” could not be set: {reason}. Tell an administrator."),
)
GRADING_FAILED = Text(
    "grading_broken", N_("Grading did not come to an end: {reason}. Tell an administrator.")
)
SNAPSHOT_GONE = Text("snapshot_gone", N_("What was read is not there any more; it is read again."))
SNAPSHOT_FAILED = Text(
    "snapshot_failed",
    N_("Files could not be read or written: {reason}. Tell an administrator."),
)
GPUS_UNKNOWN = Text("gpus_unknown", N_("The GPUs of this machine cannot be listed: {reason}."))
GPU_HELD = Text(
    "gpu_held",
    N_("The GPU {device} is still in use by another server ({name}). Try again in a minute."),
)
HOME_NOT_A_FOLDER = Text(
    "home_not_a_folder", N_("The home of “{user}” is not a folder. Ask an administrator.")
)
HOME_NOT_MADE = Text(
    "home_not_made", N_("The home of “{user}” could not be made: {reason}. Tell an administrator.")
)
HOME_OF_ANOTHER = Text(
    "home_of_another",
    N_(
        "The home of “{user}” belongs to the user ID (UID) {owner}, not to yours ({uid}). Ask "
        "an administrator to hand it over or to move it away."
    ),
)
NOT_BY_THE_RULES = Text(
    "not_by_the_rules",
    N_(
        "The agent of this machine refuses that, by its rules. Tell an administrator; the agent "
        "said: “{reason}”"
    ),
)
# Reasons that a person may meet where nobody means harm: the site file was changed.
UID_OUTSIDE = Text(
    "uid_outside",
    N_(
        "The user ID (UID) {uid} is not between directory.min_uid ({least}) and max_uid ({most}) "
        "of the site file, or is that of the site's services. Tell an administrator."
    ),
)
GID_OUTSIDE = Text(
    "gid_outside",
    N_(
        "The group ID (GID) {gid} is below directory.min_gid of the site file, or one of this "
        "machine's own. Tell an administrator."
    ),
)
SCOPE_GONE_HERE = Text(
    "scope_not_in_site",
    N_("The site file of this machine has no “{scope}”. Tell an administrator."),
)
SERVER_IMAGE_MISSING = Text(
    "server_image_missing",
    N_("The server image is not there. An administrator runs “make up”."),
)
NOT_RUNNING = Text("not_running", N_("This server does not run."))
NO_SUCH_TASK = Text("no_such_task", N_("There is no such task any more."))
OTHER_VERSION = Text(
    "other_version",
    N_(
        "The agent and the hub are of different versions ({agent}, {hub}); both wait until "
        "they are the same. Run `make up`."
    ),
)
TOO_SLOW = Text("too_slow", N_("It did not end within {seconds} s. Try again."))
