-- One exchange of one gate with the store: all that it has to say, in one atomic step. `local.rs` is the same in Rust.
-- KEYS: the fleet, then one for each word. ARGV[1]: the exchange in JSON. Times are milliseconds.
local asked = cjson.decode(ARGV[1])
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local PARTS = 8

local run = asked.run
if run == '' then
    local told = redis.pcall('INFO', 'server')
    run = type(told) == 'string' and string.match(told, 'run_id:(%w+)') or asked.run_told
end
local now = asked.now
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + floor(time[2] / 1000)
end

local wall_now = now

-- The fleet: which memory of the store this is, and since when.
local kept = redis.call('GET', KEYS[1])
local fleet = kept and cmsgpack.unpack(kept)
if not fleet then
    fleet = {id = string.format('%.0f', now) .. string.sub(run, 1, 8), run = run, since = now, lost = asked.fleet ~= '', off = 0, last = now, gates = {}}
else
    -- A clock that is set back, or forth, goes on from where it was.
    local at, seen = now + fleet.off, fleet.gates[asked.id]
    if seen and asked.since > 0 then at = min(at, seen[2] + asked.since + asked.jump) end
    at = max(at, fleet.last)
    fleet.off, fleet.last, now = at - now, at, at
    if fleet.run ~= run then
        fleet.id, fleet.run, fleet.since, fleet.lost = string.format('%.0f', now) .. string.sub(run, 1, 8), run, now, true
    elseif asked.fleet ~= '' and asked.fleet ~= fleet.id then
        fleet.lost = true
    end
end
for id, gate in pairs(fleet.gates) do
    if now >= gate[2] + asked.forget then fleet.gates[id] = nil end
end
if asked.leaving then fleet.gates[asked.id] = nil else fleet.gates[asked.id] = {asked.who, now} end
redis.call('SET', KEYS[1], cmsgpack.pack(fleet))

local function limit(key, word)
    local units, window, number, held, parts, ask, first, waiting, had, refused, hold, unpaced =
        word[1], word[2], word[3], word[4], word[5], word[6], word[7], word[8], word[9], word[10], word[11], word[12] == 1
    local horizon = window + floor(window / 100) + floor(window / 45) + 1
    local counts = window + ceil(window / 100)
    local part = horizon / PARTS
    local kept = redis.call('GET', key)
    local record = kept and cmsgpack.unpack(kept)
    if not record or now >= record.expires then
        record = {level = ceil(units / 2), fill = (units + 1) * 1.02 / window, filled = now, pace = 1, paced = 0, hold = 0, own = {}}
    end
    local own = record.own
    local me = own[asked.id]
    if me and number <= me.number then return {1} end

    -- Silent ones are counted until what they held has left every window.
    for id, it in pairs(own) do
        if id ~= asked.id and it.who == asked.who and not it.left and it.ends > now + counts then
            it.ends, it.waiting = now + counts, 0
        end
        if now >= it.ends then own[id] = nil end
    end
    local ends = now + (asked.leaving and ceil(horizon) or asked.keep + counts)
    me = {who = asked.who, number = number, word = now, ends = ends, held = held, parts = parts, waiting = waiting, had = had, left = asked.leaving}
    own[asked.id] = me

    if refused == 1 and (record.pace >= 1 or now - record.paced >= window / 60) then
        local share = record.pace >= 1 and 1 or min(1, record.pace + (now - record.paced) / window * 0.05)
        record.pace, record.paced, record.level = max(0.05, share * 0.7), now, min(record.level, 0)
    end
    record.hold = max(record.hold, now + hold)
    local share = record.pace >= 1 and 1 or min(1, record.pace + (now - record.paced) / window * 0.05)
    local cap = max(1, floor(units * share))
    local burst = unpaced and cap or ceil(cap / 2)
    record.level = unpaced and cap or min(burst, record.level + record.fill * (now - record.filled))
    record.filled = now

    local total, gates, rivals, leaving = 0, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0}
    for id, it in pairs(own) do
        local passed = floor((now - it.word) / part)
        if it.left then
            -- One that has gone takes nothing more, so what it held comes free as it told.
            it.held = 0
            for n = passed + 1, PARTS do it.held = it.held + it.parts[n] end
        end
        total, gates = total + it.held, gates + 1
        for n = 1, PARTS do
            local at = max(1, n - passed)
            leaving[at] = leaving[at] + it.parts[n]
        end
        if id ~= asked.id and it.waiting > 0 then
            if now - it.word < 1500 then rivals = rivals + 1 else it.waiting = 0 end
        end
    end
    -- What those may claim who had less: a turn for each that they had less.
    local function claims(granted)
        if rivals == 0 then return 0 end
        local claimed = 0
        for id, it in pairs(own) do
            if id ~= asked.id and it.waiting > 0 then
                claimed = claimed + min(it.waiting, max(0, floor((had + granted * 1000 - it.had) / 1000)))
            end
        end
        return claimed
    end

    -- What one used that died before it told this memory leaves a moment later than a window.
    local frozen = max(0, fleet.since + (fleet.lost and counts or 0) + asked.learn - now)
    local room, granted = cap - total, 0
    if frozen == 0 and record.hold <= now and ask > 0 then
        local free = min(room, floor(record.level))
        if rivals == 0 then
            granted = max(0, min(ask, free))
        elseif ask <= 64 then
            while granted < ask and free - claims(granted) >= granted + 1 do granted = granted + 1 end
        end
        if granted < first then
            local fits = first > 1 and room - claims(0) >= first and record.level >= min(first, burst)
            granted = fits and first or 0
        end
    end
    me.held = held + granted
    me.parts[PARTS] = me.parts[PARTS] + granted
    leaving[PARTS] = leaving[PARTS] + granted
    me.waiting = max(0, waiting - granted)
    total, room, record.level = total + granted, room - granted, record.level - granted

    -- The highest rate that can be kept up: until each part leaves, no more than the room there is.
    local steady = (cap + 1) * 1.02 / window
    local fill, ahead = steady, cap + 1 - total
    for n = 1, PARTS do
        ahead = ahead + leaving[n]
        fill = min(fill, max(0, ahead) / (n * part))
    end
    record.fill = max(fill, steady / 100)

    -- When there may be a turn for one more of this gate's.
    local claimed, next = claims(granted), granted < first and first or 1
    local needed, level = claimed + next, claimed + min(next, burst)
    local due = 0
    if record.level < level then due = (level - record.level) / record.fill end
    if needed > room then
        local over, left = needed - room, 0
        local at = horizon
        for n = 1, PARTS do
            if left + leaving[n] >= over then
                at = (n - 1 + (over - left) / leaving[n]) * part
                break
            end
            left = left + leaving[n]
        end
        due = max(due, at)
    end
    due = ceil(max(due, record.hold - now, frozen))
    local every = min(window, ceil((1 + rivals) / record.fill))
    local scarce = (rivals > 0 or room < cap / 8 or record.level < burst / 4) and 1 or 0
    record.expires = now + asked.keep + counts + 60000
    redis.call('SET', key, cmsgpack.pack(record), 'PX', asked.keep + counts + 60000)
    return {0, granted, frozen, min(due, window * 2), every, floor(share * 1000000), max(0, record.hold - now), scarce, total, gates}
end

-- A budget: what each gate may spend. All of them together never pass the limit.
local function register(key, word)
    local most, wall, number, restored, slots = word[1], word[2], word[3], word[4], word[5]
    local kept = redis.call('GET', key)
    local own = kept and cmsgpack.unpack(kept) or {}
    local me = own[asked.id]
    if me and number <= me.number then return {1} end
    local spent, upto, gates, last = 0, 0, 1, wall
    for id, it in pairs(own) do
        if id == asked.id or restored == 1 and it.who == asked.who then
            -- It is told anew; one that has its books back has all of it in them.
            own[id] = nil
        else
            local left = {}
            for _, slot in ipairs(it.slots) do
                if slot[1] > wall then spent, upto = spent + slot[2], upto + slot[3] end
                if slot[1] + 3600000 > wall then
                    left[#left + 1] = slot
                    last = max(last, slot[1])
                end
            end
            it.slots = left
            if #left == 0 then own[id] = nil else gates = gates + 1 end
        end
    end
    local frozen
    if fleet.lost then frozen = fleet.since + asked.again - now else frozen = fleet.since + asked.learn - now end
    local mine, granted, room = {}, 0, most - upto
    for n, slot in ipairs(slots) do
        local used, wanted, held = slot[3], slot[4], slot[5]
        granted = wanted
        if wanted > held then
            if frozen > 0 then granted = held else granted = max(held, min(wanted, room)) end
        end
        -- What is used counts, whatever was granted.
        mine[n] = {slot[1], slot[2], max(granted, used)}
        room = room - max(granted, used)
        last = max(last, slot[1])
    end
    own[asked.id] = {who = asked.who, number = number, slots = mine}
    redis.call('SET', key, cmsgpack.pack(own), 'PX', last - wall + 3600000)
    return {0, granted, spent, upto, gates}
end

local answers, grants = {}, {}
for n, word in ipairs(asked.words) do
    answers[n] = limit(KEYS[n + 1], word)
end
for n, word in ipairs(asked.registers) do
    grants[n] = register(KEYS[#asked.words + n + 1], word)
end
return {fleet.id, answers, grants, wall_now}
