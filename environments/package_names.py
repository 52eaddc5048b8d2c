"""Names of packages that are meant where another one was written."""

from __future__ import annotations

import difflib
from collections.abc import Collection

MOST = 3  # names that are told
_ALIKE = 0.72
# What is imported under another name than it is installed by (each from the project's own manual).
_IMPORTED = {
    "bio": ["biopython"],
    "bs4": ["beautifulsoup4"],
    "cv2": ["opencv", "opencv-python-headless"],
    "dateutil": ["python-dateutil"],
    "dotenv": ["python-dotenv"],
    "fitz": ["pymupdf"],
    "pil": ["pillow"],
    "serial": ["pyserial"],
    "skimage": ["scikit-image"],
    "sklearn": ["scikit-learn"],
    "torch": ["pytorch"],
    "usb": ["pyusb"],
    "yaml": ["pyyaml"],
    "zmq": ["pyzmq"],
}


def near(name: str, known: Collection[str]) -> list[str]:
    """Up to three of the known names that are most like a name, the likest first."""
    name = name.lower()
    meant = [other for other in _IMPORTED.get(name, ()) if other in known]
    if meant:
        return meant
    # Nobody leaves out or adds more than a few letters; most of 35,000 need no closer look.
    alike = [other for other in known if abs(len(other) - len(name)) <= 3 and other != name]
    found = difflib.get_close_matches(name, alike, 4 * MOST, _ALIKE)
    # Letters in another order are one slip; the first letter is seldom wrong.
    found.sort(key=lambda other: (sorted(other) != sorted(name), other[:1] != name[:1]))
    return found[:MOST]
