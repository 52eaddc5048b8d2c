# Read by every IPython kernel. Last on the path: it hides nothing that an environment has.
import logging
import sys

sys.path.append("/opt/labcommons/lib")
# A kernel that papermill or nbconvert starts talks over the loopback: of a container of one person.
logging.getLogger("IPKernelApp").addFilter(lambda told: "without encryption" not in str(told.msg))
c = get_config()  # noqa: F821
c.InteractiveShellApp.extensions.append("labcommons_packages")
