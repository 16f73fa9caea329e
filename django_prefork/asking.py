"""The other end of the control socket: one question, one answer."""

from __future__ import annotations

import json
import socket
from typing import Any

# How long the server is waited for (seconds): its Arbiter answers within milliseconds, however busy its workers are.
PATIENCE = 10.0


class ControlError(Exception):
    """It cannot be done. The text is one sentence with the remedy."""


def ask(path: str, request: dict[str, Any]) -> dict[str, Any]:
    """One request, one answer. Raises `ControlError`."""
    data = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(path)
            sock.sendall(json.dumps(request).encode() + b"\n")
            while piece := sock.recv(65536):
                data += piece
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(f"No server runs at {path}: start it, or name its control_socket.") from None
        except PermissionError:
            raise ControlError(f"{path} is another user's: become the user that the server runs as, or root.") from None
        except TimeoutError:
            raise ControlError(f"The server at {path} does not answer: it boots, or its Arbiter is stopped.") from None
        except OSError as error:
            if not isinstance(error, (ConnectionResetError, BrokenPipeError)):
                raise ControlError(f"Cannot ask the server at {path}: {error.strerror or error}.") from None
    if not data.endswith(b"\n"):
        raise ControlError(
            f"The server at {path} gave no answer: it has just ended, or you are not the user that it runs as."
        )
    answer = json.loads(data)
    if not isinstance(answer, dict) or "error" in answer:
        raise ControlError(answer["error"] if isinstance(answer, dict) else "That was no answer.")
    return answer
