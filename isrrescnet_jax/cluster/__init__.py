"""Many pictures on many machines: Ray Data reads, computes and writes, and nothing is lost.

Importing this imports neither Ray nor JAX.
"""

from . import manifest, sources
from .connection import connect
from .destinations import INTO, Destination
from .engine import run
from .jobs import Job, Piece, Record
from .manifest import Manifest
from .sources import find
from .tasks import Work

__all__ = [
    "INTO",
    "Destination",
    "Job",
    "Manifest",
    "Piece",
    "Record",
    "Work",
    "connect",
    "find",
    "manifest",
    "run",
    "sources",
]
