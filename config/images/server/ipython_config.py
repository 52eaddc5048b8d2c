# Read by every IPython kernel. Last on the path: it hides nothing that an environment has.
import sys

sys.path.append("/opt/labcommons/lib")
