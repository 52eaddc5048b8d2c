"""Whether all is well: small checks with names, run side by side, each with a time limit.

``checks`` and its neighbours look, ``registry`` runs them, ``kept`` remembers what they found, for
the console, and ``cli`` is ``labcommons doctor``, which ``deploy.doctor`` joins with what the host
sees.
"""
