# The sidecar alone: docker build -t tollgate .
# It listens for all, so it wants TOLLGATE_ADMIN_TOKEN, and with a token of its own either keys (TOLLGATE_KEYS) or TOLLGATE_OPEN=true.
FROM rust:1.90-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin tollgate

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 tollgate && install -d -o tollgate /data
COPY --from=build /src/target/release/tollgate /usr/local/bin/tollgate
USER tollgate
WORKDIR /data
VOLUME /data
# Within a container the loopback is nobody's; who may connect is said where the ports are published.
ENV TOLLGATE_LISTEN=0.0.0.0:8787 TOLLGATE_ADMIN=0.0.0.0:9787 TOLLGATE_RECORDS_PATH=/data/tollgate.db
EXPOSE 8787 9787
ENTRYPOINT ["tollgate"]
CMD ["serve"]
