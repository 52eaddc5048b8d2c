"""Child processes that write what is being made: they end with the process that started them.

However that one ends, ``kill -9`` included: else they would go on writing into a folder that the
next try has taken over.
"""

from __future__ import annotations

# util-linux. The signal comes when the thread that started the child ends, so that thread has to
# wait for it (prctl(2), PR_SET_PDEATHSIG).
ENDING_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
