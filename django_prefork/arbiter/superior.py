"""The Supervisor, as an Arbiter knows it: the generation's pipe, and words both ways."""

from __future__ import annotations

import os
import select


class Superior:
    """`life` is the read end of the generation's pipe, `control` a stream socket to the Supervisor; -1: it is over."""

    def __init__(self, life: int, control: int) -> None:
        self.life = life
        self.control = control
        os.set_blocking(control, False)

    def descriptors(self) -> list[int]:
        """What the Arbiter's loop waits for."""
        return [fd for fd in (self.life, self.control) if fd >= 0]

    def tell(self, words: str) -> None:
        try:
            os.write(self.control, words.encode() + b"\n")
        except OSError:
            pass  # it is gone: its pipe says so

    def words(self) -> list[bytes]:
        """What it has said since."""
        if self.control < 0:
            return []
        try:
            words = os.read(self.control, 4096)
        except BlockingIOError:
            return []
        except OSError:
            words = b""
        if not words:  # it is gone: its pipe says so as well
            self.forget()
        return words.split()

    def has_ended(self) -> bool:
        """Whether the generation's pipe was closed; said once."""
        if self.life < 0:
            return False
        poll = select.poll()
        poll.register(self.life, select.POLLIN)
        if not poll.poll(0):
            return False
        os.close(self.life)
        self.life = -1
        return True

    def forget(self) -> None:
        """No more words: it is gone, or this is a worker, which has the pipe alone."""
        if self.control >= 0:
            os.close(self.control)
            self.control = -1
