"""The server's configuration. Read-only, and the last word: on JUPYTER_CONFIG_PATH."""

import json
import logging
import os
from importlib.util import find_spec

from kernels import foreign_notebooks

c = get_config()  # noqa: F821

# Of a usual day; what warns shall mean something. In order: what JupyterHub itself sets; each
# WebSocket of a page, whose origin is checked; nothing is built here; a default of Jupyter's own.
usual = (
    "'extra_template_paths'",
    "Skipping XSRF check for insecure request",
    "Could not determine jupyterlab build status without nodejs",
    "The websocket_ping_timeout",
)
for name in ("LabApp", "ServerApp", "tornado.application", "tornado.general"):
    logging.getLogger(name).addFilter(
        lambda told: not any(words in str(told.msg) for words in usual)
    )

foreign_notebooks.take_as_they_are()

if find_spec("labcommons_away"):
    import labcommons_away

    labcommons_away.listen()

home = os.environ.get("HOME", "/tmp")  # noqa: S108

c.ServerApp.root_dir = home
c.ServerApp.kernel_spec_manager_class = "kernels.manager.CondaKernelSpecManager"
c.ServerApp.kernel_manager_class = "kernels.starting.LabKernelManager"
# For nbconvert and whatever else cannot be given a kernel list: on JUPYTER_PATH of kernels and
# terminals, and never on the server's own. People can write there, and what is on its path (the
# templates of nbconvert, which are programs) it runs.
c.CondaKernelSpecManager.mirror = mirror = "/tmp/labcommons"  # noqa: S108
children = ":".join(path for path in (mirror, os.environ.get("JUPYTER_PATH")) if path)
c.CondaProvisioner.variables = {"JUPYTER_PATH": children}
# Checked front ends of environments. What a person puts there is gone with the next look.
c.Shelf.folder = shelf = "/tmp/labcommons/front-ends"  # noqa: S108
# By default the working directory, which is the home.
c.TemplateExporter.extra_template_basedirs = []
# The site file's section "kernels".
for section, settings in json.loads(os.environ.get("LABCOMMONS_KERNEL_SETTINGS") or "{}").items():
    c[section].update(settings)
# Of an environment outside images it is known once the kernels are listed (kernels.list_watcher).
if (
    kernel := os.environ.get("LABCOMMONS_DEFAULT_KERNEL")
) and "LABCOMMONS_CHOSEN" not in os.environ:
    c.MultiKernelManager.default_kernel_name = kernel

# Not a login shell: /etc/profile would take the server's PATH away. Where there is no memory left,
# what runs in a terminal ends before the server does (choom), as kernels do.
c.ServerApp.terminado_settings = {
    "shell_command": [
        *("/usr/bin/choom", "-n", "1000", "--"),
        *("/usr/bin/env", f"JUPYTER_PATH={children}", "/bin/bash"),
    ]
}
c.ServerApp.terminals_enabled = True
c.ServerApp.contents_manager_class = "kernels.contents.Contents"
# Nothing comes back from the trash of a container.
c.FileContentsManager.delete_to_trash = False

# A laboratory need not reach the internet: no announcements, no updates, no extension store.
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.news_url = None
c.LabApp.extension_manager = "readonly"
together = os.environ.get("LABCOMMONS_TOGETHER") == "1"
# Language servers are part of no environment; looking for them costs time at every start.
c.ServerApp.jpserver_extensions = {
    "jupyter_lsp": False,
    "jupyter_server_proxy": True,
    "kernels.list_watcher": True,
    "kernels.packages_server": True,
    "kernels.shelf": True,
    "labcommons_light": True,
    "labcommons_materials": True,
    "labcommons_notices": True,
    "labcommons_resources": True,
    "labcommons_ssh": True,
    # One server for several people (docs/shared.md); never a person's own.
    "jupyter_server_fileid": together,
    "jupyter_server_ydoc": together,
    "labcommons_together": together,
    # labcommons_materials calls it where it is needed, and never for any address that a link names.
    "nbgitpuller": False,
}
# Web programs of the server's own, in the browser of who may open it: nothing beyond the server.
c.ServerProxy.host_allowlist = ["localhost", "127.0.0.1"]
# One has a card in the launcher, where the environment that the server was started with has it.
image = os.environ.get("LABCOMMONS_ENVIRONMENT", "").partition(":")[0]
chosen = os.environ.get("LABCOMMONS_CHOSEN") or f"/opt/conda/envs/{image}"
if image and os.access(board := os.path.join(chosen, "bin", "tensorboard"), os.X_OK):
    c.ServerProxy.servers = {
        "tensorboard": {
            "command": [
                *(board, "--logdir", os.path.join(home, "runs")),
                *("--host", "127.0.0.1", "--port", "{port}"),
            ],
            "timeout": 60,
            "launcher_entry": {"title": "TensorBoard"},
        }
    }
# What is made of who has typed what is for as long as the server runs, in memory, and no longer
# than it has to be: a history on a file server (NFS) is broken, and for ever it fills the disk.
c.BaseFileIdManager.db_path = "/tmp/labcommons-files.db"  # noqa: S108
c.SQLiteYStore.db_path = "/tmp/labcommons-edits.db"  # noqa: S108
c.SQLiteYStore.squash_after_inactivity_of = 60  # seconds
c.YDocExtension.session_store_path = "/tmp/labcommons-sessions.json"  # noqa: S108
if kernels := find_spec("kernels"):
    folder = os.path.dirname(kernels.origin)
    c.LabServerApp.extra_labextensions_path = [
        os.path.join(folder, "labextensions"),
        *(["/opt/labcommons/together"] if together else []),
        shelf,
    ]
# Whoever was signed out or disabled is out within a minute.
c.HubAuth.cache_max_age = 30
