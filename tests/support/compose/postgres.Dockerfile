# Stands in for docker.io/library/postgres where that cannot be had.
ARG BASE=docker.io/library/debian:bookworm-slim
FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && useradd --uid 10001 --no-create-home fedtasks \
 && install -d -m 1777 /var/lib/postgresql/data /var/run/postgresql
ENV PATH=/usr/lib/postgresql/15/bin:$PATH
COPY --chmod=755 postgres.sh /usr/local/bin/
ENTRYPOINT ["postgres.sh"]
