"""The hub of these tests: guarded, and with what is kept of how people read."""

import os
from pathlib import Path

from commons.readers import Readers
from commons.site import load_site
from commons.store import Store
from hub_ext.guarded_hub import GuardedHub


class Hub(GuardedHub):  # type: ignore[misc]
    def init_tornado_settings(self) -> None:
        store = Store(f"sqlite:///{Path(os.environ['PAGES_HOME']) / 'labcommons.sqlite'}")
        store.migrate()
        self.tornado_settings["readers"] = Readers(store, load_site())
        super().init_tornado_settings()


if __name__ == "__main__":
    Hub.launch_instance()
