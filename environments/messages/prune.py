"""Why a version stays or goes when old ones are cleared away."""

from __future__ import annotations

from commons.i18n import N_
from commons.messages import Text

IN_USE = Text("prune_in_use", N_("in use by {user}"))
PINNED = Text("prune_pinned", N_("pinned"))
AMONG_LAST = Text("prune_among_last", N_("among the last {count}"))
LAST_USED = Text("prune_last_used", N_("last used on {day}"))
OLDER = Text("prune_older", N_("older than the last {count}, not used"))
OLDER_USED = Text("prune_older_used", N_("older than the last {count}, last used on {day}"))
WITHDRAWN = Text("prune_withdrawn", N_("withdrawn, not used"))
WITHDRAWN_USED = Text("prune_withdrawn_used", N_("withdrawn, last used on {day}"))
REMOVED = Text("prune_removed", N_("not offered any more, not used"))
REMOVED_USED = Text("prune_removed_used", N_("not offered any more, last used on {day}"))
