"""``papermill`` of every Python in a server: the environment's own, for which a notebook that names
no kernel is one of Python, as everywhere here.
"""

import functools

from labcommons_real import become


def _or_else(plain, usual):
    @functools.wraps(plain)
    def answer(*given, **named):
        try:
            return plain(*given, **named)
        except ValueError:
            return usual

    return answer


become("papermill")
try:
    from papermill import engines as _engines

    _engines.nb_kernel_name = _or_else(_engines.nb_kernel_name, "python3")
    _engines.nb_language = _or_else(_engines.nb_language, "python")
except (ImportError, AttributeError):  # of a version that is built otherwise
    pass
