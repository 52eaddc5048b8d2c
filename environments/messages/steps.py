"""What builds say while they go on: their steps, and remarks in between."""

from __future__ import annotations

from commons.i18n import N_, NP_
from commons.messages import Text

# Steps ------------------------------------------------------------------------------------------

LOOKING = Text("step_looking", N_("looking for {channels}"))
USING_LOCK = Text("step_using_lock", N_("using the lock {path}"))
USING_LOCK_OF = Text("step_using_lock_of", N_("using the lock of {day}"))
CHOOSING = Text("step_choosing", N_("choosing versions of {count} packages and their needs"))
INSTALLING = Text("step_installing", N_("installing {count} conda packages"))
INSTALLING_PIP = Text("step_installing_pip", N_("installing {count} pip packages"))
FETCHED = Text("step_fetched", N_("{done} of {total} packages fetched"))
INSTALLED = Text("step_installed", N_("{done} of {total} packages installed"))
COMPILING = Text("step_compiling", N_("compiling and checking"))
IMAGE = Text("step_image", N_("building image {image}"))
TRYING = Text("step_trying", N_("trying it as a stranger in a container"))
REMOVING = Text("step_removing", N_("removing {name}"))
NOTING = Text("step_noting", N_("noting it in {version}"))
FETCHING_PRIVATE = Text("step_fetching_private", N_("fetching packages that want a login"))
FETCHING_PIP = Text("step_fetching_pip", N_("fetching pip's packages"))
LOCKED = Text("step_locked", N_("locked {count} packages in {path}"))
THERE = Text("step_there", N_("{what} is there already"))
READY = Text("step_ready", N_("{what} is ready"))
IMAGE_READY = Text("step_image_ready", N_("{image} is ready, {size} MB"))
NOW = Text("step_now", N_("{name} is now {version}"))

# Remarks ----------------------------------------------------------------------------------------

ANSWERS = Text("step_channel_answers", N_("channel {channel}: {place} answers"))
SILENT = Text("step_channel_place_silent", N_("channel {channel}: {place}: {problem}"))
STANDS_IN = Text(
    "step_channel_stands_in", N_("channel {channel}: our own offline channel stands in")
)
LEFT_OUT = Text(
    "step_channel_left_out",
    N_("channel {channel}: left out; it is not in the file, but the site's default"),
)
REFUSED = Text("step_finding_refused", N_("refused: {what}; {remedy}"))
WARNED = Text("step_finding_warned", N_("warning: {what}; {remedy}"))
OFFLINE_FETCHING = Text(
    "step_offline_fetching",
    N_("offline channel: fetching {count} packages and their needs from PyPI"),
)
OFFLINE_PYTHON = Text(
    "step_offline_python", N_("offline channel: fetching Python {python} from Debian")
)
OFFLINE_MAKING = Text(
    "step_offline_making", N_("offline channel: making {count} of {total} packages")
)
OFFLINE_ALIAS = Text("step_offline_alias", NP_("a conda package on PyPI", "{name} is {pypi}"))
OFFLINE_ALIASES = Text("step_offline_aliases", N_("offline channel: on PyPI {names}"))
OFFLINE_GUESSED = Text(
    "step_offline_guessed",
    N_(
        "offline channel: {names} taken from PyPI under the same name; see that it is the same "
        "software as conda's"
    ),
)
OFFLINE_LARGE = Text(
    "step_offline_large",
    N_(
        "offline channel: {size} are more than environments.offline_size in the site file "
        "({most}); 'labcommons env prune' removes what no lock needs"
    ),
)
