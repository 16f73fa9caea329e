# The demo project, for a user without rights and a root file system that is read-only:
#
#   docker build --tag prefork-demo .
#   docker run --rm --read-only --publish 8000:8000 prefork-demo
#
# Then open http://localhost:8000/. What it writes is in the volume /data: the database, the uploads, and by
# TMPDIR the temporary files of SQLite, Django and the server.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY django_prefork django_prefork
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir ".[title]"

FROM python:3.13-slim
COPY --from=build /venv /venv
WORKDIR /app
COPY manage.py ./
COPY demo_project demo_project
RUN useradd --no-create-home --uid 10001 demo && install --directory --owner demo --group demo /data
ENV PATH=/venv/bin:$PATH \
    DEMO_DATA_DIR=/data \
    PORT=8000 \
    PREFORK_HEALTH_PATH=/-/health \
    TMPDIR=/data
USER demo
VOLUME /data
EXPOSE 8000

# By Python, as the image has no curl; without a proxy, whatever the environment says.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-IS", "-c", "from os import environ; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:' + environ['PORT'] + environ['PREFORK_HEALTH_PATH'], timeout=4)"]

# Both in the exec form: the script ends by becoming the command, and so the server is PID 1 and hears `docker stop`.
ENTRYPOINT ["sh", "demo_project/entrypoint.sh"]
CMD ["python", "manage.py", "runprefork", "--workers", "3"]
