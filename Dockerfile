# The sidecar's image. Build: docker build -t modelready-sidecar .
FROM python:3.13-slim-trixie AS build
COPY requirements/build.txt requirements/runtime.txt requirements/aws.txt /src/requirements/
RUN python3 -m venv /build \
 && /build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r /src/requirements/build.txt \
 && python3 -m venv --without-pip /opt/modelready \
 && VIRTUAL_ENV=/opt/modelready /build/bin/uv pip install --quiet --no-cache --require-hashes -r /src/requirements/runtime.txt -r /src/requirements/aws.txt
COPY clients/python /src/clients/python
COPY sidecar /src/sidecar
COPY pyproject.toml README.md LICENSE /src/
# Without compiled files the start takes a second, and the root file system may be read-only.
RUN cd /src && /build/bin/python -m hatchling build -t wheel -d /wheels && cd clients/python && /build/bin/python -m hatchling build -t wheel -d /wheels \
 && /build/bin/uv pip install --quiet --no-cache --no-deps --python /opt/modelready/bin/python /wheels/*.whl \
 && /opt/modelready/bin/python -m compileall -q /opt/modelready/lib

FROM python:3.13-slim-trixie
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin modelready \
 && install -d -o modelready -g modelready -m 0700 /var/lib/modelready-sidecar
COPY --from=build /opt/modelready /opt/modelready
ENV PATH=/opt/modelready/bin:$PATH PYTHONDONTWRITEBYTECODE=1 SPOOL_DIR=/var/lib/modelready-sidecar
USER modelready
VOLUME /var/lib/modelready-sidecar
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["modelready-sidecar", "health"]
ENTRYPOINT ["modelready-sidecar"]
CMD ["serve"]
