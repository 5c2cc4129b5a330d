# The sidecar alone, as one static binary in an otherwise empty image: docker build -t tollgate .
# It listens for all, so it wants TOLLGATE_ADMIN_TOKEN, and with a token of its own either keys (TOLLGATE_KEYS) or TOLLGATE_OPEN=true.
FROM rust:1.90-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN arch=$(uname -m) && rustup target add "$arch-unknown-linux-musl" && install -d -o 65532 -g 65532 /image/data
COPY . .
RUN target=$(uname -m)-unknown-linux-musl && cargo build --release --locked --bin tollgate --target "$target" && \
    install -D "target/$target/release/tollgate" /image/tollgate

FROM scratch
COPY --from=build --chown=65532:65532 /image /
USER 65532:65532
WORKDIR /data
VOLUME /data
# Within a container the loopback is nobody's; who may connect is said where the ports are published.
ENV TOLLGATE_LISTEN=0.0.0.0:8787 TOLLGATE_ADMIN=0.0.0.0:9787 TOLLGATE_RECORDS_PATH=/data/tollgate.db
EXPOSE 8787 9787
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/tollgate", "health"]
ENTRYPOINT ["/tollgate"]
CMD ["serve"]
