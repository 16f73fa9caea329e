"""What Django asks at every request, with the same answer in fewer steps: 25 of the 100 us of a small view.

Before and after each request Django sends a signal, whose receivers ask which connections and caches there are. Each
time it looks up all receivers anew, and each alias in a storage that may be a thread's or a task's. In a worker the
answers seldom change, and whether they have is seen at a glance. Who receives, in which order and what, stays as it is,
whatever a project connects, disconnects, opens or closes, and when. So does what a thread or a task has to itself: the
URLconf, the language. Where something is not as it is known (another class, a receiver that is a coroutine, an event
loop that runs, somebody else who holds the storage, a tracing library that has put its own in place), the usual way is
taken.

A setting, of which a small view with the default middleware reads 30, is read as any object's attributes are: Django
has a method in Python for that, which takes 0.24 us instead of 0.03. What that does besides is done without: it hides
the wrapper's own special methods from who asks for one by its name (`hasattr(settings, "__len__")`, and not `len()`,
which is the same), and on its way it evaluates a setting that is a lazy object itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from threading import get_ident, local
from types import FunctionType
from typing import Any

import asgiref.local
import django
from asgiref.local import Local
from django.conf import LazySettings, settings
from django.core.cache import CacheHandler, caches
from django.core.signals import request_finished, request_started
from django.db import connections
from django.db.utils import ConnectionHandler
from django.dispatch import Signal

# What a thread or a task has one of: script prefix, URLconf, language, time zone.
_VALUES = (
    ("django.urls.base", "_prefixes"),
    ("django.urls.base", "_urlconfs"),
    ("django.utils.translation.trans_real", "_active"),
    ("django.utils.timezone", "_active"),
)
_DJANGO = os.path.join(os.path.dirname(django.__file__), "")
# What asgiref keeps in its context variable: which thread it belongs to, and the data. Since 3.12.
_Storage: Any = getattr(asgiref.local, "_Storage", None)


def take() -> None:
    """In this process, from now on."""
    for signal in (request_started, request_finished):
        if (
            _is_djangos(signal, "send")
            and _is_djangos(signal, "_live_receivers")
            and hasattr(signal, "_dead_receivers")
        ):
            signal.send = _send(signal)  # type: ignore[method-assign]
    if type(connections) is ConnectionHandler and _is_djangos(connections, "all"):
        connections.all = _all_connections(connections)  # type: ignore[method-assign]
    if type(caches) is CacheHandler and _is_djangos(caches, "all"):
        caches.all = _all_caches(caches)  # type: ignore[method-assign]
    if type(settings) is LazySettings and all(
        _is_djangos(settings, f"__get{name}__") for name in ("attribute", "attr")
    ):
        LazySettings.__getattribute__ = object.__getattribute__  # type: ignore[method-assign]
    if getattr(_Storage, "__slots__", None) == ("thread_id", "data"):
        alone = _references({"": Local()}, "")
        for module, name in _VALUES:
            names = vars(sys.modules[module]) if module in sys.modules else {}
            # Who else has it would be left with the old.
            if isinstance(names.get(name), Local) and _references(names, name) == alone:
                names[name] = OneValue(name, names[name])


def _is_djangos(owner: object, name: str) -> bool:
    """Whether that method is Django's own."""
    function = getattr(type(owner), name, None)
    # By its code: a wrapper may call itself what it likes.
    return (
        name not in vars(owner) and type(function) is FunctionType and function.__code__.co_filename.startswith(_DJANGO)
    )


def _references(names: dict[str, Any], name: str) -> int:
    """To what `names` has under that name; how many a call makes of its own, versions of Python do not agree on."""
    return sys.getrefcount(names[name])


def _send(signal: Any) -> Callable[..., Any]:
    """`signal.send`, for one sender."""
    usual, look_up = Signal.send, Signal._live_receivers
    # For whom, what there was to be looked up, and what was found: weak, as Django holds it. Replaced as one.
    known: tuple[Any, list[Any], list[Callable[[], Any]]] = (signal, [], [])

    def send(sender: Any, **named: Any) -> Any:
        nonlocal known
        # A tracing library may come at any time, and put its own in place of Django's.
        if Signal.send is not usual or Signal._live_receivers is not look_up:
            return Signal.send(signal, sender, **named)
        known_sender, looked_up, found = known
        if sender is not known_sender or signal.receivers != looked_up or signal._dead_receivers:
            looked_up = list(signal.receivers)
            receivers, coroutines = signal._live_receivers(sender)
            try:
                found = [_weakly(receiver) for receiver in receivers]
            except TypeError:
                found = []
            if coroutines or len(found) != len(receivers):
                return Signal.send(signal, sender, **named)
            known = (sender, looked_up, found)
        receivers = [receiver for reference in found if (receiver := reference()) is not None]
        return [(receiver, receiver(signal=signal, sender=sender, **named)) for receiver in receivers]

    return send


def _weakly(receiver: Any) -> Callable[[], Any]:
    """Raises TypeError where there is no such thing."""
    bound = hasattr(receiver, "__self__") and hasattr(receiver, "__func__")
    return weakref.WeakMethod(receiver) if bound else weakref.ref(receiver)


def _all_connections(handler: Any) -> Callable[..., Any]:
    usual = partial(ConnectionHandler.all, handler)
    # asgiref's: attributes of the thread.
    connections = handler._connections
    opened = getattr(connections, "_storage", None)
    if type(opened) is not local:
        return usual

    def all(initialized_only: bool = False) -> Any:
        unknown = handler._connections is not connections or asyncio._get_running_loop() is not None
        if unknown or not initialized_only:
            return usual(initialized_only)
        here = vars(opened)
        return [here[alias] for alias in handler if alias in here] if here else []

    return all


def _all_caches(handler: Any) -> Callable[..., Any]:
    usual = partial(CacheHandler.all, handler)
    # asgiref's: one context variable for all attributes.
    connections = handler._connections
    made = getattr(getattr(connections, "_storage", None), "_data", None)
    if type(made) is not ContextVar:
        return usual

    def all(initialized_only: bool = False) -> Any:
        if initialized_only and handler._connections is connections and made.get(None) is None:
            return []
        return usual(initialized_only)

    return all


class OneValue:
    """As an `asgiref.local.Local` of which nothing but the attribute `value` is used. Begins with what `old` has.

    It has its storage: a thread may begin with a copy of another's variables (`asyncio.to_thread`), and sees nothing of
    what is that one's, unless asgiref itself takes it along, which it does with storages that it knows.
    """

    __slots__ = ("_get", "_set")

    def __init__(self, name: str, old: Local) -> None:
        variable: ContextVar[Any] = ContextVar(name, default=None)
        # Not the variable's own attributes at each use: 2 x 30 ns.
        self._get, self._set = variable.get, variable.set
        if hasattr(old, "value"):
            self.value = old.value

    @property
    def value(self) -> Any:
        storage = self._get()
        if storage is None or storage.thread_id != get_ident():
            raise AttributeError("value")
        return storage.data

    @value.setter
    def value(self, value: Any) -> None:
        storage = self._get()
        # From one request to the next it mostly stays the same.
        if storage is None or storage.data is not value or storage.thread_id != get_ident():
            self._set(_Storage(get_ident(), value))

    @value.deleter
    def value(self) -> None:
        storage = self._get()
        if storage is None or storage.thread_id != get_ident():
            raise AttributeError("value")
        self._set(None)
