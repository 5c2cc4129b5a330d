#!/usr/bin/env bash
# Measures the sidecar beside nginx: same upstream, same load, same run, and prints the ratio.
#
#   benches/beside_nginx.sh [proxy|cache] [rounds] [seconds] [connections]
#
# `proxy` is every call passed on, beside nginx's plain proxy_pass; `cache` is every call a hit, beside nginx's proxy_cache.
#
# Needs nginx and wrk (Debian: apt-get install nginx-light wrk). Everything is on loopback. The upstream is an nginx that answers
# with a fixed chat reply; rounds alternate between the two, and the figure is the median of the rounds' ratios, so that a
# noisy machine weighs on both.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-proxy} rounds=${2:-5} seconds=${3:-4} connections=${4:-32}
case $mode in
proxy) ttl=0s caching="" zone="" ;;
cache) ttl=5m zone='proxy_cache_path WORK/cache keys_zone=z:16m;'
    caching='proxy_cache z; proxy_cache_methods POST; proxy_cache_key "$uri|$request_body|$http_authorization"; proxy_cache_valid 200 5m;' ;;
*) echo "beside_nginx: $mode is neither proxy nor cache" >&2; exit 2 ;;
esac
for tool in nginx wrk cargo; do
    command -v "$tool" >/dev/null || { echo "beside_nginx: $tool is missing; apt-get install nginx-light wrk" >&2; exit 1; }
done
cargo build --release --quiet
work=$(mktemp -d) && chmod 777 "$work" # nginx's workers are nobody
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

upstream=18081 plain=18082 gate=18083
reply='{"result":{"response":"The quick brown fox jumps over the lazy dog, and then it rests in the shade.","usage":{"prompt_tokens":212,"completion_tokens":18,"total_tokens":230}},"success":true,"errors":[],"messages":[]}'
nginx_conf() { # file port server-block [http-block]
    cat >"$work/$1" <<EOF
worker_processes auto; pid $work/$1.pid; daemon off; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s; client_body_buffer_size 64k;
  ${4:-}
  server { listen 127.0.0.1:$2 reuseport; $3 }
}
EOF
    nginx -p "$work" -c "$work/$1" &
}
nginx_conf upstream.conf $upstream "default_type application/json; location / { return 200 '$reply'; }"
nginx_conf plain.conf $plain "location / { $caching proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Authorization 'Bearer t'; }" \
    "upstream up { server 127.0.0.1:$upstream; keepalive 256; keepalive_requests 100000000; } ${zone//WORK/$work}"
# The model's own limit would hold the load back; a record a call is what a disk is measured by, see benches/records.rs.
cat >"$work/tollgate.toml" <<'EOF'
records.path = ""
[limits.models."@cf/meta/llama-3.2-1b-instruct"]
requests = 100000000
EOF
CLOUDFLARE_API_TOKEN=t TOLLGATE_LOG_LEVEL=warn TOLLGATE_CACHE_TTL=$ttl target/release/tollgate serve --config "$work/tollgate.toml" \
    --listen 127.0.0.1:$gate --admin 127.0.0.1:18084 --upstream http://127.0.0.1:$upstream >/dev/null &
cat >"$work/post.lua" <<'EOF'
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"messages":[{"role":"system","content":"You are terse."},{"role":"user","content":"' .. string.rep("all work and no play ", 44) .. '"}],"max_tokens":64,"temperature":0}'
EOF
path=/client/v4/accounts/a/ai/run/@cf/meta/llama-3.2-1b-instruct
for port in $upstream $plain $gate; do
    for _ in $(seq 50); do curl -sf -o /dev/null -d '{}' "http://127.0.0.1:$port$path" && break; sleep 0.1; done
done
rate() {
    wrk -t2 -c"$connections" -d"${2:-$seconds}s" -s "$work/post.lua" "http://127.0.0.1:$1$path" >"$work/out"
    if grep -q 'Non-2xx' "$work/out"; then cat "$work/out" >&2; exit 1; fi
    awk '/Requests\/sec/ {print $2}' "$work/out"
}
rate $plain 1 >/dev/null; rate $gate 1 >/dev/null
for round in $(seq "$rounds"); do
    nginx=$(rate $plain) tollgate=$(rate $gate)
    echo "$nginx $tollgate" >>"$work/rates"
    awk -v r="$round" -v n="$nginx" -v t="$tollgate" 'BEGIN {printf "round %d  nginx %8.0f/s  tollgate %8.0f/s  ratio %.2f\n", r, n, t, t / n}'
done
awk '{print $2 / $1}' "$work/rates" | sort -n | awk -v mode="$mode" '{a[NR] = $1} END {printf "median ratio %.2f (1.00 is nginx; %s)\n", a[int((NR + 1) / 2)], mode}'
