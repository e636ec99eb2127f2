# The worker: `docker build -t redis-heartbeat-sink .`, then `docker run -p 127.0.0.1:8083:8083 -e CONNECT_BOOTSTRAP_SERVERS=...
# -e CONNECT_KEY_CONVERTER=org.apache.kafka.connect.storage.StringConverter -e CONNECT_VALUE_CONVERTER=... redis-heartbeat-sink`.
# Slim and glibc: the Kafka client comes as a wheel, which Alpine could not use. Nothing is compiled here.

FROM python:3.11-slim AS build
WORKDIR /build
# First what changes seldom: the locked wheels, each held against its hash.
COPY requirements.txt ./
RUN pip wheel --quiet --no-cache-dir --require-hashes --only-binary :all: --wheel-dir wheels -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY config/redis-heartbeat-sink.json config/
COPY src src
# Nothing but the locked wheels is at hand from here on, so what they do not satisfy fails instead of coming from elsewhere.
RUN pip wheel --quiet --no-cache-dir --no-index --find-links wheels --no-deps --wheel-dir wheels . \
 && python3 -m venv --without-pip /opt/heartbeat \
 && pip --python /opt/heartbeat/bin/python install --quiet --no-cache-dir --no-index --find-links wheels --compile redis-heartbeat-sink
COPY --chmod=644 docker/healthcheck.py /opt/heartbeat/

FROM python:3.11-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="redis-heartbeat-sink" \
      org.opencontainers.image.description="Kafka beats kept alive in Redis, behind Kafka Connect's REST API, without a JVM" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# The folder belongs to the user before it becomes a volume: a new named volume takes its owner from it.
RUN groupadd --system --gid 10001 heartbeat \
 && useradd --system --uid 10001 --gid heartbeat --no-create-home --home-dir /var/lib/heartbeat heartbeat \
 && install -d -o heartbeat -g heartbeat /var/lib/heartbeat
COPY --from=build /opt/heartbeat /opt/heartbeat
ENV PATH=/opt/heartbeat/bin:$PATH \
    CONNECT_CONFIG_STORAGE_FILE=/var/lib/heartbeat/connectors.json
# By number, so that a cluster can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/heartbeat
EXPOSE 8083
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=500ms --retries=3 \
    CMD ["python", "-I", "-S", "/opt/heartbeat/healthcheck.py"]
ENTRYPOINT ["heartbeat"]
CMD ["connect-standalone"]
