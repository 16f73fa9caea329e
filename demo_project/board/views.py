"""The board's pages, and a few that give a server something to do: long, slow, busy and broken."""

from __future__ import annotations

import math
import os
import time
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.core.paginator import Page, Paginator
from django.db.models import Avg, Count, Max, Min
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import etag, require_http_methods, require_safe

from .export import csv_chunks
from .forms import NoticeForm, SharedFileForm
from .models import Measurement, Notice, SharedFile

PER_PAGE: Final = 20
MAX_SECONDS: Final = 60.0

require_form = require_http_methods(["GET", "HEAD", "POST"])


# --- Notices


@require_safe
def notices(request: HttpRequest) -> HttpResponse:
    page = _page(request, Notice.objects.all())
    return render(request, "board/notices.html", {"page": page, "page_numbers": _page_numbers(page)})


@require_form
def new_notice(request: HttpRequest) -> HttpResponse:
    """Anybody may post: no login."""
    known = {"author": request.user.get_username()}
    form = NoticeForm(request.POST) if request.method == "POST" else NoticeForm(initial=known)
    if form.is_valid():
        notice = form.save()
        messages.success(request, "Your notice is on the board.")
        return redirect(notice)
    return render(request, "board/new_notice.html", {"form": form})


@require_safe
def notice(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "board/notice.html", {"notice": get_object_or_404(Notice, pk=pk)})


@require_safe
def api_notices(request: HttpRequest) -> JsonResponse:
    page = _page(request, Notice.objects.all())
    return JsonResponse(
        {
            "count": page.paginator.count,
            "page": page.number,
            "pages": page.paginator.num_pages,
            "notices": [
                {
                    "id": notice.pk,
                    "title": notice.title,
                    "body": notice.body,
                    "author": notice.author,
                    "pinned": notice.pinned,
                    "created_at": notice.created_at,
                    "url": notice.get_absolute_url(),
                }
                for notice in page
            ],
        }
    )


# --- Files


@require_form
def files(request: HttpRequest) -> HttpResponse:
    form = SharedFileForm(request.POST, request.FILES) if request.method == "POST" else SharedFileForm()
    if form.is_valid():
        shared = form.save()
        messages.success(request, "Your file is here.")
        return redirect(shared)
    page = _page(request, SharedFile.objects.all())
    return render(request, "board/files.html", {"form": form, "page": page, "page_numbers": _page_numbers(page)})


@require_safe
def file(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "board/file.html", {"shared": get_object_or_404(SharedFile, pk=pk)})


@require_safe
def api_file(request: HttpRequest, pk: int) -> JsonResponse:
    shared = get_object_or_404(SharedFile, pk=pk)
    return JsonResponse(
        {
            "id": shared.pk,
            "name": shared.name,
            "size": shared.size,
            "sha256": shared.sha256,
            "created_at": shared.created_at,
            "download": reverse("board:download", args=(shared.pk,)),
        }
    )


def _digest(request: HttpRequest, pk: int) -> str | None:
    digest = SharedFile.objects.filter(pk=pk).values_list("sha256", flat=True).first()
    return digest and f'"{digest}"'


# The decorator answers 304 before the view opens the file; ConditionalGetMiddleware alone would come after, and drop a
# response with its file still open.
@require_safe
@etag(_digest)
def download(request: HttpRequest, pk: int) -> FileResponse:
    # GZipMiddleware would compress on the fly, and so take away the length (no progress bar) and the server's chance
    # to send the file itself (wsgi.file_wrapper). It leaves alone a client that accepts no gzip.
    request.META.pop("HTTP_ACCEPT_ENCODING", None)
    shared = get_object_or_404(SharedFile, pk=pk)
    try:
        stored = shared.file.open("rb")
    except FileNotFoundError:
        raise Http404("The file is gone from the disk.") from None
    return FileResponse(stored, as_attachment=True, filename=shared.name)


# --- Work for a server


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    response = StreamingHttpResponse(csv_chunks(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="measurements.csv"'
    return response


@require_safe
@never_cache
def report(request: HttpRequest) -> HttpResponse:
    """Slow in the way of a slow database: the worker waits, its CPU is idle."""
    seconds = _seconds(request, default=2)
    stations = list(
        Measurement.objects.values("station")
        .annotate(
            readings=Count("pk"),
            coldest=Min("temperature"),
            average=Avg("temperature"),
            warmest=Max("temperature"),
            humidity=Avg("humidity"),
        )
        .order_by("station")
    )
    # After the query is read to its end, so that no read transaction stays open for as long as we sleep.
    time.sleep(seconds)
    context = {"seconds": seconds, "max_seconds": MAX_SECONDS, "stations": stations, "worker": _worker(request)}
    return render(request, "board/report.html", context)


@require_safe
@never_cache
def cpu(request: HttpRequest) -> HttpResponse:
    """Slow in the way of a busy loop: one CPU is taken for `seconds` of wall time."""
    seconds = _seconds(request, default=0.2)
    rounds = _burn(seconds)
    context = {"seconds": seconds, "max_seconds": MAX_SECONDS, "rounds": rounds, "worker": _worker(request)}
    return render(request, "board/cpu.html", context)


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("This page always raises: it is here to see what the server makes of it.")


@require_safe
@never_cache
def whoami(request: HttpRequest) -> JsonResponse:
    return JsonResponse(_worker(request))


# --- Helpers


def _page(request: HttpRequest, rows: Any) -> Page[Any]:
    """The page that ?page= asks for; the nearest one there is where it asks for nonsense."""
    return Paginator(rows, PER_PAGE).get_page(request.GET.get("page"))


def _page_numbers(page: Page[Any]) -> list[int | str]:
    """Page numbers to show, with an ellipsis where some are left out."""
    return list(page.paginator.get_elided_page_range(page.number, on_each_side=1, on_ends=1))


def _seconds(request: HttpRequest, default: float) -> float:
    """?seconds=, held between 0 and MAX_SECONDS.

    Raises BadRequest (status 400) for what is no number.
    """
    text = request.GET.get("seconds", "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if math.isnan(seconds):
        raise BadRequest("seconds must be a number")
    return min(max(seconds, 0.0), MAX_SECONDS)


def _burn(seconds: float) -> int:
    """Compute for `seconds` of wall time; returns how many rounds that was."""
    deadline = time.perf_counter() + seconds
    rounds = value = 0
    while time.perf_counter() < deadline:
        for _ in range(1000):
            value = (value * 1_103_515_245 + 12_345) % 2**31
        rounds += 1
    return rounds


def _worker(request: HttpRequest) -> dict[str, Any]:
    """The process that answers; django-prefork says which slot and generation, other servers do not know (None)."""
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "slot": request.META.get("prefork.slot"),
        "generation": request.META.get("prefork.generation"),
    }
