"""The pages of channels: those that one may read, and the packages of one."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from commons.i18n import N_
from commons.rights import Action, can
from commons.units import amount
from environments import own_channels as names
from environments.channels.shelf import folded
from hub_ext.console.channel_api import Channelled
from hub_ext.console.handlers import Page

THIS_SITE = N_("This site")
SHOWN = 300  # names of packages; REST has all


class ChannelsPage(Channelled, Page):
    """``GET channels``."""

    async def get(self) -> None:
        """Each with what a ``.condarc`` has to say."""
        gettext, found = self._, []
        for scope in names.readable(self.viewer, self.site):
            about, _ = await self.told(scope)
            group = about["channel"] != names.SITE_CHANNEL
            found.append(
                {**about, "title": scope.title(gettext) if group else gettext("This site")}
            )
        url = urlsplit(self.alias)
        self.render_page(
            "channels.html",
            channels=found,
            bytes_words=amount,
            alias=self.alias,
            with_token=f"{url.scheme}://{url.netloc}{url.path}/t/TOKEN",
            host=url.hostname,
        )


class ChannelPage(Channelled, Page):
    """``GET channels/CHANNEL``."""

    async def get(self, channel: str) -> None:
        """Its packages by name, and the form to put one there."""
        scope = self.scope(channel)
        about, kept = await self.told(scope)
        wanted = self.get_query_argument("name", "").strip().lower()[:100]
        found = folded([one for one in kept if wanted in one.name])
        shown: dict[str, Any] = dict(list(found.items())[:SHOWN])
        self.render_page(
            "channel.html",
            **about,
            wanted=wanted,
            shown=shown,
            left_out=len(found) - len(shown),
            may_yank=bool(can(self.viewer, Action.YANK_PACKAGE, scope)),
            bytes_words=amount,
            largest=amount(self.site.channels.largest_bytes),
        )
