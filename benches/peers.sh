#!/usr/bin/env bash
# Measures Tollgate beside other gateways and nginx: the same upstream, the same calls, the same run.
#
#   benches/peers.sh [rounds] [seconds] [connections]
#
# Puts each in turn before an upstream that answers chat completions at once, and prints a table: requests a second, p50, p99,
# CPU a call, memory at rest, and memory of an open stream, with versions. Each is set up as its own documentation says, without
# its database, and with as many workers as the machine has cores where it has a choice.
#
# Needs nginx and wrk (Debian: apt-get install nginx-light wrk), cargo, python3 and npm. Peers are installed under target/peers;
# one that cannot be installed, or does not answer, is said to be missing. Everything is on loopback. Rounds go through all of
# them one after the other, and a figure is the median of the rounds, so that a noisy machine weighs on all.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} seconds=${2:-4} connections=${3:-32}
LITER_LLM=2.4.4 LITELLM=1.106.12 PORTKEY=1.15.2
streams=200
for tool in nginx wrk cargo python3 npm; do
    command -v "$tool" >/dev/null || { echo "peers: $tool is missing; apt-get install nginx-light wrk npm" >&2; exit 1; }
done
peers=$PWD/target/peers && mkdir -p "$peers"
cargo build --release --quiet
[ -x "$peers/liter-llm/bin/liter-llm" ] || cargo install --quiet --locked --version $LITER_LLM liter-llm-cli --root "$peers/liter-llm" || true
[ -x "$peers/litellm/bin/litellm" ] || { python3 -m venv "$peers/litellm" && "$peers/litellm/bin/pip" -q install "litellm[proxy]==$LITELLM"; } || true
[ -d "$peers/portkey/node_modules" ] || npm install --silent --prefix "$peers/portkey" "@portkey-ai/gateway@$PORTKEY" || true

work=$(mktemp -d) && chmod 777 "$work" # nginx's workers are nobody
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
upstream=18181 held=18182 model=@cf/meta/llama-3.2-1b-instruct

reply='{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog, and then it rests in the shade."},"finish_reason":"stop"}],"usage":{"prompt_tokens":212,"completion_tokens":18,"total_tokens":230}}'
nginx_conf() { # name port server-block [http-block]
    cat >"$work/$1.conf" <<CONF
worker_processes auto; pid $work/$1.pid; daemon off; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s; client_body_buffer_size 64k; ${4:-}
  server { listen 127.0.0.1:$2 reuseport; $3 }
}
CONF
}
# Streams go to an upstream that says one word and then nothing more.
cat >"$work/held.py" <<'PY'
import asyncio, sys
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}\n\n'
async def serve(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD + b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
    await writer.drain()
    await reader.read(-1)
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()
asyncio.run(main())
PY
# Opens so many streams, waits for the first word of each, says so, and holds them.
cat >"$work/hold.py" <<'PY'
import asyncio, os, sys
port, path, count, header = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4].replace("\\n", "\r\n")
body = '{"model":"%s","messages":[{"role":"user","content":"Hello"}],"stream":true,"max_tokens":64}' % os.environ["MODEL"]
head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nauthorization: Bearer sk-peers-of-one-upstream\r\n{header}content-length: {len(body)}\r\n\r\n"
async def one():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((head + body).encode())
    await asyncio.wait_for(reader.readuntil(b"data:"), 60)
    return writer
async def main():
    kept = []
    for _ in range(count // 20):
        kept += await asyncio.gather(*(one() for _ in range(20)))
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
PY
nginx_conf upstream $upstream "default_type application/json; location / { return 200 '$reply'; }"
nginx -p "$work" -c "$work/upstream.conf" &
python3 "$work/held.py" $held &

# === How each is started: its port, where it sends calls, its log. Prints nothing. ===
start_nginx() {
    nginx_conf "plain$1" "$1" "location / { proxy_pass http://up; proxy_http_version 1.1; proxy_buffering off; proxy_set_header Connection ''; proxy_set_header Authorization 'Bearer t'; }" \
        "upstream up { server 127.0.0.1:$2; keepalive 256; keepalive_requests 100000000; }"
    exec nginx -p "$work" -c "$work/plain$1.conf"
}
start_tollgate() {
    cat >"$work/tollgate$1.toml" <<CONF
records.path = "$work/tollgate$1.db"
[limits.models."$model"]
requests = 100000000
CONF
    CLOUDFLARE_ACCOUNT_ID=023e105f4ecef8ad9ca31a8372d0c353 CLOUDFLARE_API_TOKEN=t TOLLGATE_LOG_LEVEL=warn exec target/release/tollgate serve --config "$work/tollgate$1.toml" \
        --listen "127.0.0.1:$1" --admin "127.0.0.1:$(($1 + 100))" --upstream "http://127.0.0.1:$2"
}
start_liter_llm() {
    printf '[security]\noutbound_policy = "off"\n[general]\nmaster_key = "sk-peers-of-one-upstream"\n[[models]]\nname = "%s"\nprovider_model = "openai/m"\napi_key = "t"\nbase_url = "http://127.0.0.1:%s/v1"\n' "$model" "$2" >"$work/liter$1.toml"
    exec "$peers/liter-llm/bin/liter-llm" --tokio-worker-threads "$(nproc)" api --config "$work/liter$1.toml" --host 127.0.0.1 --port "$1"
}
start_litellm() {
    printf 'model_list:\n  - model_name: "%s"\n    litellm_params: {model: openai/m, api_base: "http://127.0.0.1:%s/v1", api_key: t}\ngeneral_settings: {master_key: sk-peers-of-one-upstream}\n' "$model" "$2" >"$work/litellm$1.yaml"
    LITELLM_LOG=ERROR LITELLM_MODE=PRODUCTION exec "$peers/litellm/bin/litellm" --config "$work/litellm$1.yaml" --host 127.0.0.1 --port "$1" --num_workers "$(nproc)" --telemetry False
}
start_portkey() {
    NODE_ENV=production TRUSTED_CUSTOM_HOSTS=127.0.0.1,localhost exec node "$peers/portkey/node_modules/@portkey-ai/gateway/build/start-server.js" "--port=$1" --headless
}
names=(nginx tollgate liter_llm litellm portkey)
header() { # what a call needs besides: Portkey is told the upstream by each call
    case $1 in portkey) printf 'x-portkey-provider: openai\\nx-portkey-custom-host: http://127.0.0.1:%s/v1\\n' "$2" ;; esac
}
version() {
    case $1 in
    nginx) nginx -v 2>&1 | sed 's|.*/||; s/ .*//' ;;
    tollgate) target/release/tollgate --version | awk '{print $2}' ;;
    liter_llm) "$peers/liter-llm/bin/liter-llm" --version | awk '{print $2}' ;;
    litellm) "$peers/litellm/bin/pip" show litellm 2>/dev/null | awk '/^Version/ {print $2}' ;;
    portkey) node -p "require('$peers/portkey/node_modules/@portkey-ai/gateway/package.json').version" ;;
    esac
}
tree() { # a process and all below it
    local pid
    for pid in $(pgrep -P "$1" || true); do tree "$pid"; done
    echo "$1"
}
cpu() { # ticks of all of them
    local pid sum=0 line
    for pid in $(tree "$1"); do
        line=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) && set -- $line && sum=$((sum + ${12} + ${13}))
    done
    echo "$sum"
}
memory() { # KiB of all of them, what they share counted once
    local pid sum=0
    for pid in $(tree "$1"); do sum=$((sum + $(awk '/^Pss:/ {print $2}' "/proc/$pid/smaps_rollup" 2>/dev/null || echo 0))); done
    echo "$sum"
}
answers() { # name port upstream
    local tries
    for tries in $(seq 120); do
        curl -sf -o /dev/null -m 5 -H 'content-type: application/json' -H 'authorization: Bearer sk-peers-of-one-upstream' \
            $(header "$1" "$3" | sed 's/\\n/\n/g' | sed -n 's/^\([^:]*\): \(.*\)/-H\n\1:\2/p') \
            -d "{\"model\":\"$model\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}" "http://127.0.0.1:$2/v1/chat/completions" && return 0
        sleep 0.5
    done
    return 1
}
script() { # name: a wrk script
    {
        echo 'wrk.method = "POST"; wrk.headers["content-type"] = "application/json"; wrk.headers["authorization"] = "Bearer sk-peers-of-one-upstream"'
        header "$1" $upstream | sed 's/\\n/\n/g' | sed -n 's/^\([^:]*\): \(.*\)/wrk.headers["\1"] = "\2"/p'
        # No two calls are the same, so that no cache answers.
        cat <<LUA
local words, n, id = string.rep("all work and no play ", 44), 0, ""
function init() math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16)); id = tostring(math.random(1, 1e9)) end
function request()
  n = n + 1
  return wrk.format(nil, nil, nil, '{"model":"$model","messages":[{"role":"system","content":"You are terse. ' .. id .. n .. '"},{"role":"user","content":"' .. words .. '"}],"max_tokens":64,"temperature":0}')
end
LUA
    } >"$work/$1.lua"
}
declare -A port pid
base=18190
for name in "${names[@]}"; do
    base=$((base + 1))
    ("start_$name" $base $upstream) >"$work/$name.log" 2>&1 &
    pid[$name]=$! port[$name]=$base
    script "$name"
    if ! answers "$name" $base $upstream; then
        echo "$name is missing: $(tail -n 1 "$work/$name.log" | cut -c1-160)"
        kill "${pid[$name]}" 2>/dev/null || true
        unset "port[$name]"
    fi
done
measure() { # name seconds: appends requests a second, p50, p99 (ms), CPU a call (µs)
    local before after
    before=$(cpu "${pid[$1]}")
    wrk -t2 -c"$connections" -d"$2s" --latency -s "$work/$1.lua" "http://127.0.0.1:${port[$1]}/v1/chat/completions" >"$work/out"
    after=$(cpu "${pid[$1]}")
    if grep -q 'Non-2xx' "$work/out"; then echo "$1: $(grep Non-2xx "$work/out")" >&2; fi
    awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
        function ms(t) { return t ~ /us$/ ? t / 1000 : t ~ /ms$/ ? t + 0 : t * 1000 }
        /50%/ {p50 = ms($2)} /99%/ {p99 = ms($2)} /requests in/ {n = $1} /Requests\/sec/ {rate = $2}
        END {print rate, p50, p99, ticks / hz / n * 1e6}' "$work/out"
}
for name in "${names[@]}"; do [ -z "${port[$name]:-}" ] || { measure "$name" 2 >/dev/null; memory "${pid[$name]}" >"$work/$name.rest"; }; done
for _ in $(seq "$rounds"); do
    for name in "${names[@]}"; do [ -z "${port[$name]:-}" ] || measure "$name" "$seconds" >>"$work/$name.rates"; done
done
stream() { # name: KiB an open stream
    local at=$((base + 50 + RANDOM % 40)) before after process
    ("start_$1" $at $held) >"$work/$1.held.log" 2>&1 &
    process=$!
    local tries; for tries in $(seq 120); do (exec 3<>"/dev/tcp/127.0.0.1/$at") 2>/dev/null && break; sleep 0.5; done
    sleep 3
    hold() { MODEL=$model python3 "$work/hold.py" "$at" /v1/chat/completions "$2" "$(header "$1" $held)"; }
    # The first streams pay for what is made once.
    { hold "$1" 20 < <(sleep 2) >/dev/null 2>&1 || true; }
    before=$(memory $process)
    mkfifo "$work/$1.end"
    hold "$1" $streams <"$work/$1.end" >"$work/$1.held" 2>>"$work/$1.held.log" &
    exec 4>"$work/$1.end"
    for tries in $(seq 120); do grep -q held "$work/$1.held" 2>/dev/null && break; sleep 0.5; done
    after=$(memory $process)
    if grep -q held "$work/$1.held"; then awk -v d=$((after - before)) -v n=$streams 'BEGIN {printf "%.1f", d / n}'; else echo "-"; fi
    exec 4>&-
    kill $process 2>/dev/null || true
}
median() { awk -v c="$2" '{print $c}' "$1" | sort -n | awk '{a[NR] = $1} END {print a[int((NR + 1) / 2)]}'; }
plain=$(median "$work/nginx.rates" 1)
echo "| gateway | requests a second | of nginx's | p50 ms | p99 ms | CPU a call, µs | at rest, MiB | an open stream, KiB |"
echo "|---|---|---|---|---|---|---|---|"
for name in "${names[@]}"; do
    [ -n "${port[$name]:-}" ] || continue
    printf '| %s %s | %.0f | %.2f | %.2f | %.2f | %.0f | %.0f | %s |\n' "${name/_/-}" "$(version "$name")" "$(median "$work/$name.rates" 1)" \
        "$(awk -v a="$(median "$work/$name.rates" 1)" -v b="$plain" 'BEGIN {print a / b}')" "$(median "$work/$name.rates" 2)" \
        "$(median "$work/$name.rates" 3)" "$(median "$work/$name.rates" 4)" "$(awk '{print $1 / 1024}' "$work/$name.rest")" "$(stream "$name")"
done
echo "$(date -u +%F), $(nproc) cores, $rounds rounds of $seconds s, $connections connections, $streams streams"
