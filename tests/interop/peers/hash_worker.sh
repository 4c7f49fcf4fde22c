#!/bin/sh
# What `gearman -w -f hash` runs for a job: the SHA-256 of standard input. Argument: a directory.
#
# Every run is noted in `starts`. The run that takes away the file `hold` notes its worker in
# `holder` and then stands at the FIFO `gate`, so that it is known who holds a job and when.
echo "$PPID" >>"$1/starts"
if [ -e "$1/hold" ] && mv "$1/hold" "$1/taken" 2>/dev/null; then
    echo "$PPID" >"$1/holder"
    cat "$1/gate" >/dev/null
fi
exec sha256sum
