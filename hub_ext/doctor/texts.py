"""What the hub's checks find, and what to do about it."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

DATABASE = Text("health_database", N_("{place} answers, and is whole (schema {revision})"))
NO_DATABASE = Text("health_no_database", N_("{place} is not there"))
DATABASE_SILENT = Text("health_database_silent", N_("{place} cannot be used: {reason}"))
DAMAGED = Text("health_damaged", N_("{place} is damaged: {reason}"))
RESTORE = Text(
    "health_restore", N_("stop the site (make down), keep the file aside, restore a backup")
)
DATABASE_RUNS = Text(
    "health_database_runs",
    N_("see that the database server runs and its disk has room; make up starts it"),
)
OTHER_SCHEMA = Text(
    "health_other_schema", N_("{place} has the tables of schema {found}; this version has {wanted}")
)
MAKE_UP = Text("health_make_up", N_("run make up"))
DIRECTORY_WELL = Text(
    "health_directory_well", N_("answers, takes the hub’s account, and has the base")
)
LDAP_CHECK = Text("health_ldap_check", N_("labcommons ldap check NAME says more"))
AGENT_SILENT = Text("health_agent_silent", N_("the agent cannot be asked: {reason}"))
AGENT_RUNS = Text(
    "health_agent_runs",
    N_(
        "see what the agent says (docker compose logs agent) and that the Engine runs, then make up"
    ),
)
OTHER_SITE_FILE = Text("health_other_site_file", N_("goes by another site file than the hub"))
AGENT_WELL = Text("health_agent_well", N_("answers (version {version})"))
AUDIT_WELL = Text("health_audit_well", N_("the audit trail is whole"))
AUDIT_SILENT = Text(
    "health_audit_silent", N_("nobody has looked through the audit trail for {minutes} minutes")
)
AUDIT_SERVICE = Text(
    "health_audit_service", N_("see that the service audit runs: docker compose logs audit")
)
AUDIT_BROKEN = Text("health_audit_broken", N_("the audit trail is not whole: {findings}"))
AUDIT_VERIFY = Text(
    "health_audit_verify",
    N_("labcommons audit verify says where; keep data/audit aside, and compare with what was sent"),
)
AUDIT_SENT = Text("health_audit_sent", N_("has all events"))
AUDIT_NOT_SENT = Text("health_audit_not_sent", N_("takes no events since {since}: {problem}"))
AUDIT_TARGET = Text(
    "health_audit_target", N_("see to it: nothing is lost meanwhile; labcommons audit targets")
)
LEDGER_WELL = Text("health_ledger_well", N_("leases are as they must be"))
REPAIR = Text("health_repair", "labcommons gpu check --deep --repair")
GPU_FAILS = Text("health_gpu_fails", N_("fails: {reason}"))
GPU_LOST = Text("health_gpu_lost", N_("is out of reach: {reason}"))
LOOK_AT_GPU = Text(
    "health_look_at_gpu", N_("look at it with nvidia-smi and dmesg on its machine (docs/gpu.md)")
)
GPU_DRAINED = Text("health_gpu_drained", N_("was taken out by {by}: {reason}"))
UNDRAIN = Text("health_undrain", N_("when it is well again: labcommons gpu undrain {id}"))
GPUS_WELL = Text("health_gpus_well", N_("GPUs that are well: {count}"))
CLOCKS_DIFFER = Text("health_clocks_differ", N_("is {seconds} s from the hub’s clock"))
CLOCK_WENT_BACK = Text(
    "health_clock_went_back",
    N_("has seen a time that is {seconds} s ahead of now: the machine’s clock was set back"),
)
SET_CLOCK = Text(
    "health_set_clock",
    N_("let NTP keep the clocks: timedatectl set-ntp true, or chrony; then see timedatectl"),
)
CLOCKS_AGREE = Text("health_clocks_agree", N_("the clocks agree"))
NO_IMAGE = Text("health_no_image", N_("is offered, and its image is not on this machine"))
BUILD_AGAIN = Text("health_build_again", "labcommons env build {name}")
IMAGES_THERE = Text("health_images_there", N_("versions whose images are there: {count}"))
