"""Kernels of a server by the names that notebooks have: the right one, or why there is none.

For ``c.ServerApp.kernel_manager_class``, and handlers in the place of Jupyter's own, which answer
500 or 501 to a name that they do not know.
"""

from __future__ import annotations

from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_core.utils import ensure_async
from jupyter_server.services.kernels.handlers import MainKernelHandler
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server.services.sessions.handlers import SessionHandler, SessionRootHandler
from jupyter_server.utils import url_path_join
from tornado import web

from kernels.manager import CondaKernelSpecManager
from kernels.messages import persons_language, say


class LabKernelManager(AsyncMappingKernelManager):
    """Starts the kernel that a name means, and calls it by its own name from then on."""

    def pre_start_kernel(self, kernel_name: str | None, kwargs: Any) -> Any:
        """As Jupyter's. Raises NoSuchKernel."""
        name = kernel_name or self.default_kernel_name
        manager = self.kernel_spec_manager
        if isinstance(manager, CondaKernelSpecManager):
            # Raises, with the nearest, before anything is started.
            name = manager.get_kernel_spec(name).name or name
        return super().pre_start_kernel(name, kwargs)


class _ByName:
    """Answers 404 with the sentence where a request names a kernel that is not here."""

    def name_in(self, body: dict[str, Any]) -> object:
        """The name of the kernel that a request asks for."""
        return body.get("name")

    async def checked(self) -> None:
        """Raises HTTPError 404, or 400 for what is no name."""
        handler: Any = self
        body = handler.get_json_body()
        name = self.name_in(body) if isinstance(body, dict) else None
        if name is None or name == "":
            return
        if not isinstance(name, str) or len(name) > 200:
            raise web.HTTPError(400, say("kernel_name_long").in_words(persons_language()))
        try:
            handler.kernel_spec_manager.get_kernel_spec(name)
        except NoSuchKernel as error:
            raise web.HTTPError(404, str(error)) from error


class Kernels(_ByName, MainKernelHandler):  # type: ignore[misc]
    """``POST api/kernels``."""

    @web.authenticated
    async def post(self) -> None:
        """Start a kernel."""
        await self.checked()
        await ensure_async(super().post())


class _OfSession(_ByName):
    def name_in(self, body: dict[str, Any]) -> object:
        kernel = body.get("kernel")
        return kernel.get("name") if isinstance(kernel, dict) and not kernel.get("id") else None


class Sessions(_OfSession, SessionRootHandler):  # type: ignore[misc]
    """``POST api/sessions``."""

    @web.authenticated
    async def post(self) -> None:
        """Make a session, with its kernel."""
        body = self.get_json_body()
        path = body.get("path") if isinstance(body, dict) else None
        # Of a session that is there the kernel's name is not asked.
        sessions: Any = self.session_manager
        if not isinstance(path, str) or not await ensure_async(sessions.session_exists(path=path)):
            await self.checked()
        await ensure_async(super().post())


class Session(_OfSession, SessionHandler):  # type: ignore[misc]
    """``PATCH api/sessions/ID``."""

    @web.authenticated
    async def patch(self, session_id: str) -> None:
        """Change a session, its kernel perhaps."""
        await self.checked()
        await ensure_async(super().patch(session_id))


def handlers(base_url: str) -> list[tuple[str, type]]:
    """The routes, before Jupyter's own."""
    return [
        (url_path_join(base_url, "api/kernels"), Kernels),
        (url_path_join(base_url, "api/sessions"), Sessions),
        (url_path_join(base_url, r"api/sessions/(?P<session_id>\w+-\w+-\w+-\w+-\w+)"), Session),
    ]
