"""The texts of builds' errors and findings.

Builder containers say them and the hub shows them in the reader's language, so that both import
them, and they import nothing of either.
"""

from environments.messages import doctor, edit, making, prune, rules, spec, steps

__all__ = ["doctor", "edit", "making", "prune", "rules", "spec", "steps"]
