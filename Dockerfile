# The sidecar's image. Build: docker build -t modelready-sidecar --build-arg REVISION=$(git rev-parse HEAD) .
FROM python:3.13-slim-trixie AS build
COPY requirements/build.txt requirements/image.txt /src/requirements/
RUN python3 -m venv /build \
 && /build/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r /src/requirements/build.txt \
 && python3 -m venv --without-pip /opt/modelready \
 && VIRTUAL_ENV=/opt/modelready /build/bin/uv pip install --quiet --no-cache --require-hashes -r /src/requirements/image.txt
# botocore holds 25 MB of descriptions of all AWS services. The sidecar needs Secrets Manager, and those that give a role's credentials.
RUN find /opt/modelready/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
      ! -name secretsmanager ! -name sts ! -name 'sso*' ! -name signin -exec rm -rf {} +
COPY clients/python /src/clients/python
COPY sidecar /src/sidecar
COPY pyproject.toml README.md LICENSE /src/
# Without .pyc files the start takes a second, and on a read-only root file system Python cannot write them.
RUN cd /src && /build/bin/python -m hatchling build -t wheel -d /wheels && cd clients/python && /build/bin/python -m hatchling build -t wheel -d /wheels \
 && /build/bin/uv pip install --quiet --no-cache --no-deps --python /opt/modelready/bin/python /wheels/*.whl \
 && rm -f /opt/modelready/.lock \
 && /opt/modelready/bin/python -m compileall -q /opt/modelready/lib

FROM python:3.13-slim-trixie
# The base image comes with pip. Nothing is installed here.
RUN rm -rf $(python3 -c 'import ensurepip, pip; print(ensurepip.__path__[0], pip.__path__[0])') $(which pip pip3 pip3.13) \
 && groupadd --system --gid 10001 modelready \
 && useradd --system --uid 10001 --gid modelready --home-dir /nonexistent --shell /usr/sbin/nologin modelready \
 && install -d -o modelready -g modelready -m 0700 /var/lib/modelready-sidecar
COPY --from=build /opt/modelready /opt/modelready
ENV PATH=/opt/modelready/bin:$PATH PYTHONDONTWRITEBYTECODE=1 SPOOL_DIR=/var/lib/modelready-sidecar
# Numbers, not names: Kubernetes can check runAsNonRoot only then.
USER 10001:10001
VOLUME /var/lib/modelready-sidecar
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["modelready-sidecar", "health"]
ENTRYPOINT ["modelready-sidecar"]
CMD ["serve"]
# Last, so that a new revision changes no layer.
ARG REVISION=
LABEL org.opencontainers.image.title="modelready-sidecar" \
      org.opencontainers.image.description="A gRPC sidecar that publishes 'this model version is ready' to Redis, and loses none." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="python:3.13-slim-trixie"
