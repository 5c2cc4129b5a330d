-- Who is there, and what each holds. KEYS: the fleet, then limits and budgets; ARGV: what each of those is. It writes nothing.
local read = struct.unpack
local time = redis.call('TIME')
local wall = time[1] * 1000 + math.floor(time[2] / 1000)

local function kept(key)
    local text = redis.call('GET', key)
    return text and string.byte(text) == FORM and text or nil
end

local gates, now = {}, wall
local fleet = kept(KEYS[1])
if fleet then
    local _, off, _, _, _, _, _, _, at = read(FLEET, fleet)
    now = wall + off
    while at <= #fleet do
        local spoke, id, who
        spoke, id, who, at = read('<dss', fleet, at)
        if now < spoke + FORGET then gates[#gates + 1] = {who, math.max(0, now - spoke)} end
    end
end

local function limit(record)
    local parts, at = {}, select(10, read(RECORD, record))
    while at <= #record do
        local it = {read(OWNED, record, at)}
        if now < it[OWNED_ENDS] then parts[#parts + 1] = {it[OWNED_WHO], it[OWNED_HELD], it[OWNED_WAITING]} end
        at = it[OWNED_AFTER]
    end
    return parts
end

local function budget(record)
    local parts, at = {}, 2
    while at <= #record do
        local spent, upto, id, who, number, slots = 0, 0
        id, who, number, slots, at = read(GATE, record, at)
        for _ = 1, slots do
            local expires, has_spent, has
            expires, has_spent, has, at = read(SLOT, record, at)
            if expires > wall then spent, upto = spent + has_spent, upto + has end
        end
        parts[#parts + 1] = {who, spent, upto}
    end
    return parts
end

local all = {}
for n, what in ipairs(ARGV) do
    local record = kept(KEYS[n + 1])
    all[n] = record and (what == 'limit' and limit or budget)(record) or {}
end
return {gates, all}
