-- One exchange of one gate with the store: all that it has to say, in one atomic step. `local.rs` is the same in Rust.
-- KEYS: the fleet, then one for each word and each register. ARGV: who asks, then each word and each register. Times are milliseconds.
-- All that is told and kept is packed: tables by name cost more than the reckoning.
local floor, ceil, min, max, sub, pack, read = math.floor, math.ceil, math.min, math.max, string.sub, struct.pack, struct.unpack

-- The time and the run are told by tests alone.
local told_now, told_run, keep, since, leaving, words, connected, asker, who, known = read(ASKED, ARGV[1])
leaving = leaving == 1
local wall_now = told_now
if told_now == 0 then
    local time = redis.call('TIME')
    wall_now = time[1] * 1000 + floor(time[2] / 1000)
end

-- The fleet: which memory of the store this is, and since when. What another version wrote is not known.
local kept = redis.call('GET', KEYS[1])
local is_known = kept and string.byte(kept) == FORM
local form, off, last, began, checked, lost, run_kept, fleet, gates_at
if is_known then form, off, last, began, checked, lost, run_kept, fleet, gates_at = read(FLEET, kept) end

-- A connection outlives no run of a server but where something stands between that speaks its language.
local run, is_asked = told_run, false
if run == '' then
    run = connected
    if run ~= run_kept or wall_now >= checked + 1000 or wall_now < checked then
        local told = redis.pcall('INFO', 'server')
        run, checked, is_asked = type(told) == 'string' and string.match(told, 'run_id:(%w+)') or connected, wall_now, true
    end
end

local now, named = wall_now, asker .. '\0' .. who .. '\0'
local at, seen, is_same
if not is_known then
    fleet, off, began, checked, lost = string.format('%.0f', now) .. sub(run, 1, 8), 0, now, wall_now, known ~= '' and 1 or 0
    kept, gates_at = '', 1
else
    at = string.find(kept, named, gates_at, true)
    seen = at and read('<d', kept, at - 8)
    -- Who was forgotten may still be written there.
    if seen and last >= seen + FORGET then seen = nil end
    -- A clock that is set back, or forth, goes on from where it was.
    now = now + off
    if seen and since > 0 then now = min(now, seen + since + JUMP) end
    now = max(now, last)
    is_same = now - wall_now == off and run == run_kept and not is_asked
    off = now - wall_now
    if run ~= run_kept then
        fleet, began, lost = string.format('%.0f', now) .. sub(run, 1, 8), now, 1
    elseif known ~= '' and known ~= fleet and lost == 0 then
        lost, is_same = 1, false
    end
end
-- What one says within a moment of what is written is not written again.
if not (is_same and seen and not leaving and now < seen + FRESH) then
    local head = pack(FLEET, FORM, off, now, began, checked, lost, run, fleet)
    local gates
    if at then
        gates = sub(kept, gates_at, at - 9) .. (leaving and '' or pack('<d', now) .. named) .. sub(kept, at + #named)
    else
        -- Those that were not heard of for long go when a new one comes.
        local there, from = {}, gates_at
        while from <= #kept do
            local spoke, _, _, after = read('<dss', kept, from)
            if now < spoke + FORGET then there[#there + 1] = sub(kept, from, after - 1) end
            from = after
        end
        gates = table.concat(there) .. (leaving and '' or pack('<d', now) .. named)
    end
    redis.call('SET', KEYS[1], head .. gates)
end

-- A limit: what each gate holds of it. All of them together never hold more.
local function limit(key, word)
    local now = now
    local units, window, number, held, p1, p2, p3, p4, p5, p6, p7, p8, ask, first, waiting, had, refused, held_up, unpaced = read(WORD, word)
    unpaced = unpaced == 1
    local horizon = window + floor(window / 100) + floor(window / 45) + 1
    local counts = window + ceil(window / 100)
    local part = horizon / PARTS
    local kept = redis.call('GET', key)
    local form, level, fill, filled, pace, paced, hold, expires, stays, at
    if kept and string.byte(kept) == FORM then
        form, level, fill, filled, pace, paced, hold, expires, stays, at = read(RECORD, kept)
    end
    if not at or now >= expires then
        level, fill, filled, pace, paced, hold, stays, kept, at = ceil(units / 2), (units + 1) * 1.02 / window, now, 1, 0, 0, 0, '', 1
    end
    -- The fleet's time is not written at each step, so a clock that is set back may be a moment behind here.
    now = max(now, filled)

    local total, gates, leaves = held, 1, {p1, p2, p3, p4, p5, p6, p7, p8}
    local rivals, others, most = 0, {}, #kept
    local claimants
    while at <= most do
        local it = {read(OWNED, kept, at)}
        local after, is_same = it[OWNED_AFTER], true
        if it[OWNED_ID] == asker then
            if number <= it[OWNED_NUMBER] then return {1} end
        else
            -- Silent ones are counted until what they held has left every window.
            if it[OWNED_WHO] == who and it[OWNED_LEFT] == 0 and it[OWNED_ENDS] > now + counts then
                it[OWNED_ENDS], it[OWNED_WAITING], is_same = now + counts, 0, false
            end
            if now < it[OWNED_ENDS] then
                local silent = now - it[OWNED_WORD]
                local passed = floor(silent / part)
                if it[OWNED_LEFT] == 1 then
                    -- One that has gone takes nothing more, so what it held comes free as it told.
                    local left = 0
                    for n = passed + 1, PARTS do left = left + it[OWNED_HELD + n] end
                    it[OWNED_HELD], is_same = left, false
                end
                total, gates = total + it[OWNED_HELD], gates + 1
                if passed == 0 then
                    for n = 1, PARTS do leaves[n] = leaves[n] + it[OWNED_HELD + n] end
                else
                    for n = 1, PARTS do
                        local to = max(1, n - passed)
                        leaves[to] = leaves[to] + it[OWNED_HELD + n]
                    end
                end
                if it[OWNED_WAITING] > 0 then
                    if silent < 1500 then
                        rivals, claimants = rivals + 1, {it, claimants}
                    else
                        it[OWNED_WAITING], is_same = 0, false
                    end
                end
                others[gates - 1] = is_same and sub(kept, at, after - 1) or pack(OWNED, unpack(it))
            end
        end
        at = after
    end

    if refused == 1 and (pace >= 1 or now - paced >= window / 60) then
        local share = pace >= 1 and 1 or min(1, pace + (now - paced) / window * 0.05)
        pace, paced, level = max(0.05, share * 0.7), now, min(level, 0)
    end
    hold = max(hold, now + held_up)
    local share = pace >= 1 and 1 or min(1, pace + (now - paced) / window * 0.05)
    local cap = max(1, floor(units * share))
    local burst = unpaced and cap or ceil(cap / 2)
    level = unpaced and cap or min(burst, level + fill * (now - filled))

    -- What those may claim who had less: a turn for each that they had less.
    local function claims(granted)
        local claimed, next = 0, claimants
        while next do
            local it = next[1]
            claimed = claimed + min(it[OWNED_WAITING], max(0, floor((had + granted * 1000 - it[OWNED_HAD]) / 1000)))
            next = next[2]
        end
        return claimed
    end

    -- What one used that died before it told this memory leaves a moment later than a window.
    local frozen = max(0, began + (lost == 1 and counts or 0) + LEARN - now)
    local room, granted = cap - total, 0
    if frozen == 0 and hold <= now and ask > 0 then
        local free = min(room, floor(level))
        if rivals == 0 then
            granted = max(0, min(ask, free))
        elseif ask <= 64 then
            while granted < ask and free - claims(granted) >= granted + 1 do granted = granted + 1 end
        end
        if granted < first then
            local fits = first > 1 and room - claims(0) >= first and level >= min(first, burst)
            granted = fits and first or 0
        end
    end
    leaves[PARTS] = leaves[PARTS] + granted
    total, room, level = total + granted, room - granted, level - granted

    -- The highest rate that can be kept up: until each part leaves, no more than the room there is.
    local steady = (cap + 1) * 1.02 / window
    local ahead = cap + 1 - total
    fill = steady
    for n = 1, PARTS do
        ahead = ahead + leaves[n]
        local rate = ahead / (n * part)
        if rate < fill then fill = rate end
    end
    fill = max(fill, steady / 100)

    -- When there may be a turn for one more of this gate's.
    local claimed, next = claims(granted), granted < first and first or 1
    local needed, enough = claimed + next, claimed + min(next, burst)
    local due = 0
    if level < enough then due = (enough - level) / fill end
    if needed > room then
        local over, left = needed - room, 0
        local free = horizon
        for n = 1, PARTS do
            if left + leaves[n] >= over then
                free = (n - 1 + (over - left) / leaves[n]) * part
                break
            end
            left = left + leaves[n]
        end
        due = max(due, free)
    end
    due = ceil(max(due, hold - now, frozen))
    local every = min(window, ceil((1 + rivals) / fill))
    local scarce = (rivals > 0 or room < cap / 8 or level < burst / 4) and 1 or 0

    local lasts = keep + counts + 60000
    local ends = now + (leaving and ceil(horizon) or keep + counts)
    others[gates] = pack(OWNED, asker, who, number, now, ends, held + granted, p1, p2, p3, p4, p5, p6, p7, p8 + granted,
        max(0, waiting - granted), had, leaving and 1 or 0)
    -- A time to live is dear to set: it is set for longer, and then left for a minute of the server's own clock.
    local is_kept = stays >= wall_now + lasts and stays <= wall_now + lasts + 60000
    if not is_kept then stays = wall_now + lasts + 60000 end
    local record = pack(RECORD, FORM, level, fill, now, pace, paced, hold, now + lasts, stays) .. table.concat(others)
    if is_kept then redis.call('SET', key, record, 'KEEPTTL') else redis.call('SET', key, record, 'PX', lasts + 60000) end
    return {0, granted, frozen, min(due, window * 2), every, floor(share * 1000000), max(0, hold - now), scarce, total, gates}
end

-- A budget: what each gate may spend. All of them together never pass the limit.
local function register(key, told)
    local most, wall, number, restored, count, from = read(REGISTER, told)
    local kept = redis.call('GET', key)
    if not kept or string.byte(kept) ~= FORM then kept = '' end
    local spent, upto, gates, last, own, at = 0, 0, 1, wall, {pack('B', FORM)}, 2
    while at <= #kept do
        local begins, id, its, its_number, slots = at, nil, nil, nil, nil
        id, its, its_number, slots, at = read(GATE, kept, at)
        if id == asker and number <= its_number then return {1} end
        if id == asker or restored == 1 and its == who then
            -- It is told anew; one that has its books back has all of it in them.
            at = at + slots * 24
        else
            local left, is_same = {}, true
            for _ = 1, slots do
                local expires, has_spent, has, after = read(SLOT, kept, at)
                if expires > wall then spent, upto = spent + has_spent, upto + has end
                if expires + 3600000 > wall then
                    left[#left + 1] = sub(kept, at, after - 1)
                    last = max(last, expires)
                else
                    is_same = false
                end
                at = after
            end
            if #left > 0 then
                gates = gates + 1
                own[gates] = is_same and sub(kept, begins, at - 1) or pack(GATE, id, its, its_number, #left) .. table.concat(left)
            end
        end
    end
    local frozen
    if lost == 1 then frozen = began + AGAIN - now else frozen = began + LEARN - now end
    local granted, room = 0, most - upto
    own[gates + 1] = pack(GATE, asker, who, number, count)
    for n = 1, count do
        local expires, has_spent, used, wanted, held, after = read('<ddddd', told, from)
        granted = wanted
        if wanted > held then
            if frozen > 0 then granted = held else granted = max(held, min(wanted, room)) end
        end
        -- What is used counts, whatever was granted.
        own[gates + 1 + n] = pack(SLOT, expires, has_spent, max(granted, used))
        room = room - max(granted, used)
        last = max(last, expires)
        from = after
    end
    redis.call('SET', key, table.concat(own), 'PX', last - wall + 3600000)
    return {0, granted, spent, upto, gates}
end

local answers, grants = {}, {}
for n = 1, words do answers[n] = limit(KEYS[n + 1], ARGV[n + 1]) end
for n = words + 1, #ARGV - 1 do grants[n - words] = register(KEYS[n + 1], ARGV[n + 1]) end
return {fleet, answers, grants, wall_now}
