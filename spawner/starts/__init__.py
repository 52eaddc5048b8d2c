"""When a server may start: how many at once, who is next, and what the machine has room for.

``pace``, ``room`` and ``line`` decide, as functions of plain values; ``turns`` acts; ``kept`` is
what was asked for, in the store, until it has come to something.
"""
