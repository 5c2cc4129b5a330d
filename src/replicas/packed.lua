-- How what is told and kept is packed. Names end with a zero.
local PARTS, FORM = 8, 1
-- Told by a gate: the time, the run, how long it keeps, since when it was answered, whether it leaves, how many words, its connection's
-- run, its id, its name, the fleet.
local ASKED = '<dsddBdssss'
-- Units, window, number, held and its parts, ask, first, waiting, had, whether upstream refused, for how long it is held, whether unpaced.
local WORD = '<ddddddddddddddddBdB'
-- The limit, the gate's time, number, whether its books are back, how many slots; of each, when it expires, what is spent, used, wanted, held.
local REGISTER = '<dddBH'
-- Kept: the form, how far the clock is off, the last time, since when, when the run was asked for, whether memory was lost, the run,
-- the fleet; of each gate, when it spoke, its id, its name.
local FLEET = '<BddddBss'
-- The form, level, fill, when it was filled, pace, when that was learned, until when it is held, when it expires, how long the
-- server has it at least.
local RECORD = '<Bdddddddd'
-- Of each gate: id, name, number, when it spoke, when it ends, held and its parts, waiting, had, whether it has left.
local OWNED = '<ssdddIIIIIIIIIIdB'
local OWNED_ID, OWNED_WHO, OWNED_NUMBER, OWNED_WORD, OWNED_ENDS, OWNED_HELD = 1, 2, 3, 4, 5, 6
local OWNED_WAITING, OWNED_HAD, OWNED_LEFT, OWNED_AFTER = 15, 16, 17, 18
-- Of each gate: id, name, number, how many slots; of each slot, when it expires, what is spent, up to what.
local GATE, SLOT = '<ssdH', '<ddd'
