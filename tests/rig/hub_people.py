"""People of the hub and their browsers, as the authenticator meets them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from jupyterhub import orm
from tornado.web import HTTPError, create_signed_value, decode_signed_value


class HubUser:
    """A person of the hub, in a database of JupyterHub's own."""

    def __init__(self, name, state=None):
        self.name, self.state = name, state
        self.db = orm.new_session_factory("sqlite:///:memory:")()
        self.orm_user = orm.User(name=name)
        self.db.add(self.orm_user)
        self.db.commit()

    async def get_auth_state(self):
        return self.state

    async def save_auth_state(self, state):
        self.state = state


class Browser:
    """What the authenticator sees of a request from a login page, with the browser's cookies."""

    def __init__(self, address, user=None, **settings):
        self.request = SimpleNamespace(remote_ip=address, headers={})
        self.cookies, self.set, self.user = {}, {}, user
        self.settings = {"base_url": "/", **settings}

    def get_cookie(self, _name):
        return None

    def get_signed_cookie(self, name, max_age_days):
        value = self.cookies.get(name)
        return decode_signed_value("of the hub", name, value, max_age_days)

    def set_signed_cookie(self, name, value, **how):
        self.cookies[name] = create_signed_value("of the hub", name, value)
        self.set[name] = how

    def find_user(self, _name):
        return self.user


def login(authenticator, name, password=None, address=None):
    data = {"username": name, "password": password or f"{name}-secret"}
    handler = Browser(address) if isinstance(address, str) else address
    return authenticator.get_authenticated_user(handler, data)


async def refused(work) -> str:
    """The message of a refusal."""
    with pytest.raises(HTTPError) as error:
        await work
    return error.value.log_message
