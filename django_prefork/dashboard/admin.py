"""The page, and what it asks for by itself: one model's place under the admin, in which no model is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST, require_safe

from django_prefork import status
from django_prefork.dashboard import frames, picture
from django_prefork.dashboard.models import Server
from django_prefork.snapshot import Snapshot
from django_prefork.status import StatusError

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Server]
else:
    _ModelAdmin = admin.ModelAdmin

# What the page's script sends with all that it asks for, to get that part alone.
PART = "X-Prefork-Part"
# Of a user's name, in the log.
_NAME_LENGTH = 150


@admin.register(Server)
class ServerAdmin(_ModelAdmin):
    """To look takes the permission `prefork.view_server`; to act, a superuser."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Server | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Server | None = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        # admin_view() sends strangers to the login, asks for CSRF tokens and forbids caching.
        def wrapped(view: Any) -> Any:
            return self.admin_site.admin_view(view)

        return [
            path("", wrapped(require_safe(self.page)), name="prefork_server_changelist"),
            path("now/", wrapped(require_safe(self.now)), name="prefork_server_now"),
            path("past/", wrapped(require_safe(self.past)), name="prefork_server_past"),
            path("hour/", wrapped(require_safe(self.hour)), name="prefork_server_hour"),
            path("stacks/<int:slot>/", wrapped(require_POST(self.stacks)), name="prefork_server_stacks"),
            path("reload/", wrapped(require_POST(self.reload)), name="prefork_server_reload"),
        ]

    def page(self, request: HttpRequest) -> HttpResponse:
        return self._page(request)

    def now(self, request: HttpRequest) -> HttpResponse:
        """What changes each second."""
        self._look(request)
        snapshot = status.snapshot()
        return TemplateResponse(request, "prefork/_now.html", {"now": snapshot and _now(request, snapshot)})

    def past(self, request: HttpRequest) -> HttpResponse:
        self._look(request)
        snapshot = status.snapshot()
        return TemplateResponse(request, "prefork/_past.html", {"past": snapshot and picture.past(snapshot)})

    def hour(self, request: HttpRequest) -> HttpResponse:
        """The charts, which cost more and change less."""
        self._look(request)
        return TemplateResponse(request, "prefork/_hour.html", {"hour": picture.hour(status.last_hour())})

    def stacks(self, request: HttpRequest, slot: int) -> HttpResponse:
        """By POST, since it has the worker do something: it writes them down, whatever else it is doing."""
        self._look(request)
        try:
            found: dict[str, Any] = {"threads": frames.threads(status.stacks(slot))}
        except StatusError as error:
            found = {"sorry": str(error)}
        shown = {"stacks": {"slot": slot, **found}}
        if PART in request.headers:
            return TemplateResponse(request, "prefork/_stacks.html", shown)
        return self._page(request, **shown)

    def reload(self, request: HttpRequest) -> HttpResponse:
        if not _steers(request):
            raise PermissionDenied
        who = request.user.get_username().encode("unicode_escape").decode()[:_NAME_LENGTH]
        try:
            status.reload(f"{who} at the dashboard")
        except StatusError as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            said = "A reload begins: the new code starts beside the old, and takes over once it is ready."
            self.message_user(request, said, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:prefork_server_changelist", current_app=self.admin_site.name))

    # -- what they have in common --------------------------------------------------------------------------------------

    def _look(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def _page(self, request: HttpRequest, **more: Any) -> HttpResponse:
        self._look(request)
        snapshot = status.snapshot()
        context = {
            **self.admin_site.each_context(request),
            "title": "Server",
            "opts": self.opts,
            "steers": _steers(request),
            "hour": picture.hour(status.last_hour()),
            "now": snapshot and _now(request, snapshot),
            "past": snapshot and picture.past(snapshot),
            **more,
        }
        return TemplateResponse(request, "prefork/server.html", context)


def _now(request: HttpRequest, snapshot: Snapshot) -> picture.Now:
    # Who draws the page is busy with nothing but that.
    return picture.now(snapshot, request.META.get("prefork.slot"))


def _steers(request: HttpRequest) -> bool:
    """A project's own users need not know what a superuser is."""
    return request.user.is_active and bool(getattr(request.user, "is_superuser", False))
