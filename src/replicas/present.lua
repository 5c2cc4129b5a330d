-- Who is there, and what each holds. KEYS: the fleet, then limits and budgets; ARGV: what each of those is. It writes nothing.
local time = redis.call('TIME')
local wall = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('GET', KEYS[1])
local fleet = kept and cmsgpack.unpack(kept) or {off = 0, gates = {}}
local now = wall + fleet.off

local gates = {}
for _, gate in pairs(fleet.gates) do
    gates[#gates + 1] = {gate[1], now - gate[2]}
end

local all = {}
for n, what in ipairs(ARGV) do
    local kept = redis.call('GET', KEYS[n + 1])
    local record, parts = kept and cmsgpack.unpack(kept), {}
    if record and what == 'limit' then
        for _, it in pairs(record.own) do
            if now < it.ends then parts[#parts + 1] = {it.who, it.held, it.waiting} end
        end
    elseif record then
        for _, it in pairs(record) do
            local spent, upto = 0, 0
            for _, slot in ipairs(it.slots) do
                if slot[1] > wall then spent, upto = spent + slot[2], upto + slot[3] end
            end
            parts[#parts + 1] = {it.who, spent, upto}
        end
    end
    all[n] = parts
end
return {gates, all}
