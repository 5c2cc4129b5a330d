#!/bin/sh
# How the sounds beside this were made: Debian's ffmpeg 5.1.9.
set -e
cd "$(dirname "$0")"
tone() { seconds=$1; rate=$2; shift 2; ffmpeg -v error -y -f lavfi -i "sine=frequency=440:sample_rate=$rate:duration=$seconds" -bitexact "$@"; }
tone 4 16000 -c:a libopus -b:a 8k opus.ogg
tone 2 16000 -c:a libopus -b:a 8k second.ogg
cat opus.ogg second.ogg > chained.ogg && rm second.ogg
tone 4 16000 -c:a libvorbis -q:a 0 vorbis.ogg
tone 1 8000 -c:a flac -f ogg flac.ogg
tone 4 8000 -c:a libspeex -compression_level 2 -b:a 4k speex.ogg
tone 4 16000 -c:a libopus -b:a 8k opus.webm
tone 4 16000 -c:a libopus -b:a 8k -f webm -live 1 opus-live.webm
tone 4 16000 -c:a libvorbis -q:a 0 vorbis.webm
tone 4 8000 -c:a aac -b:a 8k -f matroska aac.mka
tone 4 8000 -c:a aac -b:a 8k aac.m4a
tone 4 8000 -c:a aac -b:a 8k -movflags frag_keyframe+empty_moov aac-fragments.mp4
tone 4 8000 -c:a aac -b:a 8k -f adts aac.adts
tone 4 16000 -c:a libmp3lame -q:a 9 vbr.mp3
tone 1 8000 -c:a flac -f flac pipe:1 | cat > piped.flac
tone 1 8000 -c:a pcm_s8 pcm.aiff
tone 1 8000 -c:a pcm_u8 -f caf pcm.caf 2>/dev/null || tone 1 8000 -c:a pcm_s8 -f caf pcm.caf
