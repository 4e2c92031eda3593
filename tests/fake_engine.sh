#!/bin/sh
# As fake_engine.py, but a shell: hundreds of them start in seconds. It notes when it began (in seconds since the
# machine was started) and what it saw of the GPUs, works for a moment, notes when it ended, and leaves an exit.json.
cd "$1" || exit 3
read -r now _ < /proc/uptime
echo "$now ${CUDA_VISIBLE_DEVICES:--}" >> starts
sleep 0.05
read -r now _ < /proc/uptime
echo "$now" >> ends
echo '{"status": "done", "code": 0}' > .exit.tmp
mv .exit.tmp exit.json
