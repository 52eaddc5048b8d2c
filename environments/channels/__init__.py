"""The site's own conda channels: one of the site, one of each team and course.

``inspect`` says what a package must be, ``child`` does that and the index in a process of its own,
``shelf`` keeps packages and index, ``taking`` puts the two together, ``build`` makes a package.
What channels are called, and whose they are, is in ``environments.own_channels``.
"""
