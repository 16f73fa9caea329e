"""The PID that Docker, systemd and you know.

Standard library only: it runs as `python -I -S`, keeps the listening sockets, and never loads the project's code.
"""

from __future__ import annotations
