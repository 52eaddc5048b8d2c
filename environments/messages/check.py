"""What a site's own CI is told of a repository of environments."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

NO_FOLDER = Text("check_no_folder", N_("{folder} is no folder"))
TOO_MANY = Text(
    "check_too_many",
    N_("{folder} has more than {folders} folders or {most} environments: name a smaller folder"),
)
NAME_TWICE = Text("check_name_twice", N_("another environment is called {name}, too: {other}"))
RENAME = Text("check_rename", N_("give one of the two folders another name"))
NO_LOCK = Text("check_no_lock", N_("there is no pixi.lock beside it"))
STALE = Text("check_stale", N_("pixi.lock answers another environment.yml"))
STALE_WITH = Text("check_stale_with", N_("pixi.lock answers another environment.yml: {changes}"))
MAKE_LOCK = Text(
    "check_make_lock", N_("run “labcommons env lock --beside {name}” and commit its pixi.lock")
)
NO_ENVELOPE = Text("check_no_envelope", N_("the signed statement cannot be read: {reason}"))
KEYS = Text(
    "check_keys", N_("name the site's key with --key, or keys in the site file (signatures.keys)")
)
OTHER_LOCK = Text(
    "check_other_lock", N_("the signed statement is about {version}, made from another lock")
)
EXPORT = Text(
    "check_export", N_("export it again once this lock is built, or take the statement away")
)
