"""What the site's rules and the scan say of an environment, and what they would accept."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

CHANNEL = Text("rule_channel", N_("channel {channel} is not among this site's"))
AS_CONDA_READS = Text(
    "rule_as_conda_reads", N_("conda reads it so, too; change the line if something else is meant")
)
TAKE_FROM = Text("rule_take_from", N_("take the packages from {allowed}"))
DENIED = Text("rule_denied", N_("package {name} is not allowed here: {reason}"))
DENIED_NEEDED = Text(
    "rule_denied_needed",
    N_("package {name} (needed by what environment.yml names) is not allowed here: {reason}"),
)
NO_REASON = Text("rule_no_reason", N_("no reason is given"))
LEAVE_OUT = Text("rule_leave_out", N_("leave it out"))
NOT_ALLOWED = Text(
    "rule_not_allowed", N_("package {name} is not among those that this site allows to ask for")
)
ASK_TO_ALLOW = Text(
    "rule_ask_to_allow",
    N_("ask an administrator to add it to environments.policy.allowed_packages"),
)
PIP = Text("rule_pip", N_("packages of pip beside conda's ({names})"))
AS_CONDA = Text("rule_as_conda", N_("most of PyPI is on conda-forge; list them as conda packages"))
PYTHON_ENDED = Text(
    "rule_python_ended", N_("Python {version} gets no security fixes any more since {end}")
)
PYTHON_ENDING = Text(
    "rule_python_ending", N_("Python {version} gets security fixes until {end} only")
)
TAKE_PYTHON = Text("rule_take_python", N_("take Python {newest}"))
UNLOCKED = Text("rule_unlocked", N_("no lock beside environment.yml answers it"))
COMMIT_LOCK = Text(
    "rule_commit_lock", N_("run 'labcommons env lock --beside {name}', and commit its pixi.lock")
)
HOLE = Text(
    "rule_hole",
    N_("{package} {version} has {id} ({severity})"),
    when={"title": N_("{package} {version} has {id} ({severity}): {title}")},
)
ASK_FIXED = Text("rule_ask_fixed", N_("ask for {package} >={fixed}"))
IGNORE_HOLE = Text(
    "rule_ignore_hole",
    N_("leave it out, or name {id} under environments.scan.ignore with the reason"),
)
SEE_VERSIONS = Text("rule_see_versions", N_("see the versions in environment.yml"))
