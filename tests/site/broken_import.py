from __future__ import annotations

raise ImportError("this application does not import")
