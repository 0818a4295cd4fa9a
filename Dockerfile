# docker build -t flatwater .        see docs/howto/operate.md
FROM node:22-slim AS page
WORKDIR /build/ui
COPY ui/package.json ui/package-lock.json ui/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY ui/ ./
RUN npm run build

FROM python:3.12-slim AS package
WORKDIR /build
# For the parts written in C; the image that comes out of the last stage has no compiler.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# The versions of the lock for what the package asks for; the tools of the tests, which the lock names too, stay away.
COPY requirements.lock pyproject.toml setup.py README.md LICENSE ./
COPY src/ src/
COPY --from=page /build/src/flatwater/server/static/ src/flatwater/server/static/
RUN sed -e 's/ \\$//' -e '/^ *--hash/d' -e '/^ *#/d' requirements.lock > constraints.txt \
    && python -m venv /opt/flatwater \
    && /opt/flatwater/bin/pip install --no-cache-dir --constraint constraints.txt '.[postgres,mysql]'
# An installation goes on without them, an image does not: this fails when one was not built or cannot be loaded.
RUN cd / && /opt/flatwater/bin/python -c 'import ctypes, importlib.util, flatwater.memory._heap, flatwater.memory._watch, flatwater.guard._meter; \
    ctypes.CDLL(importlib.util.find_spec("flatwater.memory._inject").origin)'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin flatwater \
    && install -d -o flatwater -g flatwater -m 0700 /data
COPY --from=package /opt/flatwater /opt/flatwater
ENV PATH=/opt/flatwater/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    FLATWATER_SERVER_HOST=0.0.0.0 \
    FLATWATER_STORE_URL=sqlite:////data/flatwater.db
USER flatwater
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8350
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8350/livez', timeout=4)"]
ENTRYPOINT ["flatwater"]
CMD ["serve"]
