"""django-prefork: a complete pre-fork HTTP server that is a Django app.

This module is imported by the Supervisor too, which never loads Django: it must stay free of imports.
"""

from __future__ import annotations

__version__ = "0.1.0"
