"""The end of a person's logins: cookies that were copied open nothing any more."""

from __future__ import annotations

from jupyterhub import orm
from jupyterhub.user import User

# What a token belongs to that was made on purpose, or that a server has for itself.
_MADE_ON_PURPOSE = "jupyterhub"


def end_sessions(user: User) -> None:
    """End every login of a person, in all their browsers, in one transaction.

    The hub's cookie holds ``cookie_id``, so a new one ends them all. Cookies of services and
    servers hold tokens that OAuth made: they are deleted, and codes that would become such tokens.
    Left are the tokens that people make on the hub's page, and the running servers' own.
    A service or server that has just asked about a token remembers the answer for its
    ``cache_max_age``, 60 seconds in ours.
    """
    person, db = user.orm_user, user.db
    person.cookie_id = orm.new_token()
    for made in (orm.APIToken, orm.OAuthCode):
        found = db.query(made).filter(made.user_id == person.id)
        for one in found.filter(made.client_id != _MADE_ON_PURPOSE):
            db.delete(one)
    db.commit()
