"""The server's configuration. Read-only, and the last word: on JUPYTER_CONFIG_PATH."""

import json
import os
from importlib.util import find_spec

c = get_config()  # noqa: F821

home = os.environ.get("HOME", "/tmp")  # noqa: S108

c.ServerApp.root_dir = home
c.ServerApp.kernel_spec_manager_class = "kernels.manager.CondaKernelSpecManager"
# For nbconvert and whatever else cannot be given a kernel list: on JUPYTER_PATH of kernels and
# terminals, and never on the server's own. People can write there, and what is on its path (the
# templates of nbconvert, which are programs) it runs.
c.CondaKernelSpecManager.mirror = mirror = "/tmp/labcommons"  # noqa: S108
children = ":".join(path for path in (mirror, os.environ.get("JUPYTER_PATH")) if path)
c.CondaProvisioner.variables = {"JUPYTER_PATH": children}
# By default the working directory, which is the home.
c.TemplateExporter.extra_template_basedirs = []
# The site file's section "kernels".
for section, settings in json.loads(os.environ.get("LABCOMMONS_KERNEL_SETTINGS") or "{}").items():
    c[section].update(settings)
if kernel := os.environ.get("LABCOMMONS_DEFAULT_KERNEL"):
    c.MultiKernelManager.default_kernel_name = kernel

# Not a login shell: /etc/profile would take the server's PATH away.
c.ServerApp.terminado_settings = {
    "shell_command": ["/usr/bin/env", f"JUPYTER_PATH={children}", "/bin/bash"]
}
c.ServerApp.terminals_enabled = True
# Nothing comes back from the trash of a container.
c.FileContentsManager.delete_to_trash = False

# A laboratory need not reach the internet: no announcements, no updates, no extension store.
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.news_url = None
c.LabApp.extension_manager = "readonly"
# Language servers are part of no environment; looking for them costs time at every start.
c.ServerApp.jpserver_extensions = {
    "jupyter_lsp": False,
    "kernels.live": True,
    "labcommons_notices": True,
}
if kernels := find_spec("kernels"):
    folder = os.path.dirname(kernels.origin)
    c.LabServerApp.extra_labextensions_path = [os.path.join(folder, "labextensions")]
# Whoever was signed out or disabled is out within a minute.
c.HubAuth.cache_max_age = 30
