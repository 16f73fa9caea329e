"""Each of these holds with Django's own ways and with ours: that there is no difference is the point."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import LazySettings, UserSettingsHolder, global_settings, settings
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.db import connections
from django.dispatch import Signal
from django.test import override_settings
from django.urls import base as urls
from django.urls import reverse_lazy
from django.utils import timezone
from django.utils.translation import trans_real

from django_prefork.worker import shortcuts

VALUES: list[tuple[Any, str]] = [
    (urls, "_prefixes"),
    (urls, "_urlconfs"),
    (trans_real, "_active"),
    (timezone, "_active"),
]


@pytest.fixture(autouse=True, params=["Django's", "ours"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    changed: list[tuple[Any, str]] = [
        (request_started, "send"),
        (request_finished, "send"),
        (connections, "all"),
        (caches, "all"),
        (LazySettings, "__getattribute__"),
    ]
    ours = request.param == "ours"
    kept = [(module, name, getattr(module, name)) for module, name in VALUES]
    for module, name in VALUES:  # as in a worker, which nothing has been asked of yet
        setattr(module, name, Local())
    if ours:
        shortcuts.take()
    try:
        assert [name in vars(owner) for owner, name in changed] == [ours] * 5
        assert [isinstance(getattr(*value), shortcuts.OneValue) for value in VALUES] == [ours] * 4
        yield
    finally:
        for owner, name in changed:
            if name in vars(owner):
                delattr(owner, name)
        for module, name, value in kept:
            setattr(module, name, value)


@pytest.fixture
def told() -> list[Any]:
    return []


class Receiver:
    def __init__(self, told: list[Any], name: str) -> None:
        self.told = told
        self.name = name

    def receive(self, sender: Any, **named: Any) -> str:
        self.told.append((self.name, sender, named["environ"], named["signal"]))
        return f"{self.name} was told"


def send(sender: Any = Receiver) -> Any:
    return request_started.send(sender=sender, environ={"PATH_INFO": "/"})


def test_receivers_hear_in_the_order_in_which_they_came_and_what_they_return_comes_back(told: list[Any]) -> None:
    before = [receiver for receiver, _ in send()]
    first, second = Receiver(told, "first"), Receiver(told, "second")
    request_started.connect(first.receive)
    request_started.connect(second.receive)
    for _ in range(2):
        answers = send()
    assert [name for name, *_ in told] == ["first", "second"] * 2
    assert told[0][1:] == (Receiver, {"PATH_INFO": "/"}, request_started)
    assert answers[: len(before)] == [(receiver, None) for receiver in before]
    assert answers[len(before) :] == [(first.receive, "first was told"), (second.receive, "second was told")]


def test_who_is_connected_later_hears_and_who_is_disconnected_does_not(told: list[Any]) -> None:
    one, other = Receiver(told, "one"), Receiver(told, "other")
    request_started.connect(one.receive)
    send()
    request_started.connect(other.receive)
    send()
    assert request_started.disconnect(one.receive)
    send()
    assert request_started.disconnect(other.receive)
    send()
    assert [name for name, *_ in told] == ["one", "one", "other", "other"]


def test_another_receiver_under_the_same_name_is_another(told: list[Any]) -> None:
    def connect(name: str) -> None:
        receiver = Receiver(told, name)
        request_started.connect(lambda **named: receiver.receive(**named), weak=False, dispatch_uid="mine")

    connect("one")
    send()
    assert request_started.disconnect(dispatch_uid="mine")
    connect("other")
    send()
    assert request_started.disconnect(dispatch_uid="mine")
    send()
    assert [name for name, *_ in told] == ["one", "other"]


def test_nobody_is_kept_alive_to_hear(told: list[Any]) -> None:
    receiver = Receiver(told, "mortal")
    request_started.connect(receiver.receive)
    send()
    del receiver
    gc.collect()
    send()
    assert len(told) == 1


def test_who_wants_one_sender_hears_of_no_other(told: list[Any]) -> None:
    anyone, picky = Receiver(told, "anyone"), Receiver(told, "picky")
    request_started.connect(anyone.receive)
    request_started.connect(picky.receive, sender=Receiver)
    for sender in (Receiver, str, None, Receiver):
        send(sender)
    assert [(name, sender) for name, sender, *_ in told] == [
        *(("anyone", Receiver), ("picky", Receiver)),
        *(("anyone", str), ("anyone", None)),
        *(("anyone", Receiver), ("picky", Receiver)),
    ]


def test_who_leaves_while_others_hear_takes_nobody_along(told: list[Any]) -> None:
    last = Receiver(told, "last")

    def leave(**named: Any) -> None:
        told.append(("leaves",))
        request_started.disconnect(leave)
        request_started.disconnect(last.receive)

    request_started.connect(leave)
    request_started.connect(last.receive)
    send()
    send()
    assert [name for name, *_ in told] == ["leaves", "last"]


def test_an_error_of_one_ends_it_for_those_behind(told: list[Any]) -> None:
    def fail(**named: Any) -> None:
        raise RuntimeError("no")

    behind = Receiver(told, "behind")
    request_started.connect(fail)
    request_started.connect(behind.receive)
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no"):
                send()
        assert told == []
    finally:
        request_started.disconnect(fail)


def test_coroutines_hear_behind_the_others(told: list[Any]) -> None:
    async def wait(**named: Any) -> None:
        await asyncio.sleep(0)
        told.append(("waited",))

    other = Receiver(told, "other")
    request_started.connect(wait)
    request_started.connect(other.receive)
    send()
    request_started.disconnect(wait)
    send()
    assert [name for name, *_ in told] == ["other", "waited", "other"]


def trace(monkeypatch: pytest.MonkeyPatch, told: list[Any], name: str) -> None:
    """As tracing libraries do it: each receiver in a wrapper of the moment, or each sending."""
    original = getattr(Signal, name)

    def traced(self: Signal, sender: Any, **named: Any) -> Any:
        if name == "send":
            told.append(("traced",))
            return original(self, sender, **named)

        def wrapped(receiver: Any) -> Any:
            def wrapper(**named: Any) -> Any:
                told.append(("traced",))
                return receiver(**named)

            return wrapper if getattr(receiver, "__func__", None) is Receiver.receive else receiver

        receivers, coroutines = original(self, sender)
        return [wrapped(receiver) for receiver in receivers], coroutines

    monkeypatch.setattr(Signal, name, traced)


@pytest.mark.parametrize("name", ["send", "_live_receivers"])
def test_who_traces_signals_later_does_so(told: list[Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    receiver = Receiver(told, "one")
    request_started.connect(receiver.receive)
    send()
    trace(monkeypatch, told, name)
    send()
    send()
    assert [name for name, *_ in told] == ["one", *["traced", "one"] * 2]


@pytest.mark.parametrize("name", ["send", "_live_receivers"])
def test_who_traces_signals_already_goes_on(told: list[Any], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    ours = "send" in vars(request_started)
    vars(request_started).pop("send", None)
    trace(monkeypatch, told, name)
    if ours:
        shortcuts.take()
    receiver = Receiver(told, "one")
    request_started.connect(receiver.receive)
    send()
    send()
    assert [name for name, *_ in told] == ["traced", "one"] * 2


def test_connections_are_those_of_this_thread(two: list[Any]) -> None:
    assert connections.all(initialized_only=True) == []
    # In the order of the settings, whatever came first.
    other, default = connections["other"], connections["default"]
    assert connections.all(initialized_only=True) == [default, other]
    assert connections.all() == [default, other]
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(connections.all(initialized_only=True)))
    thread.start()
    thread.join()
    assert seen == []
    del connections["default"]
    assert connections.all(initialized_only=True) == [other]


def test_connections_of_a_task_are_another_s(two: list[Any]) -> None:
    default = connections["default"]

    async def ask() -> list[Any]:
        before = connections.all(initialized_only=True)
        connections["other"] = default
        return [before, connections.all(initialized_only=True)]

    assert asyncio.run(ask()) == [[], [default]]
    assert connections.all(initialized_only=True) == [default]


def test_caches_are_those_that_were_used() -> None:
    assert caches.all(initialized_only=True) == []
    used = caches["default"]
    assert caches.all(initialized_only=True) == [used]
    assert caches.all() == [used]
    del caches["default"]
    assert caches.all(initialized_only=True) == []


def test_caches_that_were_made_anew_are_those(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `override_settings(CACHES=...)` does it."""
    monkeypatch.setattr(caches, "_connections", Local())
    used = caches["default"]
    assert caches.all(initialized_only=True) == [used]


def test_what_was_set_is_had_until_it_is_no_more() -> None:
    assert (urls.get_urlconf("usual"), urls.get_script_prefix()) == ("usual", "/")
    urls.set_urlconf("other")
    urls.set_script_prefix("/below")
    assert (urls.get_urlconf("usual"), urls.get_script_prefix()) == ("other", "/below/")
    for _ in range(2):
        urls.set_urlconf(None)
        urls.clear_script_prefix()
    assert (urls.get_urlconf("usual"), urls.get_script_prefix()) == ("usual", "/")
    with timezone.override("Asia/Tokyo"), trans_real_override("de"):
        assert timezone.get_current_timezone_name() == "Asia/Tokyo"
        assert trans_real.get_language() == "de"
    assert timezone.get_current_timezone_name() == timezone.get_default_timezone_name()
    assert not hasattr(trans_real._active, "value")


def test_what_was_set_is_this_thread_s() -> None:
    urls.set_urlconf("mine")
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: (seen.append(urls.get_urlconf()), urls.set_urlconf("its")))
    thread.start()
    thread.join()
    assert (seen, urls.get_urlconf()) == ([None], "mine")
    urls.set_urlconf(None)


def test_what_was_set_is_this_task_s_and_goes_along_to_what_it_calls() -> None:
    seen: dict[str, Any] = {}

    async def other() -> None:
        await asyncio.sleep(0)
        seen["other"] = urls.get_urlconf()
        urls.set_urlconf("of the other")

    async def ask() -> None:
        seen["task"] = urls.get_urlconf()
        task = asyncio.ensure_future(other())
        urls.set_urlconf("of the task")
        await task
        seen["after the other"] = urls.get_urlconf()
        await sync_to_async(lambda: (seen.update(thread=urls.get_urlconf()), urls.set_urlconf("of its thread")))()
        seen["after its thread"] = urls.get_urlconf()

    urls.set_urlconf("of the view")
    async_to_sync(ask)()
    assert seen == {
        "task": "of the view",
        "other": "of the view",
        "after the other": "of the task",
        "thread": "of the task",
        "after its thread": "of its thread",
    }
    assert urls.get_urlconf() == "of its thread"
    urls.set_urlconf(None)


def test_a_thread_that_was_given_a_copy_of_the_context_has_its_own_all_the_same() -> None:
    """Other variables go along: `asyncio.to_thread` and tracing libraries see to that."""
    seen: dict[str, Any] = {}

    def look() -> tuple[str | None, bool]:
        before = urls.get_urlconf()
        urls.set_urlconf("its")
        kept = urls.get_urlconf() == "its"
        urls.set_urlconf(None)
        urls.set_urlconf(None)
        return before, kept and urls.get_urlconf() is None

    async def ask() -> None:
        seen["to_thread"] = await asyncio.to_thread(look)
        await sync_to_async(urls.set_urlconf)(urls.get_urlconf())
        seen["task"] = urls.get_urlconf()

    urls.set_urlconf("mine")
    thread = threading.Thread(target=lambda: seen.update(thread=context.run(look)))
    context = contextvars.copy_context()
    thread.start()
    thread.join()
    async_to_sync(ask)()
    assert seen == {"thread": (None, True), "to_thread": (None, True), "task": "mine"}
    assert urls.get_urlconf() == "mine"
    urls.set_urlconf(None)


def test_settings_are_those_of_the_moment() -> None:
    assert settings.APPEND_SLASH is True and settings.APPEND_SLASH is True
    with override_settings(APPEND_SLASH=False, OURS="here"):
        assert (settings.APPEND_SLASH, settings.OURS) == (False, "here")
        settings.OURS = "there"
        assert settings.OURS == "there"
        with override_settings(OURS=1):
            assert settings.OURS == 1
        assert settings.OURS == "there"
        del settings.OURS
        assert not hasattr(settings, "OURS")
        with pytest.raises(AttributeError):
            _ = settings.OURS
    assert settings.APPEND_SLASH is True


def test_settings_that_were_not_asked_for_yet_are_loaded_then() -> None:
    asked: list[str | None] = []

    class Lazy(LazySettings):
        def _setup(self, name: str | None = None) -> None:
            asked.append(name)
            self._wrapped = UserSettingsHolder(global_settings)

    lazy = Lazy()
    assert repr(lazy) == "<LazySettings [Unevaluated]>" and not lazy.configured and not asked
    assert lazy.DEBUG is False and lazy.configured and asked == ["DEBUG"]
    again = Lazy()
    assert "DEBUG" in dir(again) and asked == ["DEBUG", None]


def test_settings_of_their_own_kind_are_so() -> None:
    with override_settings(SECRET_KEY="", MEDIA_URL="media/", LOGIN_URL=reverse_lazy("nowhere")):
        with pytest.raises(ImproperlyConfigured, match="SECRET_KEY"):
            _ = settings.SECRET_KEY
        urls.set_script_prefix("/below/")
        assert settings.MEDIA_URL == "/below/media/"
        urls.clear_script_prefix()
        assert type(settings.LOGIN_URL) is type(reverse_lazy("nowhere")), "nobody has asked where that is"


def test_settings_are_what_they_wrap_to_who_uses_them_as_that() -> None:
    class Wrapped:
        DEBUG = True

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[str]:
            return iter("abc")

        def __eq__(self, other: object) -> bool:
            return other == 3

        __hash__ = None  # type: ignore[assignment]

    lazy = LazySettings()
    lazy._wrapped = Wrapped()
    assert isinstance(lazy, Wrapped) and lazy.__class__ is Wrapped and type(lazy) is LazySettings
    assert len(lazy) == 3 and list(lazy) == ["a", "b", "c"] and lazy == 3 and lazy != 4
    assert lazy.DEBUG is True and "DEBUG" in dir(lazy)
    lazy._wrapped = object()
    assert not hasattr(lazy, "DEBUG")
    # The one difference that there is.
    assert hasattr(lazy, "__len__") is ("__getattribute__" in vars(LazySettings))
    with pytest.raises(TypeError):
        len(lazy)


def test_settings_that_somebody_reads_in_another_way_are_left_to_them() -> None:
    asked: list[str] = []

    def watched(self: LazySettings, name: str) -> Any:
        asked.append(name)
        return object.__getattribute__(self, name)

    LazySettings.__getattribute__ = watched
    shortcuts.take()
    assert settings.DEBUG is False and "DEBUG" in asked


def test_a_storage_that_somebody_has_is_left_to_them() -> None:
    urls._prefixes = has = Local()
    shortcuts.take()
    assert urls._prefixes is has
    assert isinstance(urls._urlconfs, shortcuts.OneValue)


@contextmanager
def trans_real_override(language: str) -> Iterator[None]:
    trans_real.activate(language)
    yield
    trans_real.deactivate()


@pytest.fixture(autouse=True)
def no_connection() -> Iterator[None]:
    """What an earlier test has left would be asked whether it is too old, which this one must not."""
    kept = {alias: connections[alias] for alias in connections if hasattr(connections._connections, alias)}
    for alias in kept:
        del connections[alias]
    yield
    for alias, connection in kept.items():
        connections[alias] = connection


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, no_connection: None) -> Iterator[list[Any]]:
    """Two could be there."""
    settings = {"default": connections.settings["default"], "other": connections.settings["default"]}
    monkeypatch.setitem(vars(connections), "settings", settings)
    try:
        yield list(settings)
    finally:
        for alias in settings:
            if hasattr(connections._connections, alias):
                connections[alias].close()
                del connections[alias]


@pytest.fixture(autouse=True)
def no_cache() -> Iterator[None]:
    def forget() -> None:
        if hasattr(caches._connections, "default"):
            del caches["default"]

    forget()
    yield
    forget()
