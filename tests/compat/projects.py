"""One function for each package: its project is served, used, and found to work, or not.

What a function returns is what was found; an AssertionError says what does not work.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.compat.environment import source
from tests.compat.tools import Client, Project, ok
from tests.harness import eventually


def picture() -> bytes:
    from PIL import Image  # it comes with Wagtail

    file = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(file, "PNG")
    return file.getvalue()


def whitenoise(folder: Path) -> str:
    settings = """
MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")
STORAGES = {"default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"}}
"""
    urls = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
    project = Project.plain(folder, settings, urls=urls)
    project.manage("migrate", "--verbosity", "0")
    project.manage("collectstatic", "--noinput", "--verbosity", "0")
    with project.serve() as client:
        page = ok(client.get("/admin/login/"))
        sheets = re.findall(r'href="(/static/[^"]+\.css)"', page.text)
        assert sheets and all(re.search(r"\.[0-9a-f]{12}\.css$", sheet) for sheet in sheets)
        for sheet in sheets:
            for encoding in ("br", "gzip", "identity"):
                answer = ok(client.get(sheet, headers={"Accept-Encoding": encoding}), "{")
                assert answer.headers["Cache-Control"] == "max-age=315360000, public, immutable"
            assert answer.headers["Content-Length"] == str(len(answer.content))
        sheet = sheets[0]
        head = client.head(sheet, headers={"Accept-Encoding": "gzip"})
        assert head.headers["Content-Encoding"] == "gzip" and not head.content
        since = {"If-Modified-Since": head.headers["Last-Modified"]}
        assert client.get(sheet, headers=since).status_code == 304
        part = client.get(sheet, headers={"Range": "bytes=0-9", "Accept-Encoding": "identity"})
        assert part.status_code == 206 and len(part.content) == 10
        assert client.get("/static/none.css").status_code == 404
    return "Hashed names, brotli, gzip, ranges, `HEAD` and 304: nothing to remark."


def debug_toolbar(folder: Path) -> str:
    shutil.copytree(source("django-debug-toolbar") / "example", folder / "example")
    shutil.move(folder / "example" / "manage.py", folder / "manage.py")
    settings = folder / "example" / "settings.py"
    more = 'INSTALLED_APPS += ["django_prefork"]\nALLOWED_HOSTS = ["*"]\n'
    settings.write_text(settings.read_text() + more)
    project = Project(folder, "example.settings")
    project.manage("migrate", "--verbosity", "0")

    def panels(client: Client) -> tuple[int, int]:
        """Of the panels of pages that are asked for at once, how many come, and how many do not."""
        come = missing = 0

        def one(_: int) -> bool:
            with Client(client.server) as visitor:
                found = re.search(r'data-request-id="(\w+)"', ok(visitor.get("/"), "djDebug").text)
                assert found
            with Client(client.server) as visitor:  # as a browser does, on another connection
                which = {"request_id": found[1], "panel_id": "SQLPanel"}
                answer = visitor.get("/__debug__/render_panel/", params=which)
                return "available anymore" not in answer.json()["content"] and answer.status_code == 200

        with ThreadPoolExecutor(8) as pool:
            for here in pool.map(one, range(40)):
                come, missing = come + here, missing + (not here)
        return come, missing

    with project.serve() as client:
        come, missing = panels(client)
    settings.write_text(
        settings.read_text()
        + 'DEBUG_TOOLBAR_CONFIG = {"TOOLBAR_STORE_CLASS": "debug_toolbar.store.DatabaseStore"}\n'
        + 'DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}\n'
    )
    project.manage("migrate", "--verbosity", "0")
    with project.serve() as client:
        _, missing_in_database = panels(client)
    assert not missing_in_database
    with project.serve("--workers", "1") as client:
        for page in ("/", "/jinja/", "/async/", "/async/db/", "/htmx/boost/", "/turbo/", "/cache/"):
            ok(client.get(page), "djDebug")
    assert missing, "the store in memory was enough: say so in the table"
    return (
        "The toolbar is in every page. It keeps what its panels show in the memory of one process: with several workers"
        f" ({missing} of {come + missing} panels in this run) it says that the data is not available. With its"
        " `DatabaseStore`, or with `--workers 1`, all come. So it is on any server with more than one process."
    )


def allauth(folder: Path) -> str:
    shutil.copytree(source("django-allauth") / "examples" / "regular-django", folder / "site")
    (folder / "site" / "example" / "local_settings.py").write_text(
        "from . import settings as s\n"
        'INSTALLED_APPS = tuple(a for a in s.INSTALLED_APPS if not a.endswith(".saml")) + ("django_prefork",)\n'
    )
    project = Project(folder / "site", "example.settings")
    project.manage("migrate", "--verbosity", "0")
    with project.serve() as client:
        password = "correct-horse-battery"
        account = {"email": "ada@example.com", "password1": password, "password2": password}
        page = ok(client.submit("/accounts/signup/", **account))
        assert "confirm-email" in page.url, page.url
        # The code goes by mail, which this project prints.
        code = eventually(lambda: re.search(r"^([A-Z0-9]{3,4}-[A-Z0-9]{3,4})$", client.server.log, re.M), "the mail")[1]
        ok(client.submit(page.url, code=code))
        ok(client.get("/accounts/email/"), "ada@example.com")
        ok(client.submit("/accounts/logout/"))
        with Client(client.server) as other:
            refused = other.submit("/accounts/login/", login="ada@example.com", password="wrong")
            assert "/accounts/login/" in refused.url
            ok(other.submit("/accounts/login/", login="ada@example.com", password=password))
            ok(other.get("/accounts/email/"), "ada@example.com")
            ok(other.get("/accounts/2fa/"))
            ok(other.get("/accounts/sessions/"), "127.0.0.1")
    return "Signing up with a code by mail, signing in and out, two-factor and session pages: nothing to remark."


def wagtail(folder: Path) -> str:
    start = [Path(sys.executable).parent / "wagtail", "start", "mysite", str(folder)]
    subprocess.run(start, check=True, capture_output=True)
    (folder / "mysite" / "settings" / "local.py").write_text(
        'from .base import INSTALLED_APPS\nINSTALLED_APPS += ["django_prefork"]\nSECRET_KEY = "only-for-tests"\n'
        'ALLOWED_HOSTS = ["127.0.0.1"]\n'
    )
    project = Project(folder, "mysite.settings.production")
    project.manage("migrate", "--verbosity", "0")
    project.manage("collectstatic", "--noinput", "--verbosity", "0")
    project.superuser()
    with project.serve() as client:
        ok(client.get("/"), "Welcome to your new Wagtail site")
        ok(
            client.submit("/admin/login/", username="ada", password="a-password-for-a-test", next="/admin/"),
            "Dashboard",
        )
        page = ok(client.submit("/admin/images/add/", files={"file": ("dot.png", picture(), "image/png")}, title="Dot"))
        assert "Dot" in ok(client.get("/admin/images/")).text, page.url
        fields = {
            "title": "Written in a test",
            "slug": "home",
            "action-publish": "action-publish",
            "seo_title": "",
            "search_description": "",
            "go_live_at": "",
            "expire_at": "",
            "comments-TOTAL_FORMS": "0",
            "comments-INITIAL_FORMS": "0",
            "comments-MIN_NUM_FORMS": "0",
            "comments-MAX_NUM_FORMS": "",
        }
        home = 3  # as its first migration makes it
        ok(client.submit(f"/admin/pages/{home}/edit/", **fields))
        ok(client.get("/"), "Written in a test")
        ok(client.get("/search/?query=written"), "Written in a test")
        ok(client.get("/admin/reports/site-history/"), "Written in a test")
    return "With production settings: signing in, an upload, publishing, search, reports: nothing to remark."


def rest_framework(folder: Path) -> str:
    settings = """
INSTALLED_APPS += ["rest_framework"]
REST_FRAMEWORK = {"DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticatedOrReadOnly"]}
"""
    urls = """
from django.contrib.auth.models import Group
from django.urls import include, path
from rest_framework import parsers, routers, serializers, viewsets
from rest_framework.response import Response
from rest_framework.views import APIView

class GroupSerializer(serializers.ModelSerializer):
    class Meta:
        model = Group
        fields = ["id", "name"]

class Groups(viewsets.ModelViewSet):
    queryset = Group.objects.order_by("pk")
    serializer_class = GroupSerializer

class Upload(APIView):
    parser_classes = [parsers.FileUploadParser]
    def put(self, request, filename):
        return Response({"name": filename, "size": request.data["file"].size})

router = routers.DefaultRouter()
router.register("groups", Groups)
urlpatterns = [path("api/", include(router.urls)), path("upload/<filename>", Upload.as_view())]
"""
    project = Project.plain(folder, settings, urls=urls)
    project.manage("migrate", "--verbosity", "0")
    project.superuser()
    with project.serve() as client:
        assert client.post("/api/groups/", json={"name": "none"}).status_code == 403
        client.auth = ("ada", "a-password-for-a-test")
        made = client.post("/api/groups/", json={"name": "editors"})
        assert made.status_code == 201, made.text
        one = f"/api/groups/{made.json()['id']}/"
        assert client.patch(one, json={"name": "writers"}).json()["name"] == "writers"
        assert client.options(one).json()["actions"]["PUT"]["name"]["type"] == "string"
        ok(client.get("/api/groups/", headers={"Accept": "text/html"}), "Django REST framework")
        # Chunked: REST framework reads CONTENT_LENGTH bytes.
        for body in (b"x" * 100_000, (b"x" * 1000 for _ in range(100))):
            name = {"Content-Disposition": "attachment; filename=a.bin"}
            answer = client.put("/upload/a.bin", data=body, headers=name)
            assert ok(answer).json() == {"name": "a.bin", "size": 100_000}
        assert client.delete(one).status_code == 204
        assert client.get("/api/groups/").json() == []
    return "All methods, the browsable API and uploads, chunked ones as well, which on most WSGI servers arrive empty."


def gunicorn(folder: Path) -> str:
    from gunicorn.config import KNOWN_SETTINGS

    from django_prefork.from_gunicorn import ROWS

    names = [setting.name for setting in KNOWN_SETTINGS]
    missing = [name for name in names if not any(row.has(name) for row in ROWS)]
    assert not missing, missing
    return f"Each of its {len(names)} settings has a row in [from-gunicorn.md](from-gunicorn.md)."
