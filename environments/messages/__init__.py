"""The texts of builds' errors and findings.

Builder containers say them and the hub shows them in the reader's language, so that both import
them, and they import nothing of either.
"""

from environments.messages import channels, doctor, edit, making, prune, rules, spec, steps

__all__ = ["channels", "doctor", "edit", "making", "prune", "rules", "spec", "steps"]
