"""Why an environment cannot be made: locks, channels, packages, pip, images and files."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text
from environments.messages.shown import both, either, indented, lines, quoted

# Files ------------------------------------------------------------------------------------------

OF_FILE = Text("build_file", N_("{file}: {reason}"))
MAY_NOT_WRITE = Text("build_may_not_write", N_("your account may not write there"))
MAY_NOT_DO = Text("build_may_not_do", N_("your account may not do that"))
DISK_FULL = Text("build_disk_full", N_("the disk is full: delete what is not needed and try again"))
QUOTA_USED_UP = Text(
    "build_quota_used_up",
    N_("your disk quota is used up: delete what is not needed and try again"),
)
READ_ONLY = Text("build_read_only", N_("it can only be read"))
DISK_FULL_BELOW = Text("build_disk_full_below", N_("the disk below {folder} is full; make room"))
MAY_NOT_REMOVE = Text("build_may_not_remove", N_("{file}: your account may not remove it"))
NOT_REMOVED = Text("build_not_removed", N_("{folder} cannot be removed; see who owns it"))
CACHE_UNUSABLE = Text(
    "build_cache_unusable", N_("the package cache {folder} cannot be used: {reason}")
)
WITH_LOG = Text("build_with_log", N_("{reason}\nThe whole log is in {file}"))

# Locks ------------------------------------------------------------------------------------------

MAKE_ANEW = Text("lock_make_anew", N_("make it anew with: labcommons env lock --update {name}"))
MAKE_BESIDE = Text("lock_make_beside", N_("make it with: labcommons env lock --beside {name}"))
LOCK_TOO_LARGE = Text("lock_too_large", N_("{file}: larger than {most} MB; {remedy}"))
LOCK_PLATFORM = Text("lock_platform", N_("{file}: is not for {platform}; {remedy}"))
LOCK_UNREADABLE = Text("lock_unreadable", N_("{file}: cannot be read: {reason}; {remedy}"))
LOCK_CHANNEL = Text("lock_channel", N_("{file}: {url} is in none of its channels; {remedy}"))
LOCK_NO_HASH = Text(
    "lock_no_hash",
    N_("{file}: {name} has no sha256, so nothing could check it; {remedy}"),
)
LOCK_NO_WHEEL = Text("lock_no_wheel", N_("{file}: {url} is no wheel; {remedy}"))
LOCK_NOT_THERE = Text("lock_not_there", N_("{file} is not there; {remedy}"))
LOCK_ANSWERS_OTHER = Text(
    "lock_answers_other",
    N_("{file} answers another {spec}; since then:\n{changes}\n{remedy}"),
    {"changes": indented},
)
SAYS_NOT_WHAT = Text("lock_says_not_what", N_("it says not what"))
LOCK_OTHER_CHANNELS = Text(
    "lock_other_channels",
    N_("the lock names channels that environment.yml does not: {channels}"),
)
GIVEN_CHANNELS = Text(
    "given_channels",
    N_(
        "{name}: the packages of this lock come from {channels}, which cannot be asked here. Give "
        "the environment.yml that it was made from: then packages are chosen that can be had here."
    ),
)
GIVEN_HASHES = Text(
    "given_hashes",
    N_(
        "{name}: the channel has other files than this lock was made with: the hashes of {files} "
        "differ. Make the lock anew, or give the environment.yml that it was made from."
    ),
)
GIVEN_GONE = Text(
    "given_gone",
    N_(
        "{name}: the channel does not have {files} any more, and the lock has no SHA-256 of them. "
        "Make the lock anew, or give the environment.yml that it was made from."
    ),
)
UNSOLVABLE = Text(
    "lock_unsolvable",
    N_("{name}: these packages conflict:\n{reason}\nChange the dependencies in {file}."),
    when={
        "hint": N_(
            "{name}: these packages conflict:\n{reason}\n{hint}\nChange the dependencies in {file}."
        )
    },
)
AT_FAULT = Text(
    "lock_at_fault",
    N_("{name}: this is not available:\n{problems}\nCorrect it in {file}."),
    {"problems": lines},
)
NO_SUCH_PACKAGE = Text(
    "lock_no_such_package",
    N_("“{package}” is in none of the channels {channels}."),
    when={"near": N_("“{package}” is in none of the channels {channels}. Did you mean {near}?")},
    shown={"near": either},
)
NO_SUCH_VERSION = Text(
    "lock_no_such_version",
    N_(
        "“{asked}”: the channels {channels} have no such version or build of “{package}”. They "
        "have {versions}."
    ),
)
NEED_CUDA = Text(
    "lock_need_cuda",
    N_(
        "Some of them need CUDA, and it is solved for no CUDA: write 'cuda: \"12.4\"' (what the "
        "servers' driver has) into labcommons.yml."
    ),
    when={
        "cuda": N_(
            "Some of them need CUDA, and it is solved for CUDA {cuda}: write 'cuda: \"12.4\"' "
            "(what the servers' driver has) into labcommons.yml."
        )
    },
)
NO_CANDIDATES = Text(
    "lock_no_candidates",
    N_("What has no candidates is in none of the channels {channels}, or not in that version."),
)
NO_CANDIDATES_NOR_DEFAULTS = Text(
    "lock_no_candidates_nor_defaults",
    N_(
        "What has no candidates is in none of the channels {channels}, or not in that version. "
        "conda adds its defaults to them; here you name all: add conda-forge."
    ),
)
NOT_LOOKED_UP = Text("lock_not_looked_up", N_("{name}: the packages cannot be looked up: {reason}"))
PIP_ONE_PLATFORM = Text(
    "lock_pip_one_platform",
    N_(
        "{name}: pip chooses wheels for the machine it runs on, so an environment with a 'pip:' "
        "section is locked for one platform; remove it, or the other platform"
    ),
)
PIP_NEEDS_PYTHON = Text(
    "lock_pip_needs_python",
    N_("{name}: a 'pip:' section needs a Python; add '- python' to {file}"),
)

# Channels and logins ----------------------------------------------------------------------------

CHANNEL_SILENT = Text(
    "channel_silent",
    N_(
        "channel {channel}: no place answers. Tried:\n{tried}\n"
        "Set environments.mirrors.{channel} in the site file to a place that does, or "
        "environments.offline_channel: auto for a small channel made of PyPI wheels."
    ),
    {"tried": indented},
)
TRIED = Text("channel_tried", N_("{place}: {problem}"))
NO_ANSWER = Text("channel_no_answer", N_("no answer within {seconds} s"))
PLACE_UNUSABLE = Text("channel_place_unusable", N_("cannot be used: {reason}"))
NO_INDEX = Text("channel_no_index", N_("has no {index}"))
NO_PLACE = Text("channel_no_place", N_("is neither an http(s) URL nor a path"))
HTTP_STATUS = Text("channel_http_status", N_("answers with HTTP status {status}"))
HTTP_LOGIN = Text(
    "channel_http_login",
    N_("answers with HTTP status {status}; set environments.credentials in the site file"),
)
SILENT = Text("channel_does_not_answer", N_("does not answer: {reason}"))
NOT_AN_INDEX = Text("channel_not_an_index", N_("answers with something that is no channel index"))
CHANNEL_PATH = Text("channel_path", N_("channel {channel}: {path} is no package's path"))
CHANNEL_NOT_FETCHED = Text(
    "channel_not_fetched",
    N_("channel {channel}: {path} cannot be fetched: {reason}; try again later"),
)
CHANNEL_HASH = Text(
    "channel_hash",
    N_(
        "channel {channel}: {path} has another hash than the lock says; nothing of it was installed"
    ),
)
SECRET_UNREADABLE = Text("credentials_unreadable", N_("{key}: {file}: {reason}"))
SECRET_NOT_UTF8 = Text("credentials_not_utf8", N_("not UTF-8 text"))
SECRET_WRONG = Text(
    "credentials_wrong",
    N_("{key}: {file} must hold one word, the secret"),
    when={"variable": N_("{key}: variable {variable} must hold one word, the secret")},
)

# Processes --------------------------------------------------------------------------------------

WORKER_GAVE_UP = Text("build_worker_gave_up", N_("gave up after {seconds} s ({work})"))
WORKER_ENDED = Text(
    "build_worker_ended",
    N_("the {work} process ended without a result (status {status}): {words}"),
)
PYTHON_GAVE_UP = Text(
    "build_python_gave_up", N_("the environment's Python gave up after {seconds} s")
)
PYTHON_NOT_STARTED = Text(
    "build_python_not_started", N_("the environment's Python does not start: {reason}")
)
TOO_MUCH_SAID = Text(
    "build_too_much_said", N_("{kilobytes} kB are too much for one answer; ask for fewer packages")
)

# Installing -------------------------------------------------------------------------------------

NOT_INSTALLED = Text(
    "build_not_installed",
    N_("{name}: the packages cannot be installed: {reason}{more}"),
    {"more": lambda value, locale: "".join(f"\n{one.in_words(locale)}" for one in value)},
)
LITTLE_ROOM = Text("build_little_room", N_("The disk below {folder} is full: {left} MB are left."))
OFFLINE_GONE = Text(
    "build_offline_gone",
    N_(
        "The offline channel has no more {names}; choose from what there is: labcommons env lock "
        "--update {name}"
    ),
)
NO_KERNEL = Text(
    "build_no_kernel",
    N_(
        "{name}: it has no kernel (share/jupyter/kernels is empty); add '- ipykernel' for Python "
        "or '- r-irkernel' for R to the dependencies in {file}"
    ),
)
KERNEL_WANTED = Text(
    "build_kernel_wanted",
    N_("No notebook could use {name}: none of its packages is a kernel. Add “{package}”."),
)
NO_RECORDS = Text(
    "build_no_records", N_("{name}: a package has taken away conda-meta; leave it out")
)
PACKAGE_MISSING = Text(
    "build_package_missing", N_("{name}: {package} was not installed; try again")
)
PYTHON_ENDS = Text(
    "build_python_ends",
    N_("{name}: its Python does not start, or ends while importing {modules}: {words}"),
)
NOTHING = Text("build_nothing", N_("nothing"))
OTHER_PREFIX = Text(
    "build_other_prefix", N_("{name}: its Python takes {found} for its prefix, not {prefix}")
)
NOT_IMPORTED = Text(
    "build_not_imported",
    N_(
        "{name}: these modules do not import:\n{modules}\nChange the dependencies in {file}, or "
        "'imports' in labcommons.yml."
    ),
    {"modules": indented},
)
KERNEL_PROGRAM = Text(
    "build_kernel_program",
    N_(
        "{name}: the kernel {kernel} starts {program}, which is not in the environment; see the "
        "dependencies in {file}"
    ),
    {"program": quoted},
)

# pip --------------------------------------------------------------------------------------------

PIP_UNSOLVABLE = Text(
    "pip_unsolvable",
    N_(
        "{name}: pip cannot have these together with conda's packages:\n{reason}\nOnly wheels are "
        "taken: where a package has none for this Python, take it from a conda channel, or put a "
        "wheel into the site's package index."
    ),
)
PIP_UNKNOWN = Text(
    "pip_unknown",
    N_("The package index has no “{package}” for {python}."),
    when={"near": N_("The package index has no “{package}” for {python}. Did you mean {near}?")},
    shown={"near": either},
)
PIP_NO_WHEEL = Text(
    "pip_no_wheel",
    N_(
        "The package index has no wheel of “{package}” for {python}, and only wheels are taken. "
        "Take another Python, or the package from a conda channel."
    ),
)
PIP_NO_VERSION = Text(
    "pip_no_version",
    N_(
        "“{asked}”: the package index has no such version of “{package}” for {python}. It has "
        "{versions}."
    ),
)
PIP_CONFLICT = Text(
    "pip_conflict",
    N_("These packages contradict each other. Loosen one of them:\n{reason}"),
)
INDEX_SILENT = Text(
    "pip_index_silent", N_("The package index does not answer. Try again in a few minutes.")
)
PIP_REPLACES = Text(
    "pip_replaces",
    N_(
        "{name}: pip would replace {package} {conda} of conda by {version}, and both would be "
        "broken; ask conda for '{package} =={version}', or loosen what the 'pip:' section asks for"
    ),
)
PIP_NO_HASH = Text("pip_no_hash", N_("pip: {package} {version} has no sha256 in the package index"))
PIP_NOT_FETCHED = Text(
    "pip_not_fetched", N_("{name}: the pip packages cannot be fetched:\n{reason}")
)
PIP_HASH = Text("pip_hash", N_("{name}: {file} has another sha256 than the lock says"))
PIP_REPLACES_FILE = Text(
    "pip_replaces_file",
    N_(
        "{name}: {package} of pip would replace a file of conda's: {file}; keep one of the two "
        "packages"
    ),
)
PIP_BAD_WHEEL = Text("pip_bad_wheel", N_("{name}: {file} is not a good wheel: {reason}"))
NO_PYTHON = Text("pip_no_python", N_("there is no Python in {prefix}"))
PIP_GAVE_UP = Text("pip_gave_up", N_("pip gave up after {seconds} s"))

# Versions and images ----------------------------------------------------------------------------

NO_BASE = Text(
    "image_no_base",
    N_(
        "image {image}, on which environments are built, is not there; `make up` builds it, "
        "--server-image names another one"
    ),
)
TAG_TAKEN = Text(
    "build_tag_taken",
    N_(
        "{name}: the tag {tag} is version {version}, with other packages; raise 'tag' in "
        "labcommons.yml"
    ),
)
TAG_OF_OTHER = Text(
    "build_tag_of_other",
    N_(
        "the tag {tag} is another version of {name}, with other packages; raise 'tag' in "
        "labcommons.yml"
    ),
)
OTHER_ENVIRONMENT = Text(
    "build_other_environment", N_("{prefix} is another environment; remove it, or rename one")
)
TOO_MANY_PACKAGES = Text(
    "build_too_many_packages",
    N_("{count} packages are more than an environment may have here ({most}); make two of it"),
)
NOT_BUILT_HERE = Text(
    "build_not_built_here",
    N_(
        "{link} is there and was not built here; give the new environment another name, or "
        "delete that one first"
    ),
)
NO_STAMP = Text("build_no_stamp", N_("{prefix} is not there, or does not say what it is"))
IMAGE_DOING = Text("image_failed", N_("{doing}: {reason}"))
LOOKING_FOR = Text("image_looking", N_("looking for image {image}"))
PUBLISHING = Text("image_publishing", N_("publishing the image"))
TRYING = Text("image_trying", N_("trying the image"))
COMPILING = Text("image_compiling", N_("compiling"))
TAGGING = Text("image_tagging", N_("tagging {name}:{version}"))
REMOVING = Text("image_removing", N_("removing the image"))
LISTING_SERVERS = Text("image_listing_servers", N_("listing servers"))
LISTING_IMAGES = Text("image_listing", N_("listing images"))
CHECK_FAILED = Text(
    "image_check_failed", N_("the image does not pass its check (status {status}): {words}")
)
SIGNER_SILENT = Text(
    "signer_silent",
    N_("the service “signer” did not sign it within a minute; see “docker compose logs signer”"),
)
NOT_SIGNED = Text(
    "image_not_signed_at_build",
    N_(
        "the image is built, but not offered, as it is not signed and the site starts signed "
        "images alone (signatures.policy): {reason}. Then build again"
    ),
)
NOT_SIGNED_YET = Text("image_not_signed_yet", N_("the image is not signed: {reason}"))

# Exports ----------------------------------------------------------------------------------------

NO_FORMAT = Text(
    "export_no_format",
    N_("there is no format {format}; there are: {known}"),
    {"format": quoted},
)
NOT_SAID_FROM = Text(
    "export_not_said_from", N_("{folder} does not say what it was made from: {reason}")
)
NO_CONDA = Text("export_no_conda", N_("{prefix} is no conda environment"))
NO_LOCK = Text(
    "export_no_lock",
    N_(
        "{prefix} was not made from a lock; export 'conda-lock', or build it from an "
        "environment.yml here"
    ),
)
NOT_SAID_WHERE = Text(
    "export_not_said_where", N_("{prefix} does not say where these came from: {names}")
)
EXPORT_UNREADABLE = Text("export_unreadable", N_("{file} cannot be read: {reason}"))

# The site's rules and scans; ``findings`` are texts of ``environments.messages.rules`` ---------

REFUSED = Text("policy_refused", "{findings}", {"findings": lines})
REFUSED_ONE = Text("policy_refused_one", N_("refused ({rule}): {what}; {remedy}"))
SCAN_GAVE_UP = Text(
    "scan_gave_up",
    N_(
        "the scan ({command}) gave up after {seconds} s; see environments.scan.timeout in the "
        "site file"
    ),
)
SCAN_NOT_STARTED = Text(
    "scan_not_started",
    N_(
        "the scan ({command}) does not start: {reason}; see environments.scan.command in the "
        "site file"
    ),
)
SCAN_UNCLEAR = Text(
    "scan_unclear",
    N_("the scan ({command}, status {status}) did not print Trivy's JSON: {words}"),
)
NO_ADVISORIES = Text(
    "scan_no_advisories",
    N_(
        "environments.scan.advisories: {file} is not there for the builder; an administrator "
        "puts them into data/advisories and names /srv/labcommons/data/advisories in the site "
        "file"
    ),
)
ADVISORIES_NO_ZIP = Text("scan_no_zip", N_("advisories: {file} is no zip file"))
ADVISORIES_UNREADABLE = Text(
    "scan_advisories_unreadable", N_("advisories: {file} cannot be read: {reason}")
)

# The offline channel ----------------------------------------------------------------------------

OFFLINE_PYTHON = Text(
    "offline_python",
    N_(
        "{name}: no conda channel answers, and the offline channel has Python {known} only, not "
        "{wanted}; change it, or set environments.mirrors in the site file"
    ),
    {"wanted": quoted, "known": both},
)
OFFLINE_VERSION = Text(
    "offline_version", N_("{item}: the offline channel cannot read this version; write 'x >=1'")
)
OTHER_SOFTWARE = Text(
    "offline_other_software",
    N_(
        "{name} is no Python package in conda's channels, or several, so that what PyPI has by "
        "that name is other software. The offline channel is made of PyPI's packages: leave it "
        "out, put it under 'pip:' where PyPI's is meant, or let the site have a real channel "
        "(environments.mirrors in the site file)"
    ),
    {"name": quoted, "pypi": quoted, "other": quoted},
    when={
        "other": N_(
            "{name} is no Python package in conda's channels, or several, so that what PyPI has "
            "by that name is other software; PyPI's {pypi} is conda's {other}. The offline channel "
            "is made of PyPI's packages: leave it out, put it under 'pip:' where PyPI's is meant, "
            "or let the site have a real channel (environments.mirrors in the site file)"
        )
    },
)
NO_DEBIAN = Text(
    "offline_no_debian", N_("no Debian mirror is known here; set {variable} to its URL")
)
LIBRARY_MISSING = Text(
    "offline_library_missing", N_("{file} needs {library}, which Debian's packages do not bring")
)
PROGRAM_MISSING = Text(
    "offline_program_missing",
    N_("{program} is not installed; build environments in the builder image"),
)
PROGRAM_GAVE_UP = Text("offline_program_gave_up", N_("{program} gave up after {seconds} s"))
PROGRAM_FAILED = Text("offline_program_failed", N_("{program} failed: {words}"))
NOT_A_WHEEL = Text("offline_not_a_wheel", N_("{file}: not a wheel: {reason}"))
WHEEL_METADATA = Text("offline_wheel_metadata", N_("{file}: its metadata cannot be read: {reason}"))
WHEEL_ENTRY_POINTS = Text(
    "offline_wheel_entry_points", N_("{file}: entry_points.txt cannot be read")
)
WHEEL_OUTSIDE = Text(
    "offline_wheel_outside", N_("{file}: a file is outside: {name}"), {"name": quoted}
)
WHEEL_PLACE = Text(
    "offline_wheel_place", N_("{file}: {place} is no place for files"), {"place": quoted}
)
PYPI_GAVE_UP = Text("offline_pypi_gave_up", N_("PyPI: pip gave up after {seconds} s"))
