"""What ``labcommons env doctor`` finds, and what to do about it."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

NO_ENVIRONMENT = Text("doctor_no_environment", N_("there is no environment in {folder}"))
MAKE_FOLDER = Text("doctor_make_folder", N_("make a folder there with an environment.yml in it"))
CHECK_FOLDER = Text("doctor_check_folder", N_("check --environments"))
CORRECT_FILE = Text("doctor_correct_file", N_("correct the file"))
CORRECT_SECRET = Text("doctor_correct_secret", N_("correct the site file or the secret"))
RUN = Text("doctor_run", "{command}")
NO_LOCK = Text("doctor_no_lock", N_("no lock is committed beside it"))
LOCK_OF_OTHER = Text("doctor_lock_of_other", N_("its lock is of another spec: {changes}"))
IN_STEP = Text(
    "doctor_in_step",
    N_("spec and lock are in step ({count} packages)"),
)
TAKEN_FROM = Text("doctor_taken_from", N_("taken from {places}"))
NO_PLACE_ANSWERS = Text(
    "doctor_no_place_answers", N_("channel {channel}: no place answers. Tried:")
)
TRIED = Text("doctor_tried", "{words}")
SET_MIRRORS = Text(
    "doctor_set_mirrors", N_("set environments.mirrors or offline_channel in the site file")
)
ENGINE_RUNS = Text("doctor_engine_runs", N_("see that the Engine runs"))
NO_IMAGE = Text("doctor_no_image", N_("image {image} is not there"))
MAKE_UP = Text("doctor_make_up", N_("make up builds it"))
IMAGE_THERE = Text("doctor_image_there", N_("image {image} is there"))
ENGINE = Text("doctor_engine", N_("Docker Engine {version}"))
NEWER_ENGINE = Text(
    "doctor_newer_engine",
    N_(
        "Engine {wanted} starts a server with some 0.1 s less of CPU, and asks services that are "
        "well less often (docs/performance.md)"
    ),
)
GPUS_LOSABLE = Text(
    "doctor_gpus_losable",
    N_(
        "systemd keeps the containers' cgroups, and GPUs are asked of NVIDIA's runtime: running "
        "servers lose theirs when systemd is reloaded, unless the machine was set up for that"
    ),
)
KEEP_GPUS = Text(
    "doctor_keep_gpus",
    N_(
        "set gpus.request in the site file to cdi (Docker Engine 25 and later) or devices "
        "(docs/gpu.md, “A GPU that a running server loses”)"
    ),
)
GPUS_KEPT = Text(
    "doctor_gpus_kept",
    N_("running servers keep their GPUs when systemd is reloaded (gpus.request: {request})"),
)
NO_CDI = Text(
    "doctor_no_cdi", N_("gpus.request is cdi, and the Engine has no CDI: no server gets a GPU")
)
ENABLE_CDI = Text(
    "doctor_enable_cdi",
    N_(
        "use Docker Engine 25 or later with “cdi: true” among the “features” of "
        "/etc/docker/daemon.json, or another gpus.request"
    ),
)
NOT_NAMED = Text(
    "doctor_not_named", N_("gpus.request is cdi, and CDI has no name for GPUs: {gpus}")
)
NAME_BY_UUID = Text(
    "doctor_name_by_uuid",
    N_(
        "run “nvidia-ctk cdi generate --device-name-strategy=uuid "
        "--output=/etc/cdi/nvidia.yaml” on the machine"
    ),
)
ENDLESS = Text(
    "doctor_endless",
    N_(
        "no time limit under default: leases of those who have none of their own have no end, and "
        "a request for many GPUs may never start"
    ),
)
TIMED = Text("doctor_timed", N_("default has a time limit: leases of GPUs end"))
AGE_UNKNOWN = Text("doctor_age_unknown", N_("the age of its updates is not known"))
UPDATES = Text("doctor_updates", N_("Debian's updates in {image} are of {day} ({days} days ago)"))
REFRESH = Text(
    "doctor_refresh",
    N_("REFRESH=yes make up, which makes all images anew, environments' too"),
)
NOT_OFFERED = Text("doctor_not_offered", N_("no version of it is offered"))
PYTHON_ENDS = Text("doctor_python_ends", N_("Python {version}: no security fixes from {end}"))
ASK_PYTHON = Text("doctor_ask_python", N_("ask for Python {newest} in its environment.yml"))
WITHDRAWN_USED = Text(
    "doctor_withdrawn_used", N_("version {version} is withdrawn and in use by {user}")
)
REMOVED_USED = Text("doctor_removed_used", N_("version {version} is removed and in use by {user}"))
START_ANEW = Text("doctor_start_anew", N_("ask them to start anew"))
GIVE_DATA = Text("doctor_give_data", N_("give --data"))
FREE = Text("doctor_free", N_("{free} GB are free below {folder}"))
