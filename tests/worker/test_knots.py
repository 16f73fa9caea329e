"""A request is freed with its answer where nobody else has it; and where somebody has, nothing of it is taken."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.core.handlers.wsgi import WSGIRequest
from django.utils.functional import SimpleLazyObject

from django_prefork.worker.knots import Knot


class Session(dict[str, Any]):
    """As much of one as the middlewares ask for."""


class Witness(SimpleLazyObject):
    """Not quite what Django makes."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def request_of(*middlewares: Any) -> WSGIRequest:
    request = WSGIRequest({"REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()})
    request.session = Session()  # type: ignore[assignment]
    for middleware in middlewares:
        middleware(lambda request: None).process_request(request)
    return request


def untied(make: Callable[[], WSGIRequest], keep: Callable[[WSGIRequest], Any] = lambda request: None) -> bool:
    """Whether a request is gone behind its answer. What `keep` returns of it is held meanwhile."""
    knot = Knot()
    knot.held["request"] = make()
    gone = weakref.ref(knot.held["request"])
    kept = keep(knot.held["request"])
    knot.untie()
    assert not knot.held
    request = gone()
    if request is None:
        return True
    assert kept is None or {"user", "auser", "_messages"} <= vars(request).keys(), "something was taken from it"
    return False


def usual() -> WSGIRequest:
    return request_of(AuthenticationMiddleware, MessageMiddleware)


@pytest.mark.parametrize(
    "middlewares",
    [(), (AuthenticationMiddleware,), (MessageMiddleware,), (AuthenticationMiddleware, MessageMiddleware)],
)
def test_a_request_that_nobody_has_is_freed_with_its_answer(middlewares: tuple[Any, ...]) -> None:
    assert untied(lambda: request_of(*middlewares))


def test_without_it_the_collector_would_have_to_come() -> None:
    gone = weakref.ref(usual())
    assert gone() is not None
    gc.collect()
    assert gone() is None


HELD: dict[str, Callable[[WSGIRequest], Any]] = {
    "the request": lambda request: request,
    "a function with it": lambda request: lambda: request,
    "its user": lambda request: request.user,
    "its user's function": lambda request: object.__getattribute__(request.user, "__dict__")["_setupfunc"],
    "the cell of that": lambda request: object.__getattribute__(request.user, "__dict__")["_setupfunc"].__closure__[0],  # type: ignore[index]
    "its asynchronous user": lambda request: request.auser,
    "its messages": lambda request: request._messages,  # type: ignore[attr-defined]
    "one of their storages": lambda request: request._messages.storages[0],  # type: ignore[attr-defined]
    "its attributes": vars,
    "a method": lambda request: request.get_host,
}


@pytest.mark.parametrize("what", HELD)
def test_who_has_something_of_it_loses_nothing(what: str) -> None:
    assert not untied(usual, HELD[what])


def test_as_many_others_as_there_are_ties_missing_are_no_tie() -> None:
    """A user of another kind, which does not refer to the request; and somebody who has the request."""

    def make() -> WSGIRequest:
        request = usual()
        request.user = SimpleLazyObject(lambda: "somebody")  # type: ignore[assignment]
        return request

    assert untied(make)
    assert not untied(make, lambda request: request)


def test_a_function_made_in_the_same_place_shares_the_cell() -> None:
    others: list[Callable[[], Any]] = []

    def authenticate(request: WSGIRequest) -> None:
        request.user = SimpleLazyObject(lambda: request.session)  # type: ignore[assignment]
        others.append(lambda: request)

    def make() -> WSGIRequest:
        request = usual()
        authenticate(request)
        return request

    assert not untied(make, lambda request: others)
    assert vars(others[0]()).keys() >= {"user", "auser", "_messages"}


def test_ties_of_another_kind_are_the_collectors() -> None:
    def lazy() -> WSGIRequest:
        request = usual()
        request.user = Witness(partial(getattr, request, "session"))  # type: ignore[assignment]
        return request

    def empty_cell() -> WSGIRequest:
        request = usual()

        def give() -> Any:
            return nothing

        request.user = SimpleLazyObject(give)  # type: ignore[assignment]
        if not request:
            nothing = 1
        return request

    def its_own() -> WSGIRequest:
        request = usual()
        request.itself = request  # type: ignore[attr-defined]
        return request

    for make in (lazy, its_own):
        assert not untied(make)
    assert not untied(empty_cell)


def test_a_request_of_the_projects_own_class_is_left_alone() -> None:
    class Own(WSGIRequest):
        pass

    assert not untied(lambda: _as(Own, usual()), lambda request: 0)


def _as(kind: type[WSGIRequest], request: WSGIRequest) -> WSGIRequest:
    request.__class__ = kind
    return request
