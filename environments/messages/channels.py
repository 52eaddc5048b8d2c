"""What is said of the site's own channels: packages that are refused, names, who may what."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

UNKNOWN = Text(
    "channel_unknown",
    N_("This site has no channel “{channel}”. The page Channels lists those that you may read."),
)
NOT_HERE = Text(
    "channel_not_here",
    N_(
        "The channel “{channel}” is for its own members, and not for what others may use. Take the "
        "package from the channel “site”, or build the environment where the channel belongs."
    ),
)
EMPTY = Text(
    "channel_empty",
    N_("the channel {channel} has no packages yet; upload one on the page Channels"),
)

# Packages ----------------------------------------------------------------------------------------

FILE_NAME = Text(
    "package_file_name",
    N_("“{file}” is no package’s name: conda’s are NAME-VERSION-BUILD.conda or .tar.bz2."),
)
TOO_LARGE = Text(
    "package_too_large",
    N_("“{file}” is larger than {most}, which is what this site takes (channels.largest)."),
)
CHANNEL_FULL = Text(
    "channel_full",
    N_(
        "The channel “{channel}” has {size} of packages, and this site keeps at most {most} in one "
        "(channels.size). Ask an administrator."
    ),
)
EMPTY_BODY = Text("package_empty", N_("Nothing was sent. Choose a package’s file."))
HASH_WRONG = Text(
    "package_hash_wrong",
    N_("What arrived is not what was sent: its SHA-256 is {found}, not {wanted}. Send it again."),
)
DISK_FULL = Text(
    "channel_disk_full",
    N_("There is no room for the package on this site’s disk. Tell an administrator."),
)
BUSY = Text("channel_busy", N_("Others upload just now. Try again in a minute."))
NO_ARCHIVE = Text(
    "package_no_archive",
    N_("“{file}” cannot be read as a package: it is damaged, or something else. Build it anew."),
)
TOO_MUCH = Text(
    "package_too_much",
    N_("“{file}” holds more than a package may: over {most}. Make several packages of it."),
)
ENTRIES = Text("package_entries", N_("{count} files"))
OUTSIDE = Text(
    "package_outside",
    N_("“{file}” has a file that would not lie in the environment: {path}. Build it without that."),
)
LINK_OUTSIDE = Text(
    "package_link_outside",
    N_("“{file}” has a link that leads out of the environment: {path} to {target}."),
)
DEVICE = Text(
    "package_device",
    N_("“{file}” has what is neither file, folder nor link: {path}. Build it without that."),
)
SETUID = Text(
    "package_setuid",
    N_("“{file}” has a program with the rights of its owner (setuid): {path}."),
)
TWICE = Text("package_twice", N_("“{file}” has {path} more than once. Build it anew."))
LAYOUT = Text(
    "package_layout",
    N_("“{file}” is not laid out as conda’s packages are: {reason}. Build it anew."),
)
NO_INDEX = Text("package_no_index", N_("it has no readable info/index.json"))
NO_PATHS = Text("package_no_paths", N_("it has neither info/paths.json nor info/files"))
FIELD = Text("package_field", N_("its info/index.json has no proper “{field}”"))
PARTS = Text(
    "package_parts", N_("a .conda has metadata.json, one info- and one pkg- archive, and no more")
)
OTHER_NAME = Text(
    "package_other_name",
    N_("“{file}” says of itself that it is {inside}. The file’s name must be that."),
)
DENIED = Text(
    "package_denied",
    N_("This site takes no “{name}”: {reason}. (environments.policy.denied_packages)"),
)
DENIED_PLAIN = Text(
    "package_denied_plain",
    N_("This site takes no “{name}”. (environments.policy.denied_packages)"),
)
HOLES = Text(
    "package_holes",
    N_(
        "“{file}” has a known hole, {id} ({severity}), and this site takes none such "
        "(environments.scan). Build a newer version of it."
    ),
)
OTHER_BYTES = Text(
    "package_other_bytes",
    N_(
        "“{file}” is in this channel with other contents already. A package is written once: raise "
        "its version or its build number."
    ),
)
TOOK_TOO_LONG = Text(
    "package_took_too_long",
    N_("“{file}” could not be checked within the limits: {reason}"),
)
NO_PACKAGE = Text("package_unknown", N_("“{channel}” has no package “{file}”."))
NO_REASON = Text("package_no_reason", N_("Say why, in up to 500 characters: users will read it."))
NOT_INDEXED = Text(
    "channel_not_indexed",
    N_("The channel’s index could not be made; it stays as it was: {reason}"),
)

# Building ----------------------------------------------------------------------------------------

NO_PROJECT = Text(
    "package_no_project", N_("{folder} has no pyproject.toml; name the folder of a Python project.")
)
NOT_BUILT = Text("package_not_built", N_("{folder} could not be built:\n{words}"))
NOT_PURE = Text(
    "package_not_pure",
    N_(
        "{file} is for one platform alone. Only packages without compiled parts are made here; "
        "build others with rattler-build, and upload what it makes."
    ),
)
BUILD_LONG = Text("package_build_long", N_("{folder} was not built within {seconds} seconds."))
