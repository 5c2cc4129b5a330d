#!/usr/bin/env bash
# Measures what many keys cost: the start, and the CPU of a call, with 1 key and with 100,000, in one run.
#
#   benches/keys.sh [keys] [rounds] [seconds] [connections]
#
# Needs nginx, wrk (Debian: apt-get install nginx-light wrk) and python3. Everything is on loopback; the upstream is an nginx that
# answers with a fixed reply. Rounds alternate between the two gates, each call shows another key, and the figure is the median of
# the rounds' ratios, so that a noisy machine weighs on both. TOLLGATE names another binary than target/release/tollgate.
set -euo pipefail
cd "$(dirname "$0")/.."
keys=${1:-100000} rounds=${2:-5} seconds=${3:-3} connections=${4:-16}
for tool in nginx wrk python3; do
    command -v "$tool" >/dev/null || { echo "keys: $tool is missing; apt-get install nginx-light wrk python3" >&2; exit 1; }
done
tollgate=${TOLLGATE:-}
if [ -z "$tollgate" ]; then
    cargo build --release --quiet
    tollgate=target/release/tollgate
fi
work=$(mktemp -d) && chmod 777 "$work" # nginx's workers are nobody
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

upstream=18091
reply='{"result":{"response":"The quick brown fox jumps over the lazy dog.","usage":{"prompt_tokens":212,"completion_tokens":18,"total_tokens":230}},"success":true,"errors":[],"messages":[]}'
cat >"$work/upstream.conf" <<EOF
worker_processes auto; pid $work/nginx.pid; daemon off; error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path $work/body; proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s; default_type application/json;
  server { listen 127.0.0.1:$upstream reuseport; location / { return 200 '$reply'; } }
}
EOF
nginx -p "$work" -c "$work/upstream.conf" &
cat >"$work/tollgate.toml" <<'EOF'
records.path = ""
log.level = "error"
account.plan = "paid"
[limits.models."@cf/meta/llama-3.2-1b-instruct"]
requests = 100000000
EOF

# The first key makes the file; the others are put beside it as the gate would.
fill() { # file count
    "$tollgate" keys --config "$work/tollgate.toml" new first >/dev/null
    python3 - "$1" "$2" <<'PYTHON'
import hashlib, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
digest = lambda n: hashlib.sha256(f"tg_secret-{n}".encode()).hexdigest()
rows = ((f"key-{n}", digest(n), "ops", f'{{"team":"{n % 100}"}}', "[]", 1, 1) for n in range(int(sys.argv[2])))
database.executemany("INSERT INTO keys (name, sha256, owner, labels, models, created_ms, changed_ms) VALUES (?,?,?,?,?,?,?)", rows)
database.commit()
PYTHON
}
export CLOUDFLARE_API_TOKEN=t CLOUDFLARE_ACCOUNT_ID=a
declare -A pid=() port=()
start() { # count port
    export TOLLGATE_KEYS_PATH=$work/keys-$1.db TOLLGATE_LISTEN=127.0.0.1:$2 TOLLGATE_ADMIN=127.0.0.1:$(($2 + 10))
    [ -e "$TOLLGATE_KEYS_PATH" ] || fill "$TOLLGATE_KEYS_PATH" "$1"
    local began=$(date +%s%N)
    "$tollgate" serve --config "$work/tollgate.toml" --upstream "http://127.0.0.1:$upstream" >/dev/null &
    pid[$1]=$! port[$1]=$2
    until curl -sf -o /dev/null "http://$TOLLGATE_ADMIN/readyz"; do sleep 0.005; done
    echo "$(($(date +%s%N) - began))"
}
median() { sort -g | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
for count in 1 "$keys"; do
    start "$count" $((18092 + ${#pid[@]})) >"$work/began" # makes the file
    kill "${pid[$count]}"; wait "${pid[$count]}" || true
    for _ in 1 2 3 4 5; do
        start "$count" "${port[$count]}" >>"$work/start-$count"
        kill "${pid[$count]}"; wait "${pid[$count]}" || true
    done
    printf 'start with %7d keys: %4.0f ms (median of 5)\n' "$count" "$(median <"$work/start-$count" | awk '{ print $1 / 1e6 }')"
    start "$count" "${port[$count]}" >"$work/began"
done
cat >"$work/post.lua" <<'EOF'
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"messages":[{"role":"user","content":"' .. string.rep("all work and no play ", 44) .. '"}],"max_tokens":64}'
local n, keys = 0, 1
function init(arguments) keys = tonumber(arguments[1]) end
function request()
    n = (n * 1103515245 + 12345) % 2147483648
    wrk.headers["authorization"] = "Bearer tg_secret-" .. (n % keys)
    return wrk.format()
end
function done(summary, latency)
    local failed = summary.errors.status + summary.errors.read + summary.errors.connect + summary.errors.timeout
    io.write("calls ", summary.requests, " ", failed, " ", latency:percentile(50), "\n")
end
EOF
cost() { # count: microseconds of CPU a call
    local spent before
    spent() { awk -v hertz="$(getconf CLK_TCK)" '{ print ($14 + $15) * 1e6 / hertz }' "/proc/${pid[$1]}/stat"; }
    before=$(spent "$1")
    wrk -t1 -c"$connections" -d"${seconds}s" -s "$work/post.lua" \
        "http://127.0.0.1:${port[$1]}/client/v4/accounts/a/ai/run/@cf/meta/llama-3.2-1b-instruct" -- "$1" >"$work/wrk"
    awk -v spent="$(spent "$1")" -v before="$before" '/^calls/ { if ($3 > 0) { print "failed", $3; exit } print (spent - before) / $2 }' "$work/wrk"
}
for _ in $(seq "$rounds"); do
    one=$(cost 1) many=$(cost "$keys")
    awk -v one="$one" -v many="$many" -v keys="$keys" 'BEGIN { printf "a call: %.1f us of CPU with 1 key, %.1f with %d\n", one, many, keys }'
    awk -v one="$one" -v many="$many" 'BEGIN { print many / one }' >>"$work/ratios"
done
printf 'with %d keys a call costs %.2f of what it costs with one\n' "$keys" "$(median <"$work/ratios")"
