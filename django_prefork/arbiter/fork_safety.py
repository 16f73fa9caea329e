"""Before a fork: what must not be shared between processes is closed, what should be shared is frozen."""

from __future__ import annotations

import gc
import logging

logger = logging.getLogger("django_prefork")


def freeze() -> None:
    """Once, before the first fork: move all that lives out of the collector's sight, or it would unshare the pages."""
    gc.collect()
    gc.freeze()


def close_shared() -> None:
    """Before every fork: database connections and their pools. A connection with two owners mixes up their answers."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        try:
            connection.close()
            # Pools outlive close(): they live in a class attribute (Django ticket #31637).
            close_pool = getattr(connection, "close_pool", None)
            if close_pool is not None:
                close_pool()
        except Exception:
            logger.exception("closing the database connection %r before a fork failed", connection.alias)
