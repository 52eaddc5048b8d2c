"""Why an environment.yml cannot be changed as somebody asks."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

NOT_A_PACKAGE = Text(
    "edit_not_a_package",
    N_("“{text}” is no package. Write a name, with a version where one is wanted: numpy>=2."),
)
NOT_A_CHANNEL = Text(
    "edit_not_a_channel",
    N_("“{text}” is no channel. Write its name or its address: conda-forge."),
)
NOT_THERE = Text(
    "edit_not_there",
    N_("“{name}” is not among the packages that environment.yml lists: {listed}."),
)
NEEDED_BY_OTHERS = Text(
    "edit_needed_by_others",
    N_(
        "environment.yml does not list “{name}”; a package that it lists needs it. Remove that "
        "package instead."
    ),
)
NO_PLACE = Text(
    "edit_no_place",
    N_("“dependencies” is not a list here. Change environment.yml by hand."),
)
NOTHING_TO_CHANGE = Text(
    "edit_nothing_to_change", N_("Nothing would change: environment.yml says so already.")
)
TOO_MANY = Text("edit_too_many", N_("At most {most} packages can be changed at once."))
